"""Records of other logging libraries as ``logging`` records, for our formatter and handlers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Final, TypeAlias, cast

from mks_hardening._core.redaction.record_attributes import STANDARD_NAMES

__all__ = ["ExcInfo", "exc_info_of", "record_of"]

ExcInfo: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None"
)

_TAKEN: Final = frozenset({*STANDARD_NAMES, "message", "asctime"})


def record_of(
    message: object,
    *,
    logger: str,
    level: int,
    level_name: str,
    fields: Mapping[str, object],
    exc_info: ExcInfo = None,
    path: str = "",
    line: int = 0,
    function: str | None = None,
) -> logging.LogRecord:
    """Build a record; a field whose name is an attribute of log records is prefixed with ``extra_``."""
    record = logging.LogRecord(logger, level, path, line, message, None, exc_info, function)
    record.levelname = level_name
    data = record.__dict__
    for name, value in fields.items():
        # logging itself raises a KeyError for such names, at the logging call.
        data[f"extra_{name}" if name in _TAKEN else name] = value
    return record


def exc_info_of(given: object) -> ExcInfo:
    """Normalize ``exc_info``, which may be true, an exception, or a tuple of three parts."""
    error: object = given
    if isinstance(given, tuple):
        error = next(
            (part for part in cast("tuple[object, ...]", given) if isinstance(part, BaseException)), None
        )
    elif given and not isinstance(given, BaseException):
        error = sys.exc_info()[1]
    return (type(error), error, error.__traceback__) if isinstance(error, BaseException) else None
