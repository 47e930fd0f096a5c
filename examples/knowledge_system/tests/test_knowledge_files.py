"""What files are, what is taken out of them, what they are called, and bundles of them: over hostile tables."""

from __future__ import annotations

import io
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from knowledge_system.domain.files import bundle, file_names, front_matter, pictures
from knowledge_system.domain.files.file_types import KINDS, recognise
from knowledge_system.domain.files.picture_metadata import DamagedError, strip_metadata

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\nxref\n0 1\ntrailer<<>>\nstartxref\n28\n%%EOF\n"
DXF = b"999\r\ncomment\r\n  0\r\nSECTION\r\n  2\r\nHEADER\r\n  0\r\nENDSEC\r\n  0\r\nEOF\r\n"
DWG = b"AC1032" + bytes(5) + b"\x1f\x01" + bytes(300)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
LIMITS = bundle.Limits(entries=20, one=100_000, all=300_000)


def picture(kind: str = "PNG", size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(file, kind, **options)
    return file.getvalue()


def located() -> Image.Exif:
    """A photograph taken with the camera on its side, in Tokyo."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret-description"
    exif.get_ifd(0x8825).update({1: "N", 2: (35.0, 41.0, 22.0), 3: "E", 4: (139.0, 41.0, 30.0)})
    return exif


def animation(kind: str, **options: Any) -> bytes:
    frames = [Image.new("RGB", (30, 20), (number * 40, 0, 0)) for number in range(5)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=80, **options)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose head promises this size, with hardly any data behind it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(900)))
        + chunk(b"IEND", b"")
    )


# --- what it is -------------------------------------------------------------------------------

TAKEN = {
    "jpeg": (picture("JPEG"), "image/jpeg"),
    "progressive jpeg": (picture("JPEG", progressive=True), "image/jpeg"),
    "cmyk jpeg": (picture("JPEG", mode="CMYK"), "image/jpeg"),
    "png": (picture(), "image/png"),
    "palette": (picture(mode="P"), "image/png"),
    "one bit": (picture(mode="1"), "image/png"),
    "alpha": (picture(mode="LA"), "image/png"),
    "webp": (picture("WEBP"), "image/webp"),
    "lossless webp": (picture("WEBP", lossless=True), "image/webp"),
    "gif": (picture("GIF", mode="P"), "image/gif"),
    "animated gif": (animation("GIF", loop=0), "image/gif"),
    "animated webp": (animation("WEBP"), "image/webp"),
    "animated png": (animation("PNG"), "image/png"),
    "pdf": (PDF, "application/pdf"),
    "dxf": (DXF, "image/vnd.dxf"),
    "binary dxf": (b"AutoCAD Binary DXF\r\n\x1a\x00" + bytes(20), "image/vnd.dxf"),
    "dwg": (DWG, "image/vnd.dwg"),
}


@pytest.mark.parametrize(("content", "kind"), TAKEN.values(), ids=TAKEN)
def test_what_is_taken(content: bytes, kind: str) -> None:
    found = recognise(content)
    assert found is not None
    assert found.type == kind
    if found.picture:
        done = pictures.prepare(content, found)
        assert pictures.prepare(done.content, found).content == done.content
        assert Image.open(io.BytesIO(done.thumbnail)).format == "WEBP"


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "one byte": b"\xff",
    "text": "養生の手順".encode(),
    "svg with script": SVG,
    "svg behind an xml head": b'<?xml version="1.0"?>' + SVG,
    "svg behind a mark": b"\xef\xbb\xbf" + SVG,
    "compressed svg": b"\x1f\x8b\x08" + bytes(30),
    "html": b"<!doctype html><script>alert(1)</script>",
    "html with the mark of a pdf later": b"<script>alert(1)</script>%PDF-1.7 startxref 0 %%EOF",
    "pdf behind blanks": b"  " + PDF,
    "pdf behind a gif's name": b"GIF8" + PDF,
    "pdf without an end": PDF.replace(b"%%EOF", b""),
    "pdf cut off": PDF[:40],
    "pdf with its end far before": PDF + b"<script>" + bytes(2000),
    "pdf of no version": PDF.replace(b"1.7", b"x.y"),
    "postscript": b"%!PS-Adobe-3.0",
    "zip": b"PK\x03\x04" + bytes(60),
    "office file": b"PK\x03\x04" + b"word/document.xml" + bytes(60),
    "old office file": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "program of windows": b"MZ" + bytes(300),
    "program of linux": b"\x7fELF" + bytes(300),
    "shell script": b"#!/bin/sh\nrm -rf /\n",
    "php": b"<?php system($_GET['x']); ?>",
    "bmp": picture("BMP"),
    "tiff": picture("TIFF"),
    "icon": picture("ICO"),
    "jpeg 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60),
    "avif": b"\x00\x00\x00\x18ftypavif" + bytes(60),
    "video": b"\x00\x00\x00\x18ftypmp42" + bytes(60),
    "riff that is sound": b"RIFF\x24\x00\x00\x00WAVE" + bytes(40),
    "jpeg's name alone": b"\xff\xd8\xff",
    "jpeg cut off": picture("JPEG")[:-200],
    "jpeg cut off in its head": picture("JPEG")[:30],
    "jpeg whose segment is too long": b"\xff\xd8\xff\xe0\xff\xff" + bytes(20),
    "jpeg of script": b"\xff\xd8\xff\xe0<script>alert(1)</script>",
    "gif of script": b"GIF89a/*" + b"<script>" * 20 + b"*/=1;",
    "png's name and html": b"\x89PNG\r\n\x1a\n<html><script>",
    "png cut off": picture()[:-500],
    "png with a wrong checksum": picture()[:40] + b"\x00" + picture()[41:],
    "png of too much data promised": png_of(400, 400),
    "png bomb": png_of(30_000, 30_000),
    "png of 4 billion lines": png_of(1, 2**31 - 1),
    "png of no width": png_of(0, 10),
    "gif of a huge screen": b"GIF89a\xff\xff\xff\xff\x00\x00\x00\x2c"
    + bytes(4)
    + b"\xff\xff\xff\xff\x00\x02\x00\x3b",
    "gif without an end": picture("GIF", mode="P")[:-1],
    "webp cut off": picture("WEBP")[:-30],
    "webp of nothing": b"RIFF\x04\x00\x00\x00WEBP",
    "dwg too short": b"AC1032" + bytes(20),
    "dwg of no version": b"AC9999" + bytes(300),
    "dwg's name and script": b"AC1032<script>alert(1)</script>" + bytes(300),
    "dxf without an end": DXF[:-10],
    "dxf's name in html": b"<html>\n0\nSECTION\n0\nEOF\n",
    "dxf with a nul": DXF.replace(b"HEADER", b"HEAD\0R"),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_refused(content: bytes) -> None:
    kind = recognise(content)
    if kind is None:
        return
    assert kind.picture, kind
    with pytest.raises((DamagedError, pictures.TooManyPixelsError)):
        pictures.prepare(content, kind)


def test_the_table_of_hostile_files_is_long() -> None:
    assert len(HOSTILE) >= 40


def test_a_bomb_is_refused_by_its_head_and_frames_count_together() -> None:
    with pytest.raises(pictures.TooManyPixelsError):
        pictures.prepare(png_of(30_000, 30_000), KINDS["image/png"])
    frames = [Image.new("1", (2000, 2000), number % 2) for number in range(20)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert len(file.getvalue()) < 300_000
    with pytest.raises(pictures.TooManyPixelsError):
        pictures.prepare(file.getvalue(), KINDS["image/gif"])


# --- what is taken out ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_position_and_words_are_gone_and_it_stands_upright(kind: str) -> None:
    taken = picture(kind, exif=located())
    found = recognise(taken)
    assert found is not None
    done = pictures.prepare(taken, found)
    assert (done.width, done.height) == (40, 60)
    again = Image.open(io.BytesIO(done.content))
    assert again.size == (40, 60)
    assert dict(again.getexif()) == {}
    for content in (done.content, done.thumbnail):
        assert b"secret-description" not in content
        assert b"Exif" not in content
        assert b"EXIF" not in content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_pixels_are_not_touched_and_tails_and_comments_are_gone(kind: str) -> None:
    mode = "P" if kind == "GIF" else "RGB"
    words = (
        {"comment": b"<script>"}
        if kind in {"JPEG", "GIF"}
        else {"xmp": b"<script>"}
        if kind == "WEBP"
        else {}
    )
    plain = picture(kind, mode=mode, **words)
    tail = b"" if kind == "WEBP" else b"PK\x03\x04<script>alert(1)</script>"
    found = recognise(plain)
    assert found is not None
    done = pictures.prepare(plain + tail, found).content
    assert b"<script>" not in done
    assert Image.open(io.BytesIO(done)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()


def test_an_animation_stays_one() -> None:
    for kind in ("GIF", "WEBP", "PNG"):
        moving = (
            animation(kind, exif=located()) if kind != "GIF" else animation(kind, loop=0, comment=b"secret")
        )
        found = recognise(moving)
        assert found is not None
        done = pictures.prepare(moving, found).content
        assert getattr(Image.open(io.BytesIO(done)), "n_frames") == 5  # noqa: B009 - plugins have it
        assert b"secret" not in done


@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP"]), st.binary(max_size=60), st.integers(0, 4000))
def test_a_spoilt_picture_is_refused_or_stripped_never_an_accident(
    kind: str, noise: bytes, place: int
) -> None:
    whole = _SAMPLES[kind]
    spoilt = whole[: place % len(whole)] + noise + whole[place % len(whole) + len(noise) :]
    try:
        once = strip_metadata(spoilt, kind)
    except DamagedError:
        return
    assert len(once) <= len(spoilt) + 8
    assert strip_metadata(once, kind) == once


_SAMPLES = {
    kind: picture(
        kind, (12, 9), "P" if kind == "GIF" else "RGB", **({"exif": located()} if kind != "GIF" else {})
    )
    for kind in ("JPEG", "PNG", "GIF", "WEBP")
}


# --- what it is called ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_name", "ending", "plain"),
    [
        ("現場写真.jpg", ".jpg", "現場写真.jpg"),
        ("photo.JPEG", ".jpg", "photo.JPEG.jpg"),
        ("../../etc/passwd", ".png", "passwd.png"),
        ("C:\\fakepath\\図面.pdf", ".pdf", "図面.pdf"),
        ("..\\..\\x.pdf", ".pdf", "x.pdf"),
        ("a\r\nSet-Cookie: x=1.png", ".png", "aSet-Cookie_ x=1.png"),
        ("a\0.html.png", ".png", "a.html.png"),
        ("\u202egnp.exe", ".png", "gnp.exe.png"),
        ("\u200b\u200d.png", ".png", "file.png"),
        ('x";filename=y.exe', ".png", "x__filename=y.exe.png"),
        (".htaccess", ".png", "htaccess.png"),
        ("...", ".png", "file.png"),
        ("", ".gif", "file.gif"),
        ("con.png", ".png", "_con.png"),
        ("lpt1", ".dxf", "_lpt1.dxf"),
        ("x" * 300 + ".png", ".png", "x" * 80 + ".png"),
        ("ｶﾞｰﾄﾞ.pdf", ".pdf", "ｶﾞｰﾄﾞ.pdf"),
        ("か\u3099.pdf", ".pdf", "が.pdf"),
        ("a\u2028b.pdf", ".pdf", "ab.pdf"),
        ("%2e%2e%2fx.pdf", ".pdf", "_2e_2e_2fx.pdf"),
        ("/files/", ".pdf", "file.pdf"),
        ("a*b?c|d<e>.pdf", ".pdf", "a_b_c_d_e_.pdf"),
    ],
)
def test_names(given_name: str, ending: str, plain: str) -> None:
    assert file_names.plain_name(given_name, (ending,)) == plain


@given(st.text(max_size=200))
def test_any_name_fits_into_a_folder_and_a_header_field(text: str) -> None:
    name = file_names.plain_name(text, (".jpg", ".jpeg"))
    assert name.lower().endswith((".jpg", ".jpeg"))
    assert len(name) <= 90
    assert not set(name) & set('/\\<>:"|?*\r\n\0\u202e')
    assert file_names.plain_name(name, (".jpg", ".jpeg")) == name
    field = file_names.content_disposition(name, inline=True)
    assert field.isascii()
    assert field.isprintable()
    assert field.count('"') == 2
    result = field.partition("filename*=UTF-8''")[2]
    assert unquote(result) == name if result else f'filename="{name}"' in field


# --- facts before a text ----------------------------------------------------------------------

FACT = st.one_of(
    st.text(max_size=40), st.lists(st.text(max_size=20), max_size=5), st.integers(), st.booleans()
)


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True), FACT, max_size=8),
    st.text(max_size=200),
)
def test_facts_and_body_come_back(facts: dict[str, Any], body: str) -> None:
    body = body.replace("\r\n", "\n")
    assert front_matter.load(front_matter.dump(facts, body)) == (facts, body)


def test_facts_written_by_hand() -> None:
    text = '\ufeff---\r\ntitle: 養生の手順\r\ntags: ["養生"]\r\nsite:\r\n---\r\n\r\n# 本文\r\n'
    facts, body = front_matter.load(text)
    assert facts == {"title": "養生の手順", "tags": ["養生"], "site": ""}
    assert body == "# 本文\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# 本文",
        "---\ntitle: x",
        "---\ntitle x\n---\n",
        "---\na: 1\na: 2\n---\n",
        "---\n!!python/x: 1\n---\n",
    ],
)
def test_what_are_no_facts(text: str) -> None:
    with pytest.raises(front_matter.FrontMatterError):
        front_matter.load(text)


# --- bundles ----------------------------------------------------------------------------------


def zipped(*entries: tuple[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as made:
        for name, content in entries:
            made.writestr(zipfile.ZipInfo(name), content, compress_type=made.compression)
    return file.getvalue()


def linked() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        link = zipfile.ZipInfo("a/link")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    return file.getvalue()


def doctored(content: bytes, change: Callable[[bytearray], None]) -> bytes:
    changed = bytearray(content)
    change(changed)
    return bytes(changed)


def lying_about_its_size(data: bytearray) -> None:
    """The directory says that 100,000 bytes are 10."""
    place = data.index(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", 10)


def encrypted(data: bytearray) -> None:
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1


BUNDLES: dict[str, tuple[bytes, str]] = {
    "slip": (zipped(("../x", b"")), "bundle-name"),
    "slip within": (zipped(("a/../../x", b"")), "bundle-name"),
    "absolute": (zipped(("/etc/x", b"")), "bundle-name"),
    "backslashes": (zipped(("a\\..\\x", b"")), "bundle-name"),
    "drive": (zipped(("C:x", b"")), "bundle-name"),
    "nul": (zipped(("aXb", b"")).replace(b"aXb", b"a\0b"), "bundle-name"),
    "line end": (zipped(("a\nb", b"")), "bundle-name"),
    "dot": (zipped(("./a", b"")), "bundle-name"),
    "empty part": (zipped(("a//b", b"")), "bundle-name"),
    "blank at its end": (zipped(("a /b", b"")), "bundle-name"),
    "long": (zipped(("x" * 300, b"")), "bundle-name"),
    "twice by capitals": (zipped(("a/B", b""), ("A/b", b"")), "bundle-name"),
    "twice by spelling": (zipped(("が", b""), ("か\u3099", b"")), "bundle-name"),
    "link": (linked(), "bundle-kind"),
    "password": (doctored(zipped(("a", b"x")), encrypted), "bundle-kind"),
    "other compression": (zipped(("a", b"x"), compression=zipfile.ZIP_LZMA), "bundle-kind"),
    "bomb": (zipped(("a", bytes(90_000)), compression=zipfile.ZIP_DEFLATED), "bundle-too-large"),
    "too large": (zipped(("a", bytes(100_001))), "bundle-too-large"),
    "too large together": (zipped(*[(str(n), bytes(90_000)) for n in range(4)]), "bundle-too-large"),
    "too many": (zipped(*[(str(n), b"") for n in range(21)]), "bundle-too-large"),
    "too many folders": (zipped(*[(f"{n}/", b"") for n in range(41)]), "bundle-too-large"),
    "lie": (doctored(zipped(("a", b"x" * 60_000)), lying_about_its_size), "bundle-damaged"),
    "cut off": (zipped(("a", b"x" * 500))[:-30], "bundle-damaged"),
    "no zip": (b"PK\x03\x04 but nothing more", "bundle-damaged"),
    "nothing": (b"", "bundle-damaged"),
    "spoilt": (zipped(("a", b"x" * 500)).replace(b"xxx", b"xyx", 1), "bundle-damaged"),
}


@pytest.mark.parametrize(("content", "code"), BUNDLES.values(), ids=BUNDLES)
def test_hostile_bundles(content: bytes, code: str) -> None:
    with pytest.raises(bundle.BundleError) as refused:
        bundle.read_zip(content, LIMITS)
    assert refused.value.code == code


def test_equal_entries_give_equal_bundles() -> None:
    entries = [("article-1/article.md", "養生".encode()), ("article-1/files/写真.jpg", bytes(40))]
    first, second = (b"".join(bundle.write_zip(entries)) for _ in range(2))
    assert first == second
    assert bundle.read_zip(first, LIMITS) == dict(entries)


def test_bundles_that_desktops_have_packed_again() -> None:
    article, picture = ("a/article.md", b"x"), ("a/files/ガード表.jpg", b"y")
    added = ("__MACOSX/a/._article.md", "a/.DS_Store", "a/files/Thumbs.db", "desktop.ini", "a/._article.md")
    assert bundle.read_zip(zipped(article, *((name, b"") for name in added)), LIMITS) == dict([article])
    # Neither says in which letters its names are.
    windows, mac = picture[0].encode("cp932"), unicodedata.normalize("NFD", picture[0]).encode()
    for name in (windows, mac):
        place = "a/files/" + "-" * (len(name) - len("a/files/"))
        packed = zipped(article, (place, b"y")).replace(place.encode(), name)
        assert bundle.read_zip(packed, LIMITS) == dict([article, picture])
    assert bundle.read_zip(zipped(article, picture), LIMITS) == dict([article, picture])


def test_a_bundle_is_written_piece_by_piece() -> None:
    asked: list[int] = []

    def entries() -> Iterator[tuple[str, bytes]]:
        for number in range(3):
            asked.append(number)
            yield f"article-{number}/files/a.png", bytes([number]) * 1000

    pieces = bundle.write_zip(entries())
    first = next(pieces)
    assert asked == [0]
    assert 1000 < len(first) < 1200
    whole = first + b"".join(pieces)
    with zipfile.ZipFile(io.BytesIO(whole)) as written:
        assert written.testzip() is None
        # Each entry says its length in front: some readers unpack while they receive.
        assert all(not entry.flag_bits & 0x8 for entry in written.infolist())
    assert len(bundle.read_zip(whole, LIMITS)) == 3
