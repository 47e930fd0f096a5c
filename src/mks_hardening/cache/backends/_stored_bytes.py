"""The byte format of a stored entry: data only, signed together with its key.

    1 byte   0xc1, which MessagePack, JSON, pickle and text never begin with
    1 byte   version of this layout
    1 byte   form: bit 7 indicates a signature, bits 0 and 1 compression (zlib, zstd), bit 2 a cost; others are 0
    32 bytes signature, if there is one
    8 bytes  cost: seconds that the computation took, if it is stored
    8 + 8    fresh until, expires at: seconds on the wall clock
    2 bytes  number of tags; for each of them 2 bytes of length, its name, and 8 bytes of version. The first one is
             the generation of the namespace (``_generation.py``), unless an earlier release wrote the entry
    rest     the value, see ``_core/codec.py``; compressed, if the form says so

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
from typing import Final, NoReturn

from mks_hardening._core.codec import Codec
from mks_hardening._core.signing_keys import signing_secrets
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._immutable import LARGEST_VALUE
from mks_hardening.cache.backends._value_compression import decompressed, writing_compression
from mks_hardening.exceptions import DecodeError

__all__ = ["GENERATION_TAG", "TAG_VERSION_BYTES", "Envelope", "key_bytes"]

GENERATION_TAG: Final = " generation"
"""Name of the generation among the tags; tags of callers contain no space."""

TAG_VERSION_BYTES: Final = 8

_MAGIC: Final = 0xC1
_VERSION: Final = 2  # version 1 was the codec's value alone
_SIGNED: Final = 0x80
_ZLIB: Final = 0x01
_ZSTD: Final = 0x02
_COST: Final = 0x04
_FORMS: Final = (0, _ZLIB, _ZSTD, _COST, _COST | _ZLIB, _COST | _ZSTD)
_MAC_BYTES: Final = 32
_START_BYTES: Final = 3
_HEAD: Final = Struct(">ddH")
_LENGTH: Final = Struct(">H")
_SECONDS: Final = Struct(">d")
_GENERATION: Final = _LENGTH.pack(len(GENERATION_TAG)) + GENERATION_TAG.encode()
_AFTER_GENERATION: Final = _HEAD.size + len(_GENERATION) + TAG_VERSION_BYTES
_CONTEXT: Final = b"mks-cache\0"


class Envelope:
    """Encodes and decodes the entries of one namespace.

    Args:
        namespace: part of the signed data.
        signing_keys: secrets of at least 16 bytes; the first one signs, all are accepted (rotation). None:
            unsigned.
        compress_above: bytes from which on an encoded value is compressed, if that makes it smaller; None: never.

    Raises:
        ConfigurationError: a signing key is too short or has the wrong type.
    """

    __slots__ = ("_codec", "_compress_above", "_compression", "_macs", "_signed")

    def __init__(
        self,
        *,
        namespace: str,
        signing_keys: Iterable[str | bytes] | None,
        compress_above: int | None = None,
    ) -> None:
        secrets = signing_secrets(signing_keys)
        self._signed = _SIGNED if secrets else 0
        self._macs: dict[bytes, tuple[blake2b, ...]] = {}
        # One for each form: the signature covers it, so that bytes cannot be given another meaning.
        for form in _FORMS:
            start = bytes((_MAGIC, _VERSION, self._signed | form))
            context = _CONTEXT + start + namespace.encode() + b"\0"
            self._macs[start] = tuple(
                blake2b(context, key=secret, digest_size=_MAC_BYTES) for secret in secrets
            )
        self._codec = Codec(max_bytes=LARGEST_VALUE)
        self._compress_above = compress_above
        self._compression = None if compress_above is None else writing_compression()

    def seal(self, key: str, entry: CacheEntry) -> bytes:
        """Return the bytes to store under ``key``.

        Raises:
            EncodeError: the value is not plain data.
        """
        form = 0
        parts: list[bytes] = []
        if entry.cost:
            form |= _COST
            parts.append(_SECONDS.pack(entry.cost))
        generation = entry.generation
        count = len(entry.tags) + (generation is not None)
        parts.append(_HEAD.pack(entry.fresh_until, entry.expires_at, count))
        if generation is not None:
            parts += [_GENERATION, generation]
        for tag, version in entry.tags.items():
            name = key_bytes(tag)
            parts += [_LENGTH.pack(len(name)), name, version]
        value = self._codec.encode(entry.value)
        if self._compress_above is not None and len(value) > self._compress_above:
            value, compressed = self._compressed(value)
            form |= compressed
        parts.append(value)
        body = b"".join(parts)
        start = bytes((_MAGIC, _VERSION, self._signed | form))
        macs = self._macs[start]
        return b"".join((start, _mac(macs[0], key, body) if macs else b"", body))

    def _compressed(self, value: bytes) -> tuple[bytes, int]:
        if self._compression is None:
            return value, 0
        name, compress = self._compression
        smaller = compress(value)
        return (smaller, _ZSTD if name == "zstd" else _ZLIB) if len(smaller) < len(value) else (value, 0)

    def open(self, key: str, data: bytes) -> CacheEntry:
        """Return the entry in the bytes stored under ``key``.

        Raises:
            DecodeError: damaged, forged, from another key, or not for this reader (``newer``).
        """
        body = self._verified(key, data)
        form = data[2] & ~_SIGNED
        cost = 0.0
        try:
            if form & _COST:
                (cost,) = _SECONDS.unpack_from(body)
                body = body[_SECONDS.size :]
            fresh_until, expires_at, count = _HEAD.unpack_from(body)
            at = _HEAD.size
            generation = None
            if count and body.startswith(_GENERATION, at):
                at = _AFTER_GENERATION
                generation = body[at - TAG_VERSION_BYTES : at]
                count -= 1
            tags: dict[str, bytes] = {}
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(body, at)
                end = at + _LENGTH.size + length
                name = body[at + _LENGTH.size : end].decode("utf-8", "surrogatepass")
                at = end + TAG_VERSION_BYTES
                tags[name] = body[end:at]
        except (StructError, UnicodeDecodeError):
            raise DecodeError("not a cache entry") from None
        if not (fresh_until >= 0 and expires_at >= 0 and cost >= 0):  # false for NaN
            raise DecodeError("not a cache entry")
        packed = body[at:]
        if form & (_ZLIB | _ZSTD):
            packed = decompressed(packed, "zstd" if form & _ZSTD else "zlib", most=LARGEST_VALUE)
        value = self._codec.decode(packed, trusted=bool(self._signed))
        return CacheEntry(
            value,
            fresh_until=fresh_until,
            expires_at=expires_at,
            tags=tags,
            cost=cost,
            generation=generation,
        )

    def _verified(self, key: str, data: bytes) -> bytes:
        """Check version, form and signature, and return the bytes that follow."""
        macs = self._macs.get(data[:_START_BYTES])
        if macs is None:
            self._refuse(data)
        if not macs:
            return data[_START_BYTES:]
        end = _START_BYTES + _MAC_BYTES
        mac, body = data[_START_BYTES:end], data[end:]
        for begun in macs:
            if compare_digest(mac, _mac(begun, key, body)):
                return body
        raise DecodeError("the signature does not match")

    def _refuse(self, data: bytes) -> NoReturn:
        if len(data) < _START_BYTES or data[0] != _MAGIC:
            raise DecodeError("not a cache entry")
        version, form = data[1], data[2]
        unknown = form & ~_SIGNED not in _FORMS
        signed_for_others = form & _SIGNED and not self._signed
        newer = version > _VERSION or (version == _VERSION and bool(unknown or signed_for_others))
        raise DecodeError("of another layout, or signed differently", newer=newer)

    def __repr__(self) -> str:
        return f"Envelope(signed={bool(self._signed)})"


def key_bytes(key: str) -> bytes:
    """Return a key or tag as bytes; it may contain lone surrogates, which UTF-8 does not have."""
    try:
        return key.encode()  # three times as fast, and every hit needs it twice
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")


def _mac(begun: blake2b, key: str, body: bytes) -> bytes:
    """Return the MAC of a key and a body; the length of the key separates the two."""
    mac = begun.copy()
    name = key_bytes(key)
    mac.update(len(name).to_bytes(4, "big") + name)
    mac.update(body)
    return mac.digest()
