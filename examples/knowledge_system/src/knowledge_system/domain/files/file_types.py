"""File type detection by content; file name and ``Content-Type`` are ignored."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from typing import Final, NamedTuple


class Kind(NamedTuple):
    """An accepted file type.

    Attributes:
        name: Pillow's name of the format, for pictures.
        type: media type with which the file is served.
        endings: file name extensions; the first is the usual one.
        picture: whether pages display it; all other files are downloads.
    """

    name: str
    type: str
    endings: tuple[str, ...]
    picture: bool = False


JPEG: Final = Kind("JPEG", "image/jpeg", (".jpg", ".jpeg"), picture=True)
_PNG: Final = Kind("PNG", "image/png", (".png",), picture=True)
_GIF: Final = Kind("GIF", "image/gif", (".gif",), picture=True)
_WEBP: Final = Kind("WEBP", "image/webp", (".webp",), picture=True)
HEIC: Final = Kind("HEIF", "image/heic", (".heic", ".heif"), picture=True)
"""What telephones take pictures in; converted to JPEG and never stored."""
_PDF: Final = Kind("PDF", "application/pdf", (".pdf",))
_DXF: Final = Kind("DXF", "image/vnd.dxf", (".dxf",))
_DWG: Final = Kind("DWG", "image/vnd.dwg", (".dwg",))

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_DOCX: Final = Kind("DOCX", f"{_OFFICE}wordprocessingml.document", (".docx",))
_XLSX: Final = Kind("XLSX", f"{_OFFICE}spreadsheetml.sheet", (".xlsx",))
_PPTX: Final = Kind("PPTX", f"{_OFFICE}presentationml.presentation", (".pptx",))

# ISO 32000-2, 7.5.2 and 7.5.5; readers look for the end marker in the last 1024 bytes.
_PDF_HEAD: Final = re.compile(rb"%PDF-[12]\.[0-9]")
_PDF_END: Final = re.compile(rb"startxref\s+[0-9]+\s+%%EOF")
_TAIL: Final = 1024
# Pairs of group code and value, one per line; comments (999) may precede the first section.
_DXF_HEAD: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[ \t]*999\r?\n[^\r\n]*\r?\n){0,100}[ \t]*0\r?\n[ \t]*SECTION\r?\n"
)
_DXF_END: Final = re.compile(rb"\n[ \t]*0\r?\n[ \t]*EOF\s*\Z")
_BINARY_DXF: Final = b"AutoCAD Binary DXF\r\n\x1a\x00"
# Release 13 (AC1012) and later: a version followed by five zero bytes.
_DWG_HEAD: Final = re.compile(rb"AC10(?:1[2-9]|2[0-9]|3[0-9])\x00{5}")
_SHORTEST_DWG: Final = 128
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1"})
"""ISO/IEC 23008-12, annex B."""


def _is_pdf(content: bytes) -> bool:
    return bool(_PDF_HEAD.match(content) and _PDF_END.search(content[-_TAIL:]))


def _is_dxf(content: bytes) -> bool:
    if content.startswith(_BINARY_DXF):
        return True
    return bool(_DXF_HEAD.match(content) and _DXF_END.search(content[-_TAIL:]) and b"\0" not in content)


def _is_dwg(content: bytes) -> bool:
    return len(content) >= _SHORTEST_DWG and _DWG_HEAD.match(content) is not None


def _is_office(main_part: str) -> Callable[[bytes], bool]:
    """Return a test for an office file (ISO/IEC 29500-2) by its main part; files with macros are not accepted."""

    def fits(content: bytes) -> bool:
        if not content.startswith(b"PK\x03\x04"):
            return False
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = {name.lower() for name in archive.namelist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return False
        macros = any(name.endswith("vbaproject.bin") for name in names)
        return not macros and {"[content_types].xml", main_part} <= names

    return fits


_TESTS: Final[tuple[tuple[Kind, Callable[[bytes], bool]], ...]] = (
    (JPEG, lambda content: content.startswith(b"\xff\xd8\xff")),
    (_PNG, lambda content: content.startswith(b"\x89PNG\r\n\x1a\n")),
    (_GIF, lambda content: content.startswith((b"GIF87a", b"GIF89a"))),
    (_WEBP, lambda content: content[:4] == b"RIFF" and content[8:12] == b"WEBP"),
    (HEIC, lambda content: content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS),
    (_PDF, _is_pdf),
    (_DXF, _is_dxf),
    (_DWG, _is_dwg),
    (_DOCX, _is_office("word/document.xml")),
    (_XLSX, _is_office("xl/workbook.xml")),
    (_PPTX, _is_office("ppt/presentation.xml")),
)
KINDS: Final = {kind.type: kind for kind, _ in _TESTS if kind is not HEIC}
"""Accepted types by media type. SVG is not accepted, because it can contain scripts."""


def recognise(content: bytes) -> Kind | None:
    """Return the type of a file, or ``None`` if it is not accepted. Damaged pictures are detected when decoded."""
    return next((kind for kind, fits in _TESTS if fits(content)), None)
