"""What the formatter does in the shape of python-json-logger: how it turns values into JSON.

Which fields a line has is decided by that library's own base class. What differs on purpose stands in
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

#: The name of the schema.
NAME: Final = "python-json-logger"
#: What that library writes for an object that cannot be turned into text.
_COULD_NOT_ENCODE: Final = "__could_not_encode__"


class PythonJsonLoggerEncoder:
    """Values and JSON text as that library's ``JsonFormatter`` makes them.

    Args:
        redactor: looks into bytes before they become Base64.
        default: the user's function for what JSON cannot say.
        encoder: the user's subclass of ``json.JSONEncoder``; its ``default`` is used.
        serializer: the user's replacement of ``json.dumps``.
        indent: spaces or text by which a line is broken up.
        ensure_ascii: whether everything beyond ASCII is escaped.
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
        """What stands for a value that JSON cannot say; ``UNKNOWN`` leaves it to us."""
        for ask in self._defaults:
            try:
                answer = ask(value)
            except Exception:  # noqa: BLE001, S112 - the user's function; most raise TypeError for what they do not know
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
        """The JSON text of plain data."""
        text = self._dumps(
            plain, default=None, cls=None, indent=self._indent, ensure_ascii=self._ensure_ascii
        )
        return escape(text if isinstance(text, str) else text.decode())

    def _bytes(self, value: bytes) -> object:
        clean = self._redactor.redact(value)
        return urlsafe_b64encode(value).decode() if clean is value or clean == value else clean


def lines_or_text(text: str, *, as_array: bool) -> str | list[str]:
    """The text without its last newline, or its lines."""
    text = text.rstrip("\n")
    return text.splitlines() if as_array else text


def _has_text(value: object) -> bool:
    return "whose text raises" not in safe_text(value, limit=200)
