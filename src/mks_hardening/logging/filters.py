"""Filters for handlers: by level, for the context of the request, and for handlers of one's own that do not redact."""

from __future__ import annotations

import logging
from copy import copy
from typing import Final

from mks_hardening._core.context import fields_var
from mks_hardening._core.redact import default_redactor
from mks_hardening._core.trace_text import describe_exception
from mks_hardening.logging.message import redacted_message
from mks_hardening.logging.plain import Bounds, to_plain
from mks_hardening.protocols import Redactor

__all__ = ["CONTEXT_ATTRIBUTE", "STANDARD_ATTRIBUTES", "BelowLevelFilter", "ContextFilter", "RedactionFilter"]

#: Record attribute in which a queue carries the context of the thread that logged.
CONTEXT_ATTRIBUTE: Final = "_mks_context"
#: Attributes every record has, in the order in which it gets them.
STANDARD_ATTRIBUTES: Final = tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
_KNOWN: Final = frozenset((*STANDARD_ATTRIBUTES, "message", "asctime", "taskName"))
_BOUNDS: Final = Bounds()


class BelowLevelFilter(logging.Filter):
    """Lets records below a level through, so that errors go to stderr alone."""

    def __init__(self, level: int = logging.ERROR) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is below the level."""
        return record.levelno < self._level


class ContextFilter(logging.Filter):
    """Puts the bound fields of the request (``request_id``, ``user_id`` ...) on the record as attributes.

    For formatters other than ``JsonFormatter``, which shows them anyway. Attributes that the record has stay.

    Args:
        names: fields that every record shall have; ``"-"`` stands in for what is not bound.
    """

    def __init__(self, *, names: tuple[str, ...] = ("request_id", "trace_id", "user_id")) -> None:
        super().__init__()
        self._blank = dict.fromkeys(names, "-")

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        for name, value in {**self._blank, **fields_var.get()}.items():
            record.__dict__.setdefault(name, value)
        return True


class RedactionFilter(logging.Filter):
    """Hands a copy of the record without secrets to a handler that does not redact by itself.

    Message, arguments, extra fields, exception and stack are covered. The record of other handlers stays as it is.

    Args:
        redactor: takes the secrets out; the package's own when ``None``.
    """

    def __init__(self, *, redactor: Redactor | None = None) -> None:
        super().__init__()
        self._redactor: Redactor = default_redactor() if redactor is None else redactor

    def filter(self, record: logging.LogRecord) -> logging.LogRecord:
        """A clean copy of the record."""
        clean = copy(record)
        clean.msg = redacted_message(record, self._redactor)
        clean.args = None
        clean.__dict__.pop("message", None)
        for name in clean.__dict__.keys() - _KNOWN:
            value = {name: to_plain(clean.__dict__[name], _BOUNDS)}
            clean.__dict__[name] = dict(self._redactor.redact(value)).get(name)  # type: ignore[call-overload]  # a dict goes in, a dict comes out
        self._clean_exception(clean)
        return clean

    def _clean_exception(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is not None:
            # Formatters print exc_text when it is there instead of rendering the exception anew.
            described = describe_exception(error, redact_text=self._redactor.redact_text)
            record.exc_info, record.exc_text = None, described.text.rstrip("\n")
        elif record.exc_text:
            record.exc_text = self._redactor.redact_text(record.exc_text)
        if record.stack_info:
            record.stack_info = self._redactor.redact_text(record.stack_info)
