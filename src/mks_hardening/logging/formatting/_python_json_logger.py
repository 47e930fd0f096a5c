"""Conversion of values to JSON as in python-json-logger.

The fields of a line are selected by that library's own base class. Intended differences are listed in
``docs/en/how-to/migrate/python-json-logger.md``.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from enum import EnumMeta
from types import TracebackType
from typing import Any, Final

from mks_hardening._core.redaction.plain_data import UNKNOWN, is_a
from mks_hardening._core.trace_text import safe_text
from mks_hardening.logging.formatting._json_text import escape
from mks_hardening.protocols import Redactor

__all__ = ["NAME", "PythonJsonLoggerEncoder", "lines_or_text"]

#: Name of the schema.
NAME: Final = "python-json-logger"
#: Output of that library for an object that cannot be converted to text.
_COULD_NOT_ENCODE: Final = "__could_not_encode__"


class PythonJsonLoggerEncoder:
    """Encoder of values as in python-json-logger's ``JsonFormatter``.

    Args:
        redactor: redacts bytes before they are encoded as Base64.
        default: the user's function for values that JSON cannot represent.
        encoder: the user's subclass of ``json.JSONEncoder``; its ``default`` is used.
        serializer: the user's replacement for ``json.dumps``.
        indent: number of spaces, or text, to indent by.
        ensure_ascii: whether all non-ASCII characters are escaped.
    """

    __slots__ = ("_defaults", "_dumps", "_ensure_ascii", "_indent", "_redactor")

    def __init__(
        self,
        redactor: Redactor,
        *,
        default: Callable[[Any], Any] | None,
        encoder: type[json.JSONEncoder] | None,
        serializer: Callable[..., str | bytes] | None,
        indent: int | str | None,
        ensure_ascii: bool,
    ) -> None:
        self._redactor = redactor
        self._defaults = tuple(
            ask for ask in (default, None if encoder is None else encoder().default) if ask is not None
        )
        self._dumps = serializer or json.dumps
        self._indent = indent
        self._ensure_ascii = ensure_ascii

    def default(self, value: Any) -> Any:
        """Return a replacement for a value that JSON cannot represent; ``UNKNOWN`` means the default conversion."""
        for ask in self._defaults:
            try:
                answer = ask(value)
            except Exception:  # noqa: BLE001, S112 - the user's function; most raise TypeError for unsupported values
                continue
            if answer is not value:
                return answer
        if is_a(value, bytes, bytearray):
            return self._bytes(bytes(value))
        if isinstance(value, EnumMeta):
            return [member.value for member in value]  # type: ignore[var-annotated]  # an enumeration of anything
        if isinstance(value, TracebackType):
            from traceback import format_tb

            return "".join(format_tb(value, 40)).strip()
        if isinstance(value, type):
            return value.__name__
        return UNKNOWN if _has_text(value) else _COULD_NOT_ENCODE

    def encode(self, plain: Any) -> str:
        """Return the JSON text of plain data."""
        text = self._dumps(
            plain, default=None, cls=None, indent=self._indent, ensure_ascii=self._ensure_ascii
        )
        return escape(text if isinstance(text, str) else text.decode())

    def _bytes(self, value: bytes) -> object:
        clean = self._redactor.redact(value)
        return urlsafe_b64encode(value).decode() if clean is value or clean == value else clean


def lines_or_text(text: str, *, as_array: bool) -> str | list[str]:
    """Return the text without its trailing newlines, or its lines."""
    text = text.rstrip("\n")
    return text.splitlines() if as_array else text


def _has_text(value: object) -> bool:
    return "whose text raises" not in safe_text(value, limit=200)
