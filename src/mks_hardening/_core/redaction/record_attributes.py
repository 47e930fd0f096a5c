"""Which attributes of a log record are its own, and which have come with ``extra`` or from a filter."""

from __future__ import annotations

import logging
from typing import Any, Final

from mks_hardening._core.redaction.plain_data import is_a

__all__ = [
    "CONTEXT_ATTRIBUTE",
    "EXCEPTION_ATTRIBUTE",
    "STANDARD_ATTRIBUTES",
    "STANDARD_NAMES",
    "exception_of",
]

#: Record attribute in which a queue carries the context of the thread that logged.
CONTEXT_ATTRIBUTE: Final = "_mks_context"
#: Record attribute in which ``RedactionFilter`` keeps the exception itself.
EXCEPTION_ATTRIBUTE: Final = "_mks_exception"
#: Attributes every record has, in the order in which it gets them.
STANDARD_ATTRIBUTES: Final = tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
#: The same with those that formatters and later versions of Python add.
STANDARD_NAMES: Final = frozenset((*STANDARD_ATTRIBUTES, "message", "asctime", "taskName"))


def exception_of(record: logging.LogRecord) -> BaseException | None:
    """The exception of the record, also when a ``RedactionFilter`` has kept it aside."""
    info: Any = record.exc_info or record.__dict__.get(EXCEPTION_ATTRIBUTE)
    if is_a(info, tuple) and len(info) == 3:
        info = info[1]
    return info if isinstance(info, BaseException) else None
