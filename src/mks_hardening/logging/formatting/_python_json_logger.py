"""Options of python-json-logger that only its schema has, and the same conversion of values to JSON.

The fields of a line are selected by that library's own base class. Intended differences are listed in
``docs/en/how-to/migrate/python-json-logger.md``.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from enum import EnumMeta
from types import TracebackType
from typing import Any, Final, TypedDict

from mks_hardening._core.checks import boolean
from mks_hardening._core.exception_text import safe_text
from mks_hardening._core.redaction.plain_data import UNKNOWN, is_a
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.formatting._json_text import escape
from mks_hardening.protocols import Redactor

__all__ = ["NAME", "PythonJsonLoggerEncoder", "PythonJsonLoggerOptions", "check_options", "lines_or_text"]

#: Name of the schema.
NAME: Final = "python-json-logger"
#: Output of that library for an object that cannot be converted to text.
_COULD_NOT_ENCODE: Final = "__could_not_encode__"


class PythonJsonLoggerOptions(TypedDict, total=False):
    """Parameters of ``JsonFormatter`` that require ``schema="python-json-logger"``; documented there."""

    rename_fields_keep_missing: bool
    timestamp: bool | str
    exc_info_as_array: bool
    stack_info_as_array: bool
    json_default: Callable[[Any], Any] | None
    json_encoder: type[json.JSONEncoder] | None
    json_serializer: Callable[..., str | bytes] | None
    json_indent: int | str | None
    json_ensure_ascii: bool


def check_options(schema: str, options: PythonJsonLoggerOptions) -> None:
    """Reject options that are unknown, or that another schema does not have.

    Raises:
        ConfigurationError: the option has no effect with this schema.
        TypeError: the option is unknown.
    """
    for name, value in options.items():
        if name not in PythonJsonLoggerOptions.__annotations__:
            raise TypeError(f"JsonFormatter() got an unexpected keyword argument {name!r}")
        if schema != NAME and value not in (None, name == "json_ensure_ascii"):
            raise ConfigurationError(f'{name} needs schema="{NAME}"', parameter=name)


class PythonJsonLoggerEncoder:
    """Encoder of values as in python-json-logger's ``JsonFormatter``.

    Args:
        redactor: redacts bytes before they are encoded as Base64.
        options: the options whose names begin with ``json_``; others are ignored.
    """

    __slots__ = ("_defaults", "_dumps", "_ensure_ascii", "_indent", "_redactor")

    def __init__(self, redactor: Redactor, options: PythonJsonLoggerOptions) -> None:
        self._redactor = redactor
        encoder = options.get("json_encoder")
        defaults = options.get("json_default"), None if encoder is None else encoder().default
        self._defaults = tuple(default for default in defaults if default is not None)
        self._dumps = options.get("json_serializer") or json.dumps
        self._indent = options.get("json_indent")
        self._ensure_ascii = boolean(options.get("json_ensure_ascii", True), parameter="json_ensure_ascii")

    def default(self, value: Any) -> Any:
        """Return a replacement for a value that JSON cannot represent; ``UNKNOWN`` means the default conversion."""
        for default in self._defaults:
            try:
                answer = default(value)
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
