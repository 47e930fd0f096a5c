"""QR codes as data URIs: the qrcode package computes the modules, this module writes a small PNG or SVG.

The package's own writers produce 3 to 140 kB and require Pillow or pypng; one bit per module needs less than 2 kB.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from itertools import groupby
from typing import Final, Literal

from mks_hardening._core.checks import choice
from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError

__all__ = ["qr_code"]

_SMALLEST_SIDE: Final = 264
"""Pixels: about 7 cm on a screen, which a phone reads at arm's length."""
_SMALLEST_SCALE: Final = 3
_LARGEST_SCALE: Final = 8
_COMFORTABLE: Final = 10
"""Version of a symbol (57 modules a side) up to which cameras read it easily."""
_BORDER: Final = 4  # ISO/IEC 18004 requires a quiet zone of four modules
# Version 23 of a symbol at the lowest error correction; cameras hardly read larger ones from a screen.
_LONGEST: Final = 1024

Modules = Sequence[Sequence[bool]]


def qr_code(uri: str, *, kind: Literal["png", "svg"] = "png") -> str:
    """Return a ``data:`` URI with the QR code of a text, for an ``<img src>``.

    Long texts make large symbols, which cameras read badly, so they get less error correction than short ones.
    The number of pixels per module is chosen so that the picture has a readable size.

    A page with the code shows a secret: send it with ``Cache-Control: no-store`` and allow ``data:`` in
    ``img-src``.

    Raises:
        ConfigurationError: another kind, or a text that is empty, not ASCII, or longer than 1024 characters.
        MissingDependencyError: qrcode is not installed.
    """
    choice(kind, ("png", "svg"), parameter="kind")
    if not isinstance(uri, str) or not 0 < len(uri) <= _LONGEST or not uri.isascii():
        raise ConfigurationError(f"uri must be 1 to {_LONGEST} ASCII characters", parameter="uri")
    modules = _modules(uri)
    media_type, data = ("image/png", _png(modules)) if kind == "png" else ("image/svg+xml", _svg(modules))
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _modules(text: str) -> Modules:
    """Return the symbol of a text, with the strongest error correction that does not enlarge the symbol.

    A screen is not scratched: 15 % (M) is plenty, and 7 % (L) is enough where M makes the symbol large.
    Stronger levels are used if they fit into a symbol of the same size.
    """
    with optional("qrcode", extra="qr"):
        from qrcode.constants import (
            ERROR_CORRECT_H,
            ERROR_CORRECT_L,
            ERROR_CORRECT_M,
            ERROR_CORRECT_Q,
        )
        from qrcode.main import QRCode

    def fitted(level: int) -> int:
        code = QRCode(error_correction=level)
        code.add_data(text)
        return int(code.best_fit())

    weak, usual = fitted(ERROR_CORRECT_L), fitted(ERROR_CORRECT_M)
    version = usual if usual <= _COMFORTABLE else weak
    levels = (ERROR_CORRECT_H, ERROR_CORRECT_Q, ERROR_CORRECT_M)
    level = next((level for level in levels if fitted(level) <= version), ERROR_CORRECT_L)
    code = QRCode(version=version, error_correction=level, border=_BORDER)
    code.add_data(text)
    code.make(fit=False)
    matrix: Modules = code.get_matrix()
    return matrix


def _scale(modules: Modules) -> int:
    """Return the number of pixels per module."""
    return max(_SMALLEST_SCALE, min(_LARGEST_SCALE, -(-_SMALLEST_SIDE // len(modules))))


def _png(modules: Modules) -> bytes:
    """Encode as greyscale PNG with one bit per pixel (ISO/IEC 15948)."""
    scale = _scale(modules)
    size = len(modules) * scale
    rows = b"".join(_png_row(row, scale) * scale for row in modules)
    header = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _png_chunk(kind, data)
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    )


def _png_row(row: Sequence[bool], scale: int) -> bytes:
    bits = "".join(("0" if dark else "1") * scale for dark in row)
    # Rows are whole bytes; padding bits are white like the border.
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
    # One path of runs: with one rectangle per module the SVG would be larger than the PNG.
    path = ""
    for dark, run in groupby(row):
        length = len(list(run))
        if dark:
            path += f"M{x} {y}h{length}v1h-{length}z"
        x += length
    return path
