"""Filters: by level, for the context of the request, and for handlers whose formatter does not redact."""

from __future__ import annotations

import logging
from typing import Any, Final

from mks_hardening._core.context import fields_var
from mks_hardening._core.redact import default_redactor
from mks_hardening._core.trace_text import describe_exception
from mks_hardening.logging.message import redacted_message
from mks_hardening.logging.plain import Bounds, is_a, to_plain
from mks_hardening.protocols import Redactor

__all__ = [
    "CONTEXT_ATTRIBUTE",
    "EXCEPTION_ATTRIBUTE",
    "STANDARD_ATTRIBUTES",
    "BelowLevelFilter",
    "ContextFilter",
    "RedactionFilter",
    "exception_of",
]

#: Record attribute in which a queue carries the context of the thread that logged.
CONTEXT_ATTRIBUTE: Final = "_mks_context"
#: Record attribute in which ``RedactionFilter`` keeps the exception itself.
EXCEPTION_ATTRIBUTE: Final = "_mks_exception"
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
    """Takes the secrets out of a record, for handlers whose formatter does not do it.

    Message, arguments, extra fields, exception and stack are covered. The record itself is changed (a filter cannot
    hand on another one before Python 3.12), so handlers that come later see the clean one as well. The exception is
    kept aside for ``JsonFormatter``, which still shows its structure.

    Args:
        redactor: takes the secrets out; the package's own when ``None``.
    """

    def __init__(self, *, redactor: Redactor | None = None) -> None:
        super().__init__()
        self._redactor: Redactor = default_redactor() if redactor is None else redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record; every record passes."""
        data = record.__dict__
        record.msg = redacted_message(record, self._redactor)
        record.args = None
        data.pop("message", None)
        for name in data.keys() - _KNOWN - {CONTEXT_ATTRIBUTE, EXCEPTION_ATTRIBUTE}:
            clean: Any = self._redactor.redact({name: to_plain(data[name], _BOUNDS)})
            data[name] = clean[name]
        self._clean_exception(record)
        return True

    def _clean_exception(self, record: logging.LogRecord) -> None:
        error = exception_of(record)
        if error is not None:
            # Formatters print exc_text when it is there instead of rendering the exception anew.
            described = describe_exception(error, redact_text=self._redactor.redact_text)
            record.__dict__[EXCEPTION_ATTRIBUTE] = error
            record.exc_info, record.exc_text = None, described.text.rstrip("\n")
        elif record.exc_text:
            record.exc_text = self._redactor.redact_text(record.exc_text)
        if record.stack_info:
            record.stack_info = self._redactor.redact_text(record.stack_info)


def exception_of(record: logging.LogRecord) -> BaseException | None:
    """The exception of the record, also when a ``RedactionFilter`` has kept it aside."""
    info: Any = record.exc_info or record.__dict__.get(EXCEPTION_ATTRIBUTE)
    if is_a(info, tuple) and len(info) == 3:
        info = info[1]
    return info if isinstance(info, BaseException) else None
