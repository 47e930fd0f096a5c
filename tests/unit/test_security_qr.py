import base64
import io
import re
from typing import Any

import pytest
from qrcode.constants import ERROR_CORRECT_M
from qrcode.main import QRCode

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import provisioning_uri, qr_code

URI = provisioning_uri("A" * 32, account_name="現場 太郎", issuer="建設土木ナレッジシステム")


def matrix() -> Any:
    code = QRCode(error_correction=ERROR_CORRECT_M, border=4)
    code.add_data(URI)
    code.make()
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


@pytest.mark.parametrize("length", [1, 100, 1024])
def test_any_length_up_to_the_longest(length: int) -> None:
    assert png_pixels(data_of(qr_code("x" * length), "image/png"))


@pytest.mark.parametrize(
    ("uri", "kind", "parameter"), [("", "png", "uri"), ("x" * 1025, "png", "uri"), ("x", "gif", "kind")]
)
def test_impossible_parameters(uri: Any, kind: str, parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        qr_code(uri, kind=kind)
    assert caught.value.parameter == parameter
