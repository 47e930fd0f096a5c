"""Compression of stored values: zstd where Python or a package has it, zlib otherwise; bounded on the way out."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Literal, TypeAlias, cast

from mks_hardening.exceptions import DecodeError

__all__ = ["decompressed", "writing_compression"]

Compression = Literal["zlib", "zstd"]
Package: TypeAlias = Any
"""``compression.zstd`` of Python 3.14, or the package with the same functions for older ones."""

# Values are written once and read often; higher levels take far longer for a few percent.
_ZLIB_LEVEL: Final = 1


@cache
def _zstd() -> Package | None:
    try:
        if sys.version_info >= (3, 14):
            import compression.zstd

            return compression.zstd
        import backports.zstd  # pyright: ignore[reportMissingImports]  # an optional package

        return cast("Package", backports.zstd)  # pyright: ignore[reportUnknownMemberType]  # as above
    except ImportError:  # the namespace of the package may exist without it
        return None


def writing_compression() -> tuple[Compression, Callable[[bytes], bytes]]:
    """Return the name of the best compression available here, and its function."""
    zstd = _zstd()
    if zstd is None:
        return "zlib", lambda data: zlib.compress(data, _ZLIB_LEVEL)
    return "zstd", zstd.compress


def decompressed(data: bytes, compression: Compression, *, most: int) -> bytes:
    """Return the original of compressed bytes.

    Raises:
        DecodeError: damaged, or larger than ``most`` bytes; ``newer`` is set if there is no zstd here.
    """
    zstd = _zstd() if compression == "zstd" else None
    if compression == "zstd" and zstd is None:
        raise DecodeError("compressed with zstd, which is not installed", newer=True)
    try:
        stream: Package = zlib.decompressobj() if zstd is None else zstd.ZstdDecompressor()
        original: bytes = stream.decompress(data, most)
    except Exception as error:  # each library has an error class of its own
        raise DecodeError(f"damaged {compression}: {type(error).__name__}") from error
    # Not at its end: truncated, or larger than allowed. Bytes after its end are not of ours.
    if not stream.eof or stream.unused_data:
        raise DecodeError(f"damaged {compression}, or more than {most} bytes")
    return original
