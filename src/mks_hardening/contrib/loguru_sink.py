"""A sink of loguru: what is logged there goes the way of all other records, through our handlers and redaction.

from loguru import logger
from mks_hardening.contrib.loguru_sink import LoguruSink
from mks_hardening.logging import setup_logging

setup_logging("knowledge")
logger.configure(handlers=[{"sink": LoguruSink(), "format": "{message}"}])
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from mks_hardening._core.checks import instance
from mks_hardening._core.redaction.message_templates import without_secret_values
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.contrib._foreign_records import record_of

__all__ = ["LoguruSink"]

FromLoguru: TypeAlias = Any
"""A message of loguru: a text with a ``record``, a dictionary."""

_passing_on: Final[ContextVar[bool]] = ContextVar("mks_hardening.loguru", default=False)


class LoguruSink:
    """Hands what loguru logs to ``logging``, where ``setup_logging`` has put JSON, redaction, files and alerts.

    loguru formats the message itself: the values of named arguments whose name is secret
    (``logger.info("{password}", password=…)``) are taken out of it. The text that loguru makes for sinks is not
    used, so whatever ``format``, ``diagnose`` and ``backtrace`` say, values of variables appear nowhere. With a
    handler of ``logging`` that sends everything to loguru, each record is still written once.

    Args:
        handler: hand records to this handler alone, instead of the loggers named after the modules.
    """

    def __init__(self, handler: logging.Handler | None = None) -> None:
        self._handler = None if handler is None else instance(handler, logging.Handler, parameter="handler")

    def __call__(self, message: FromLoguru) -> None:
        """Take one message."""
        if _passing_on.get():  # it came from here, by a handler that sends everything to loguru
            return
        told: dict[str, Any] = message.record
        level, exception = told["level"], told["exception"]
        # A copy: loguru hands the same dictionary to its other sinks.
        fields: dict[str, object] = dict(told["extra"])
        record = record_of(
            without_secret_values(told["message"], told["extra"], default_redactor().is_secret_key),
            logger=told["name"] or "loguru",
            level=level.no,
            level_name=level.name,
            fields=fields,
            exc_info=None
            if exception is None or exception.value is None
            else (exception.type, exception.value, exception.traceback),
            path=told["file"].path,
            line=told["line"],
            function=told["function"],
        )
        # loguru may hand a message on from a queue; it was logged when it says so, by the thread it names.
        record.created = told["time"].timestamp()
        record.process, record.thread = told["process"].id, told["thread"].id
        token = _passing_on.set(True)
        try:
            if self._handler is not None:
                self._handler.handle(record)
            else:
                logger = logging.getLogger(record.name)
                # handle() does not look at the level of the logger.
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
        finally:
            _passing_on.reset(token)
