import base64
import io
import re
from typing import Any

import pytest
from qrcode.constants import ERROR_CORRECT_H, ERROR_CORRECT_L, ERROR_CORRECT_M, ERROR_CORRECT_Q
from qrcode.main import QRCode

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import provisioning_uri, qr_code

URI = provisioning_uri("A" * 32, account_name="現場 太郎", issuer="建設土木ナレッジシステム")


def matrix(text: str = URI, version: int = 10, level: int = ERROR_CORRECT_L) -> Any:
    code = QRCode(version, error_correction=level, border=4)
    code.add_data(text)
    code.make(fit=False)
    return code.get_matrix()


def data_of(uri: Any, media_type: Any) -> Any:
    head, _, body = uri.partition(",")
    assert head == f"data:{media_type};base64"
    return base64.b64decode(body)


def png_pixels(data: Any) -> Any:
    """A reader of our own for what we write: one bit, no filter."""
    import struct
    import zlib

    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, chunks = 8, {}
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        assert struct.unpack(">I", data[position + 8 + length : position + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        chunks[kind] = body
        position += 12 + length
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, rest) == (1, 0, [0, 0, 0])
    rows = io.BytesIO(zlib.decompress(chunks[b"IDAT"]))
    pixels = []
    for _ in range(height):
        assert rows.read(1) == b"\0"
        bits = "".join(f"{byte:08b}" for byte in rows.read((width + 7) // 8))
        pixels.append([bit == "0" for bit in bits[:width]])
    assert not rows.read()
    return pixels


def test_png_holds_the_modules_and_is_small() -> None:
    data = data_of(qr_code(URI), "image/png")
    pixels = png_pixels(data)
    assert [row[::5] for row in pixels[::5]] == matrix()
    assert len(data) < 2_000


def test_svg_holds_the_modules_and_is_small() -> None:
    data = data_of(qr_code(URI, kind="svg"), "image/svg+xml")
    wanted = matrix()
    drawn = [[False] * len(wanted) for _ in wanted]
    path = data.decode().rpartition('d="')[2]
    for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path):
        for column in range(int(x), int(x) + int(width)):
            drawn[int(y)][column] = True
    assert drawn == wanted
    assert len(data) < 20_000


@pytest.mark.parametrize(
    ("length", "version", "level", "side"),
    [
        (1, 1, ERROR_CORRECT_H, 232),  # the smallest symbol has room for all of it
        (20, 2, ERROR_CORRECT_Q, 264),
        (100, 6, ERROR_CORRECT_M, 294),  # a usual URI
        (213, 10, ERROR_CORRECT_M, 325),  # the largest that M is good for
        (214, 9, ERROR_CORRECT_L, 305),  # L makes it smaller
        (400, 13, ERROR_CORRECT_L, 308),
        (1024, 23, ERROR_CORRECT_L, 351),
    ],
)
def test_size_and_error_correction_go_by_the_length(length: int, version: int, level: int, side: int) -> None:
    pixels = png_pixels(data_of(qr_code("x" * length), "image/png"))
    assert len(pixels) == side
    scale = side // (17 + 4 * version + 8)
    assert [row[::scale] for row in pixels[::scale]] == matrix("x" * length, version, level)


@pytest.mark.parametrize("length", [1, 100, 1024])
def test_any_length_up_to_the_longest(length: int) -> None:
    assert png_pixels(data_of(qr_code("x" * length), "image/png"))


@pytest.mark.parametrize(
    ("uri", "kind", "parameter"),
    [
        ("", "png", "uri"),
        ("x" * 1025, "png", "uri"),
        ("現場", "png", "uri"),
        (None, "png", "uri"),
        ("x", "gif", "kind"),
    ],
)
def test_impossible_parameters(uri: Any, kind: str, parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        qr_code(uri, kind=kind)
    assert caught.value.parameter == parameter
