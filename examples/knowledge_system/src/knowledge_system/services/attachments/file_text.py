"""Program that extracts the text of one file: ``python file_text.py MEDIA_TYPE < file > text``.

It runs in a process of its own, which limits its memory and processor time before it reads the file. It imports
nothing of the application and does not have its environment. Form feeds separate pages.
"""

from __future__ import annotations

import io
import os
import re
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Final
from xml.parsers import expat

_MEMORY: Final = 768 * 1024 * 1024
_PROCESSOR_SECONDS: Final = 60
_MOST_CHARACTERS: Final = 2_000_000
_MOST_PAGES: Final = 2_000
_MOST_ENTRIES: Final = 10_000
_MOST_XML: Final = 64 * 1024 * 1024
"""Uncompressed bytes that are read from all parts of a file."""
_CHUNK: Final = 65_536

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
OFFICE: Final = {
    f"{_OFFICE}wordprocessingml.document": re.compile(
        r"word/(?:document|header[0-9]*|footer[0-9]*|footnotes|endnotes|comments)\.xml"
    ),
    f"{_OFFICE}spreadsheetml.sheet": re.compile(r"xl/(?:sharedStrings|worksheets/sheet[0-9]+)\.xml"),
    f"{_OFFICE}presentationml.presentation": re.compile(r"ppt/(?:slides|notesSlides)/[a-zA-Z]+[0-9]+\.xml"),
}
"""Parts that contain text, by media type of the office formats (ISO/IEC 29500)."""
READABLE: Final = frozenset({"application/pdf", *OFFICE})


def extract(content: bytes, media_type: str) -> Iterator[str]:
    """Yield the text of a file in parts.

    Raises:
        Exception: the file is damaged, encrypted, or contains a document type definition.
    """
    if media_type in OFFICE:
        yield from _office(content, OFFICE[media_type])
    elif media_type == "application/pdf":
        yield from _pdf(content)


def _pdf(content: bytes) -> Iterator[str]:
    from pypdf import PdfReader

    for page in PdfReader(io.BytesIO(content)).pages[:_MOST_PAGES]:
        yield page.extract_text()
        yield "\f"


def _office(content: bytes, parts: re.Pattern[str]) -> Iterator[str]:
    left = _MOST_XML
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist()[:_MOST_ENTRIES] if parts.fullmatch(name)]
        for name in sorted(names, key=_in_order):
            found: list[str] = []
            with archive.open(name) as part:
                parser = _parser(found.append)
                while left > 0 and (chunk := part.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    parser.Parse(chunk, False)
                    yield "".join(found)
                    found.clear()
                if left > 0:
                    parser.Parse(b"", True)
            yield "\f" if name.startswith("ppt/slides/") else "\n"


def _in_order(name: str) -> tuple[bool, list[int], str]:
    return (
        "notes" in name or "/comments" in name,
        [int(number) for number in re.findall("[0-9]+", name)],
        name,
    )


def _parser(add: Callable[[str], object]) -> expat.XMLParserType:
    """Return a parser that adds the text of ``t`` elements and of cell values, and refuses entities."""
    parser = expat.ParserCreate()
    shown: list[bool] = []
    # A cell with the attribute t="s" contains the number of a shared string.
    shared = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal shared
        plain = name.rpartition(":")[2]
        if plain == "c":
            shared = attributes.get("t") == "s"
        elif plain in {"tab", "br"}:
            add(" ")
        shown.append(plain == "t" or (plain == "v" and not shared))

    def end(name: str) -> None:
        shown.pop()
        if name.rpartition(":")[2] in {"p", "si", "c", "row"}:
            add("\n")

    def text(characters: str) -> None:
        if shown and shown[-1]:
            add(characters)

    def refuse(*_: object) -> None:
        raise ValueError("a document type definition")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    return parser


def limit(*, threads: bool = False) -> None:
    """Limit memory, processor time and files of this process, and unless it needs threads, the number of them."""
    os.nice(10)
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_CPU, _PROCESSOR_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        *(() if threads else ((resource.RLIMIT_NPROC, 0),)),
    ):
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Extract the text from standard input to standard output."""
    limit()
    left = _MOST_CHARACTERS
    for part in extract(sys.stdin.buffer.read(), sys.argv[1]):
        shown = part[:left].encode("utf-8", errors="replace")
        sys.stdout.buffer.write(shown)
        left -= len(part)
        if left <= 0:
            break
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
