"""Program that converts one file: ``python file_conversion.py KIND < file > result``.

``docx`` and ``html`` become a zip file with ``article.md`` and the pictures below ``files/``, ``xlsx`` a text in
Markdown, and ``heic`` a JPEG without metadata. Like ``file_text``, it runs in a process with limits.
"""

from __future__ import annotations

import datetime as dt
import io
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Final

from knowledge_system.services.attachments import file_text

_MOST_BYTES: Final = 128 * 1024 * 1024
_MOST_PIXELS: Final = 50_000_000
_MOST_PICTURES: Final = 45
_MOST_ROWS: Final = 2_000
_MOST_COLUMNS: Final = 40


def _checked(content: bytes) -> io.BytesIO:
    """Return an office file whose parts are not larger than memory, as far as its directory is true."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(part.file_size for part in archive.infolist()) > _MOST_BYTES:
            raise ValueError("too large")
    return io.BytesIO(content)


def _docx(content: bytes) -> bytes:
    import mammoth

    pictures: dict[str, bytes] = {}

    def keep(picture: Any) -> dict[str, str]:
        name = f"image-{len(pictures) + 1}.{(picture.content_type or '').rpartition('/')[2]}"
        try:
            with picture.open() as file:
                if len(pictures) < _MOST_PICTURES:
                    pictures[name] = file.read()
        except (KeyError, ValueError):  # not in the document, or a link to elsewhere, which nobody follows
            name = ""
        return {"src": f"files/{name}"}

    page = mammoth.convert_to_html(_checked(content), convert_image=mammoth.images.img_element(keep))
    return _bundle(page.value, pictures)


def _html(content: bytes) -> bytes:
    return _bundle(content.decode("utf-8", "replace"), {})


def _bundle(html: str, pictures: dict[str, bytes]) -> bytes:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(html, "html.parser")
    for part in soup(["script", "style", "template"]):
        part.decompose()
    for part in soup(["a", "img"]):
        name = "href" if part.name == "a" else "src"
        part[name] = str(part.get(name, "")).replace(" ", "%20")
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", escape_underscores=False, table_infer_header=True
    )
    text = converter.convert_soup(soup)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as bundle:
        bundle.writestr("article.md", text.strip().replace("\0", ""))
        for name, picture in pictures.items():
            bundle.writestr(f"files/{name}", picture)
    return file.getvalue()


def _xlsx(content: bytes) -> bytes:
    from openpyxl import load_workbook

    book = load_workbook(_checked(content), read_only=True, data_only=True, keep_links=False)
    sheets = (sheet for sheet in book.worksheets if sheet.sheet_state == "visible")
    return "\n".join(line for sheet in sheets for line in _table(sheet)).encode("utf-8", "replace")


def _table(sheet: Any) -> Iterator[str]:
    sheet.reset_dimensions()  # what the file says of its size may be wrong
    read = sheet.iter_rows(max_row=_MOST_ROWS, max_col=_MOST_COLUMNS, values_only=True)
    rows = [[_cell(value) for value in row] for row in read]
    width = max((number for row in rows for number, cell in enumerate(row, 1) if cell), default=0)
    lines = [f"| {' | '.join([*row, *[''] * width][:width])} |" for row in rows if any(row)]
    if lines:
        yield from (f"## {_cell(sheet.title)}", "", lines[0], "|---" * width + "|", *lines[1:], "")


def _cell(value: object) -> str:
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        value = value.date()
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _heic(content: bytes) -> bytes:
    import pi_heif
    from PIL import Image

    pi_heif.register_heif_opener(thumbnails=False)
    with Image.open(io.BytesIO(content), formats=["HEIF"]) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError("too many pixels")
        file = io.BytesIO()
        # Turned by the decoder; of the metadata, only the colour profile is kept.
        image.convert("RGB").save(file, "JPEG", quality=90, icc_profile=image.info.get("icc_profile"))
    return file.getvalue()


CONVERSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "docx": _docx,
    "xlsx": _xlsx,
    "html": _html,
    "heic": _heic,
}


if __name__ == "__main__":
    file_text.limit(threads=sys.argv[1] == "heic")
    sys.stdout.buffer.write(CONVERSIONS[sys.argv[1]](sys.stdin.buffer.read()))
