"""QR codes as data URIs: the qrcode package makes the modules, a few lines here write a small PNG or SVG.

The package's own writers give 3 to 140 kB and want Pillow or pypng; one bit a module needs less than 2 kB.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from itertools import groupby
from typing import Final, Literal

from mks_hardening._core.lazy import optional
from mks_hardening.exceptions import ConfigurationError

__all__ = ["qr_code"]

_SCALE: Final = 5
_BORDER: Final = 4  # ISO/IEC 18004 asks for a quiet zone of four modules
_LONGEST: Final = 1024

Modules = Sequence[Sequence[bool]]


def qr_code(uri: str, *, kind: Literal["png", "svg"] = "png") -> str:
    """A ``data:`` URI with the QR code of a text, for an ``<img src>``.

    A page with it shows a secret: answer with ``Cache-Control: no-store`` and allow ``data:`` in ``img-src``.

    Raises:
        ConfigurationError: another kind, or a text that is empty or longer than 1024 characters.
        MissingDependencyError: qrcode is not installed.
    """
    if kind not in ("png", "svg"):
        raise ConfigurationError("kind must be 'png' or 'svg'", parameter="kind")
    if not 0 < len(uri) <= _LONGEST:
        raise ConfigurationError(f"uri must be 1 to {_LONGEST} characters", parameter="uri")
    modules = _modules(uri)
    media_type, data = ("image/png", _png(modules)) if kind == "png" else ("image/svg+xml", _svg(modules))
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _modules(text: str) -> Modules:
    with optional("qrcode", extra="qr"):
        from qrcode.constants import ERROR_CORRECT_M
        from qrcode.main import QRCode
    code = QRCode(error_correction=ERROR_CORRECT_M, border=_BORDER)
    code.add_data(text)
    code.make(fit=True)
    matrix: Modules = code.get_matrix()
    return matrix


def _png(modules: Modules) -> bytes:
    """One bit a pixel, greyscale (ISO/IEC 15948)."""
    size = len(modules) * _SCALE
    rows = b"".join(_png_row(row) * _SCALE for row in modules)
    header = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _png_chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    )


def _png_row(row: Sequence[bool]) -> bytes:
    bits = "".join(("0" if dark else "1") * _SCALE for dark in row)
    padded = bits + "1" * (-len(bits) % 8)
    return b"\0" + int(padded, 2).to_bytes(len(padded) // 8, "big")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _svg(modules: Modules) -> bytes:
    size = len(modules)
    path = "".join(_svg_row(row, y) for y, row in enumerate(modules))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{size}v{size}H0z"/><path d="{path}"/></svg>'
    ).encode("ascii")


def _svg_row(row: Sequence[bool], y: int) -> str:
    x = 0
    path = ""
    for dark, run in groupby(row):
        length = len(list(run))
        if dark:
            path += f"M{x} {y}h{length}v1h-{length}z"
        x += length
    return path
