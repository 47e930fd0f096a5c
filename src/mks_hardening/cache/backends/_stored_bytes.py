"""The byte format of a stored entry: data only, signed together with its key.

    1 byte   0xc1, which MessagePack, JSON, pickle and text never begin with
    1 byte   version of this layout
    1 byte   form: bit 7 indicates a signature; the other bits are reserved (compression), and 0
    32 bytes signature, if there is one
    8 + 8    fresh until, expires at: seconds on the wall clock
    2 bytes  number of tags; for each of them 2 bytes of length, its name, and 8 bytes of version
    rest     the value, see ``_core/codec.py``

A reader leaves newer entries alone (a newer version, an unknown form, a signature when it has no key) and removes
older or damaged ones, so that old and new processes can run side by side.

The signature algorithm is fixed by the reader, and the signature is checked before anything after it is parsed:
stored bytes cannot choose their own digest, be moved to another key or namespace, or run code. The algorithm is
keyed BLAKE2b (RFC 7693), a MAC by design, which takes a sixth of the time of HMAC-SHA256 here.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Final

from mks_hardening._core.codec import Codec
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._immutable import LARGEST_VALUE
from mks_hardening.exceptions import ConfigurationError, DecodeError

__all__ = ["TAG_VERSION_BYTES", "Envelope"]

TAG_VERSION_BYTES: Final = 8

_MAGIC: Final = 0xC1
_VERSION: Final = 2  # version 1 was the codec's value alone
_SIGNED: Final = 0x80
_MAC_BYTES: Final = 32
_SHORTEST_SECRET: Final = 16
_HEAD: Final = Struct(">ddH")
_LENGTH: Final = Struct(">H")
_CONTEXT: Final = b"mks-cache\0"


class Envelope:
    """Encodes and decodes the entries of one namespace.

    Args:
        namespace: part of the signed data.
        signing_keys: secrets of at least 16 bytes; the first one signs, all are accepted (rotation). None:
            unsigned.

    Raises:
        ConfigurationError: a signing key is too short or has the wrong type.
    """

    __slots__ = ("_codec", "_macs", "_start")

    def __init__(self, *, namespace: str, signing_keys: Iterable[str | bytes] | None) -> None:
        secrets = [_secret(key) for key in _listed(signing_keys)]
        if signing_keys is not None and not secrets:
            raise ConfigurationError("signing_keys must contain at least one key", parameter="signing_keys")
        self._start = bytes((_MAGIC, _VERSION, _SIGNED if secrets else 0))
        context = _CONTEXT + self._start + namespace.encode() + b"\0"
        self._macs = tuple(blake2b(context, key=secret, digest_size=_MAC_BYTES) for secret in secrets)
        self._codec = Codec(max_bytes=LARGEST_VALUE)

    def seal(self, key: str, entry: CacheEntry) -> bytes:
        """Return the bytes to store under ``key``.

        Raises:
            EncodeError: the value is not plain data.
        """
        parts = [_HEAD.pack(entry.fresh_until, entry.expires_at, len(entry.tags))]
        for tag, version in entry.tags.items():
            name = tag.encode("utf-8", "surrogatepass")
            parts += [_LENGTH.pack(len(name)), name, version]
        parts.append(self._codec.encode(entry.value))
        body = b"".join(parts)
        return b"".join((self._start, _mac(self._macs[0], key, body) if self._macs else b"", body))

    def open(self, key: str, data: bytes) -> CacheEntry:
        """Return the entry in the bytes stored under ``key``.

        Raises:
            DecodeError: damaged, forged, from another key, or not for this reader (``newer``).
        """
        body = self._verified(key, data)
        try:
            fresh_until, expires_at, count = _HEAD.unpack_from(body)
            at = _HEAD.size
            tags: dict[str, bytes] = {}
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(body, at)
                end = at + _LENGTH.size + length
                name = body[at + _LENGTH.size : end].decode("utf-8", "surrogatepass")
                at = end + TAG_VERSION_BYTES
                tags[name] = body[end:at]
        except (StructError, UnicodeDecodeError):
            raise DecodeError("not a cache entry") from None
        if not (fresh_until >= 0 and expires_at >= 0):  # false for NaN
            raise DecodeError("not a cache entry")
        value = self._codec.decode(body[at:], trusted=bool(self._macs))
        return CacheEntry(value, fresh_until=fresh_until, expires_at=expires_at, tags=tags)

    def _verified(self, key: str, data: bytes) -> bytes:
        """Check version, form and signature, and return the bytes that follow."""
        start = len(self._start)
        if data[:start] != self._start:
            self._refuse(data)
        if not self._macs:
            return data[start:]
        mac, body = data[start : start + _MAC_BYTES], data[start + _MAC_BYTES :]
        for begun in self._macs:
            if compare_digest(mac, _mac(begun, key, body)):
                return body
        raise DecodeError("the signature does not match")

    def _refuse(self, data: bytes) -> None:
        if len(data) < len(self._start) or data[0] != _MAGIC:
            raise DecodeError("not a cache entry")
        version, form = data[1], data[2]
        unknown = form & ~_SIGNED
        signed_for_others = form & _SIGNED and not self._macs
        newer = version > _VERSION or (version == _VERSION and bool(unknown or signed_for_others))
        raise DecodeError("of another layout, or signed differently", newer=newer)

    def __repr__(self) -> str:
        return f"Envelope(signed={bool(self._macs)})"


def _mac(begun: blake2b, key: str, body: bytes) -> bytes:
    """Return the MAC of a key and a body; the length of the key separates the two."""
    mac = begun.copy()
    name = key.encode("utf-8", "surrogatepass")
    mac.update(len(name).to_bytes(4, "big") + name)
    mac.update(body)
    return mac.digest()


def _listed(keys: Iterable[str | bytes] | None) -> tuple[str | bytes, ...]:
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable | None):
        raise ConfigurationError(
            "signing_keys must be a list of secrets, not one string", parameter="signing_keys"
        )
    return tuple(keys or ())


def _secret(key: str | bytes) -> bytes:
    secret = key.encode() if isinstance(key, str) else key
    if not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET:
        raise ConfigurationError(
            f"signing_keys must be secrets of at least {_SHORTEST_SECRET} bytes", parameter="signing_keys"
        )
    return blake2b(secret).digest()  # of the length that the MAC requires, whatever the length of the secret
