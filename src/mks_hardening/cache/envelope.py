"""The bytes of one stored entry: data only, and signed together with the key they belong to.

One fixed algorithm, chosen by whoever reads and checked before anything is parsed: bytes cannot name their own
digest, move to another key or namespace, or run anything. It is keyed BLAKE2b (RFC 7693), a MAC by design that
costs a sixth of HMAC-SHA256 here.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest
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

    __slots__ = ("_codec", "_macs")

    def __init__(self, *, namespace: str, signing_keys: Iterable[str | bytes] | None) -> None:
        secrets = [_secret(key) for key in _listed(signing_keys)]
        if signing_keys is not None and not secrets:
            raise ConfigurationError("signing_keys must hold at least one key", parameter="signing_keys")
        context = _SCHEMA + b"\0" + namespace.encode() + b"\0"
        self._macs = tuple(blake2b(context, key=secret, digest_size=_MAC_BYTES) for secret in secrets)
        self._codec = Codec(max_bytes=_LARGEST)

    def seal(self, key: str, entry: Entry) -> bytes:
        """The bytes to be stored under ``key``.

        Raises:
            EncodeError: the value is not data.
        """
        body = self._codec.encode([entry.value, entry.fresh_until, entry.expires_at, dict(entry.tags)])
        return _mac(self._macs[0], key, body) + body if self._macs else body

    def open(self, key: str, data: bytes) -> Entry:
        """The entry in the bytes stored under ``key``.

        Raises:
            DecodeError: damaged, forged, of another key, or of a newer version.
        """
        body = self._verified(key, data) if self._macs else data
        content = self._codec.decode(body, trusted=bool(self._macs))
        try:
            value, fresh_until, expires_at, tags = content
        except (TypeError, ValueError):
            raise DecodeError("not a cache entry") from None
        if (type(fresh_until), type(expires_at), type(tags)) != (float, float, dict):
            raise DecodeError("not a cache entry")
        return Entry(value, fresh_until, expires_at, tags)

    def _verified(self, key: str, data: bytes) -> bytes:
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        for begun in self._macs:
            if compare_digest(mac, _mac(begun, key, body)):
                return body
        raise DecodeError("the signature does not fit")

    def __repr__(self) -> str:
        return f"Envelope(signed={bool(self._macs)})"


def _mac(begun: blake2b, key: str, body: bytes) -> bytes:
    """The MAC of a key and a body; the length of the key keeps the two apart."""
    mac = begun.copy()
    name = key.encode("utf-8", "surrogatepass")
    mac.update(len(name).to_bytes(4, "big") + name)
    mac.update(body)
    return mac.digest()


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
    return blake2b(secret).digest()  # of the length the MAC takes, whatever the secret's is
