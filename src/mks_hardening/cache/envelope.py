"""The bytes of one stored entry: data only, and signed together with the key they belong to.

One fixed algorithm, chosen by whoever reads and checked before anything is parsed: bytes cannot name their own
digest, move to another key or namespace, or run anything.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from mks_hardening._core.codec import Codec
from mks_hardening.cache.entry import Entry
from mks_hardening.exceptions import ConfigurationError, DecodeError

__all__ = ["Envelope"]

_MAC_BYTES: Final = 32
_LARGEST: Final = 1 << 26
_SCHEMA: Final = b"mks-cache-1"


class Envelope:
    """Writes and reads the entries of one namespace.

    Args:
        namespace: part of what is signed.
        signing_keys: secrets of at least 16 bytes; the first signs, all are accepted (rotation). None: unsigned.

    Raises:
        ConfigurationError: a signing key is too short or no secret at all.
    """

    __slots__ = ("_codec", "_context", "_keys")

    def __init__(self, *, namespace: str, signing_keys: Iterable[str | bytes] | None) -> None:
        self._keys = tuple(_secret(key) for key in _listed(signing_keys))
        if signing_keys is not None and not self._keys:
            raise ConfigurationError("signing_keys must hold at least one key", parameter="signing_keys")
        self._context = _SCHEMA + b"\0" + namespace.encode() + b"\0"
        self._codec = Codec(max_bytes=_LARGEST)

    def seal(self, key: str, entry: Entry) -> bytes:
        """The bytes to be stored under ``key``.

        Raises:
            EncodeError: the value is not data.
        """
        body = self._codec.encode([entry.value, entry.fresh_until, entry.expires_at, dict(entry.tags)])
        return self._mac(self._keys[0], key, body) + body if self._keys else body

    def open(self, key: str, data: bytes) -> Entry:
        """The entry in the bytes stored under ``key``.

        Raises:
            DecodeError: damaged, forged, of another key, or of a newer version.
        """
        body = self._verified(key, data) if self._keys else data
        content = self._codec.decode(body)
        try:
            value, fresh_until, expires_at, tags = content
        except (TypeError, ValueError):
            raise DecodeError("not a cache entry") from None
        if (type(fresh_until), type(expires_at), type(tags)) != (float, float, dict):
            raise DecodeError("not a cache entry")
        return Entry(value, fresh_until, expires_at, tags)

    def _verified(self, key: str, data: bytes) -> bytes:
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, self._mac(secret, key, body)) for secret in self._keys):
            raise DecodeError("the signature does not fit")
        return body

    def _mac(self, secret: bytes, key: str, body: bytes) -> bytes:
        name = key.encode("utf-8", "surrogatepass")
        return hmac.digest(secret, self._context + len(name).to_bytes(4, "big") + name + body, "sha256")

    def __repr__(self) -> str:
        return f"Envelope(signed={bool(self._keys)})"


def _listed(keys: Iterable[str | bytes] | None) -> tuple[str | bytes, ...]:
    if isinstance(keys, (str, bytes)):
        raise ConfigurationError(
            "signing_keys must be several secrets, not one text", parameter="signing_keys"
        )
    return tuple(keys or ())


def _secret(key: str | bytes) -> bytes:
    secret = key.encode() if isinstance(key, str) else key
    if not isinstance(secret, bytes) or len(secret) < 16:
        raise ConfigurationError(
            "signing_keys must be secrets of at least 16 bytes", parameter="signing_keys"
        )
    return secret
