"""What a file is, by what stands in it; neither its name nor the word of the browser is asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["KINDS", "Kind", "recognise"]


class Kind(NamedTuple):
    """A form of files that is taken.

    Attributes:
        name: as Pillow calls it, where it is a picture.
        type: media type it is served as.
        endings: of its file names; the first is the usual one.
        picture: whether pages show it; everything else is downloaded.
    """

    name: str
    type: str
    endings: tuple[str, ...]
    picture: bool = False


_JPEG: Final = Kind("JPEG", "image/jpeg", (".jpg", ".jpeg"), picture=True)
_PNG: Final = Kind("PNG", "image/png", (".png",), picture=True)
_GIF: Final = Kind("GIF", "image/gif", (".gif",), picture=True)
_WEBP: Final = Kind("WEBP", "image/webp", (".webp",), picture=True)
_PDF: Final = Kind("PDF", "application/pdf", (".pdf",))
_DXF: Final = Kind("DXF", "image/vnd.dxf", (".dxf",))
_DWG: Final = Kind("DWG", "image/vnd.dwg", (".dwg",))

# ISO 32000-2, 7.5.2 and 7.5.5; readers look for the end in the last 1024 bytes.
_PDF_HEAD: Final = re.compile(rb"%PDF-[12]\.[0-9]")
_PDF_END: Final = re.compile(rb"startxref\s+[0-9]+\s+%%EOF")
_TAIL: Final = 1024
# Pairs of a group code and a value, a line each; comments (999) may stand before the first section.
_DXF_HEAD: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[ \t]*999\r?\n[^\r\n]*\r?\n){0,100}[ \t]*0\r?\n[ \t]*SECTION\r?\n"
)
_DXF_END: Final = re.compile(rb"\n[ \t]*0\r?\n[ \t]*EOF\s*\Z")
_BINARY_DXF: Final = b"AutoCAD Binary DXF\r\n\x1a\x00"
# Release 13 (AC1012) and later: a version, and five bytes of zero.
_DWG_HEAD: Final = re.compile(rb"AC10(?:1[2-9]|2[0-9]|3[0-9])\x00{5}")
_SHORTEST_DWG: Final = 128


def _is_pdf(content: bytes) -> bool:
    return bool(_PDF_HEAD.match(content) and _PDF_END.search(content[-_TAIL:]))


def _is_dxf(content: bytes) -> bool:
    if content.startswith(_BINARY_DXF):
        return True
    return bool(_DXF_HEAD.match(content) and _DXF_END.search(content[-_TAIL:]) and b"\0" not in content)


def _is_dwg(content: bytes) -> bool:
    return len(content) >= _SHORTEST_DWG and _DWG_HEAD.match(content) is not None


_TESTS: Final[tuple[tuple[Kind, Callable[[bytes], bool]], ...]] = (
    (_JPEG, lambda content: content.startswith(b"\xff\xd8\xff")),
    (_PNG, lambda content: content.startswith(b"\x89PNG\r\n\x1a\n")),
    (_GIF, lambda content: content.startswith((b"GIF87a", b"GIF89a"))),
    (_WEBP, lambda content: content[:4] == b"RIFF" and content[8:12] == b"WEBP"),
    (_PDF, _is_pdf),
    (_DXF, _is_dxf),
    (_DWG, _is_dwg),
)
KINDS: Final = {kind.type: kind for kind, _ in _TESTS}
"""By media type. SVG is not among them: it is a program that looks like a drawing."""


def recognise(content: bytes) -> Kind | None:
    """The kind of a file; ``None`` for what is not taken. Whether a picture is whole is found by reading it."""
    return next((kind for kind, fits in _TESTS if fits(content)), None)
