"""Standard attributes of a log record, as opposed to those set by ``extra`` or a filter."""

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

#: Record attribute in which a queue passes on the context of the logging thread.
CONTEXT_ATTRIBUTE: Final = "_mks_context"
#: Record attribute in which ``RedactionFilter`` stores the exception object.
EXCEPTION_ATTRIBUTE: Final = "_mks_exception"
#: Attributes of every record, in the order in which they are set.
STANDARD_ATTRIBUTES: Final = tuple(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
#: The same including those that formatters and later Python versions add.
STANDARD_NAMES: Final = frozenset((*STANDARD_ATTRIBUTES, "message", "asctime", "taskName"))


def exception_of(record: logging.LogRecord) -> BaseException | None:
    """Return the exception of the record, also if a ``RedactionFilter`` has moved it."""
    info: Any = record.exc_info or record.__dict__.get(EXCEPTION_ATTRIBUTE)
    if is_a(info, tuple) and len(info) == 3:
        info = info[1]
    return info if isinstance(info, BaseException) else None
