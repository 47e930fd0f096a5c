"""A loguru sink: log records of loguru pass through our handlers and redaction, like all others.

from loguru import logger
from mks_hardening.contrib.loguru_sink import LoguruSink
from mks_hardening.logging import setup_logging

setup_logging("knowledge")
logger.configure(handlers=[{"sink": LoguruSink(), "format": "{message}"}])
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, TypeAlias

from mks_hardening._core.checks import instance
from mks_hardening._core.memo import Memo
from mks_hardening._core.redaction.message_templates import (
    TemplatePlan,
    without_secret_fields,
    without_secret_values,
)
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.contrib._foreign_records import record_of

__all__ = ["LoguruSink"]

FromLoguru: TypeAlias = Any
"""A message from loguru: a text with a ``record``, which is a dictionary."""

_FRAMES: Final = 8  # between the sink and the call: loguru's handler and its sink
_MARKUP: Final = re.compile(r"</?(?:[fb]g\s)?[^<>\s]*>")  # markup of ``opt(colors=True)``
_passing_on: Final[ContextVar[bool]] = ContextVar("mks_hardening.loguru", default=False)


class LoguruSink:
    """A loguru sink that passes records to ``logging``, for the JSON, redaction, files and alerts set up there.

    loguru formats the message itself. Arguments that are secret by their name or by the label before them
    (``logger.info("{password}", password=…)``, ``logger.info("password {}", …)``) are redacted in it. With
    ``enqueue=True`` loguru passes the message without its template, and labels are recognized only as in any other
    text: part of a value with blanks after ``password={}`` may remain. Name such an argument, or use
    ``setup_logging(queue=True)`` for a queue instead. The text that loguru formats for sinks is not used, so values
    of variables never appear, regardless of ``format``, ``diagnose`` and ``backtrace``. With a ``logging`` handler
    that sends everything to loguru, each record is still written once.

    Args:
        handler: pass records to this handler only, instead of the loggers named after the modules.
    """

    def __init__(self, handler: logging.Handler | None = None) -> None:
        self._handler = None if handler is None else instance(handler, logging.Handler, parameter="handler")
        self._is_secret_key = default_redactor().is_secret_key
        self._templates: Memo[str, TemplatePlan | None] = Memo(
            lambda template: without_secret_fields(template, self._is_secret_key), entries=2048
        )

    def __call__(self, message: FromLoguru) -> None:
        """Pass on one message."""
        if _passing_on.get():  # sent by this sink, through a handler that sends everything to loguru
            return
        source: dict[str, Any] = message.record
        level, exception = source["level"], source["exception"]
        # A copy, because loguru passes the same dictionary to its other sinks.
        fields: dict[str, object] = dict(source["extra"])
        record = record_of(
            without_secret_values(self._message(source["message"]), source["extra"], self._is_secret_key),
            logger=source["name"] or "loguru",
            level=level.no,
            level_name=level.name,
            fields=fields,
            exc_info=None
            if exception is None or exception.value is None
            else (exception.type, exception.value, exception.traceback),
            path=source["file"].path,
            line=source["line"],
            function=source["function"],
        )
        # loguru may deliver a message from a queue; time and thread are those of the logging call.
        record.created = source["time"].timestamp()
        record.process, record.thread = source["process"].id, source["thread"].id
        token = _passing_on.set(True)
        try:
            if self._handler is not None:
                self._handler.handle(record)
            else:
                logger = logging.getLogger(record.name)
                # handle() ignores the level of the logger.
                if logger.isEnabledFor(record.levelno):
                    logger.handle(record)
        finally:
            _passing_on.reset(token)

    def _message(self, message: str) -> str:
        """Return the message without the arguments that its template marks as secret."""
        call = _call_in_progress()
        plan = None if call is None else self._templates[call.template]
        if call is None or plan is None:
            return message
        try:
            if call.template.format(*call.args, **call.kwargs) == message:
                return plan.template.format(*call.args, **call.kwargs)
            hidden: dict[object, object] = {
                name: call.args[int(name)] if name.isdigit() else call.kwargs[name] for name in plan.hidden
            }
        except Exception:  # noqa: BLE001 - any exception of the arguments' own methods
            return plan.template
        # The message was changed by a patcher.
        return without_secret_values(message, hidden, lambda _: True)


class _LoguruCall(NamedTuple):
    template: str
    args: Sequence[object]
    kwargs: Mapping[str, Any]


def _call_in_progress() -> _LoguruCall | None:
    """Return the loguru call that passes the message; ``None`` from a queue or without arguments.

    loguru stores the template and its positional arguments only in the frame of this call.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - documented, and the only way to a frame without a traceback
    for _ in range(_FRAMES):
        caller = frame.f_back
        if caller is None:
            return None
        frame = caller
        if frame.f_code.co_name == "_log" and frame.f_globals.get("__name__") == "loguru._logger":
            known = frame.f_locals
            template, args, kwargs = known.get("message"), known.get("args"), known.get("kwargs")
            if type(template) is not str or not (args or kwargs):
                return None
            return _LoguruCall(
                _MARKUP.sub("", template) if known.get("colors") else template, args or (), kwargs or {}
            )
    return None
