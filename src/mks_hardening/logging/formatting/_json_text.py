"""JSON on one line: strict, without characters that affect lines, terminals or the reading order."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Any, Final

from mks_hardening._core.checks import choice
from mks_hardening._core.codec import orjson_dumps
from mks_hardening.exceptions import MissingDependencyError

__all__ = ["encode_plain", "escape", "fast_encoder", "is_safe", "to_ascii"]

# C1, line and paragraph separators, marks that change the reading order (Unicode TR 9), lone surrogates.
_UNSAFE: Final = re.compile("[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")

_NOT_ASCII: Final = re.compile("[^\x00-\x7f]+")

# First bytes of these characters in UTF-8; nearly every text contains none of them.
_SUSPECTS: Final = b"\x7f\xc2\xd8\xe2\xef"
_ALL_BUT_SUSPECTS: Final = bytes(byte for byte in range(256) if byte not in _SUSPECTS)

_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def is_safe(encoded: bytes) -> bool:
    """Return whether the UTF-8 text certainly contains no unsafe characters."""
    # One pass in C: a regular expression would cost as much per line as encoding it.
    return not encoded.translate(None, _ALL_BUT_SUSPECTS)


def escape(text: str) -> str:
    """Return the JSON text with unsafe characters as hexadecimal escapes."""
    # Escape whole runs with one call, as a text may consist of unsafe characters.
    text = text.replace("\x7f", r"\u007f")
    return _UNSAFE.sub(lambda match: encode_basestring_ascii(match[0])[1:-1], text)


def to_ascii(text: str) -> str:
    """Return the JSON text in ASCII only."""
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text)


def encode_plain(value: Any) -> str:
    """Return the JSON text of plain data (see ``plain_data.to_plain``): slow, but accepts all plain data."""
    return escape(_encode(value))


def fast_encoder(encoder: str) -> Callable[[Any], bytes]:
    """Return the encoder for common values; it may raise ``TypeError`` for values that need ``encode_plain``.

    Raises:
        ConfigurationError: ``encoder`` is not ``auto``, ``orjson`` or ``json``.
        MissingDependencyError: ``encoder`` is ``orjson``, which is not installed.
    """
    choice(encoder, ("auto", "orjson", "json"), parameter="encoder")
    dumps = None if encoder == "json" else orjson_dumps()
    if dumps is None and encoder == "orjson":
        raise MissingDependencyError("orjson", "logging")
    return dumps or _json_bytes


def _json_bytes(value: Any) -> bytes:
    return _encode(value).encode()
