"""Removal of picture metadata without re-encoding: position, camera, comments, trailing data.

Everything that affects the display is kept: colours, transparency, resolution, animation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final


class DamagedError(ValueError):
    """The file violates its format."""


def strip_metadata(content: bytes, kind: str) -> bytes:
    """Return the picture without metadata and without data after its end.

    Args:
        content: content of the file.
        kind: ``JPEG``, ``PNG``, ``GIF`` or ``WEBP``.

    Raises:
        DamagedError: the file is truncated or has an invalid part.
    """
    try:
        return b"".join(_PARTS[kind](content))
    except (IndexError, struct.error) as error:
        raise DamagedError(kind) from error


# --- JPEG: ITU-T T.81, annex B ------------------------------------------------------------------

_ICC: Final = b"ICC_PROFILE\0"
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_SCAN, _END, _COMMENT = 0xDA, 0xD9, 0xFE


def _jpeg(content: bytes) -> Iterator[bytes]:
    yield content[:2]
    position = 2
    while True:
        if content[position] != 0xFF:
            raise DamagedError("JPEG")
        marker = content[position + 1]
        if marker == 0xFF:  # a marker may be preceded by fill bytes
            position += 1
            continue
        if marker == _END:
            yield b"\xff\xd9"
            return
        end = position + 2
        if marker not in _ALONE:
            end += _number(">H", content, end)
        if end > len(content):
            raise DamagedError("JPEG")
        if _belongs(marker, content[position + 4 : end]):
            yield content[position:end]
        position = end
        if marker == _SCAN:
            position = _scan_end(content, end)
            yield content[end:position]


def _belongs(marker: int, data: bytes) -> bool:
    """Whether to keep a segment: among APPn, only JFIF, ICC profile and Adobe's colour transform; no comments."""
    if 0xE0 <= marker <= 0xEF:
        wanted = {0xE0: b"JFIF\0", 0xE2: _ICC, 0xEE: b"Adobe"}.get(marker)
        return wanted is not None and data.startswith(wanted)
    return marker != _COMMENT


def _scan_end(content: bytes, position: int) -> int:
    """Return the position of the next marker that is neither a restart marker nor a stuffed byte."""
    while (position := content.find(b"\xff", position)) >= 0 and position + 1 < len(content):
        follower = content[position + 1]
        if follower and not 0xD0 <= follower <= 0xD7 and follower != 0xFF:
            return position
        position += 1 if follower == 0xFF else 2
    raise DamagedError("JPEG")


# --- PNG, third edition: 4.7, 11.3 --------------------------------------------------------------

_PNG_KEPT: Final = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP bKGD pHYs acTL fcTL fdAT".split()
)


def _png(content: bytes) -> Iterator[bytes]:
    yield content[:8]
    position, name = 8, b""
    while name != b"IEND":
        name = content[position + 4 : position + 8]
        end = position + 12 + _number(">I", content, position)
        if len(name) < 4 or end > len(content):
            raise DamagedError("PNG")
        if name in _PNG_KEPT:
            yield content[position:end]
        position = end


# --- WebP container: RIFF chunks ----------------------------------------------------------------

_WEBP_KEPT: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_EXIF_AND_XMP: Final = 0x0C


def _webp(content: bytes) -> Iterator[bytes]:
    whole = 8 + _number("<I", content, 4)
    if whole > len(content):
        raise DamagedError("WEBP")
    kept: list[bytes] = []
    position = 12
    while position + 8 <= whole:
        name, size = content[position : position + 4], _number("<I", content, position + 4)
        data = content[position + 8 : position + 8 + size]
        if len(data) < size:
            raise DamagedError("WEBP")
        if name == b"VP8X":
            data = bytes([data[0] & ~_EXIF_AND_XMP]) + data[1:]
        if name in _WEBP_KEPT:
            kept.append(name + struct.pack("<I", size) + data + b"\0" * (size % 2))
        position += 8 + size + size % 2
    body = b"WEBP" + b"".join(kept)
    yield b"RIFF" + struct.pack("<I", len(body)) + body


# --- GIF89a: 18 to 26 ---------------------------------------------------------------------------

_GRAPHIC_CONTROL, _APPLICATION = 0xF9, 0xFF


def _gif(content: bytes) -> Iterator[bytes]:
    position = 13 + _colours(content[10])
    yield content[:position]
    while content[position] != 0x3B:
        begin = position
        if content[position] == 0x2C:
            position += 10 + _colours(content[position + 9])
            position = _blocks_end(content, position + 1)
            yield content[begin:position]
        elif content[position] == 0x21:
            position = _blocks_end(content, position + 2)
            if _animates(content[begin:position]):
                yield content[begin:position]
        else:
            raise DamagedError("GIF")
    yield b"\x3b"


def _animates(extension: bytes) -> bool:
    return extension[1] == _GRAPHIC_CONTROL or (
        extension[1] == _APPLICATION and extension[3:14] in {b"NETSCAPE2.0", b"ANIMEXTS1.0"}
    )


def _colours(flags: int) -> int:
    """Return the length of a colour table in bytes."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks_end(content: bytes, position: int) -> int:
    while content[position]:
        position += 1 + content[position]
    return position + 1


def _number(form: str, content: bytes, position: int) -> int:
    found: int = struct.unpack_from(form, content, position)[0]
    return found


_PARTS: Final[dict[str, Callable[[bytes], Iterator[bytes]]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
}
