"""Handlers that servers and frameworks have put on their own loggers: plain lines beside ours."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SERVER_LOGGERS", "leave_servers", "take_over_consoles", "watch_servers"]

#: Loggers to which servers give handlers of their own and which they cut off from the root.
SERVER_LOGGERS: Final = (
    "gunicorn.error",
    "gunicorn.access",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "hypercorn.error",
    "hypercorn.access",
    "celery",
    "celery.task",
    "celery.redirected",
    "werkzeug",
)
_CELERY_SIGNAL: Final = "mks_hardening.logging"


def take_over_consoles(loggers: list[logging.Logger]) -> None:
    """Let what these loggers print on the console go to the root instead."""
    for logger in loggers:
        consoles = [handler for handler in logger.handlers if _is_console(handler)]
        for handler in consoles:
            logger.removeHandler(handler)
        # Without handlers and cut off from the root their records would go nowhere.
        if consoles or (logger.name in SERVER_LOGGERS and not logger.handlers):
            logger.propagate = True


def watch_servers(on_celery: Callable[..., object], *, in_place: Callable[[], bool]) -> None:
    """Take over as well what a server sets up later: ``uvicorn.run`` after us, gunicorn at a reload.

    Args:
        on_celery: called when a Celery worker would set up logging, which it then leaves alone.
        in_place: whether our handlers are still there to take the records.
    """
    leave_servers()
    for name in SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.addFilter(_AtEachRecord(logger, in_place))
    signals = _celery_signals()
    if signals is not None:
        signals.setup_logging.connect(on_celery, weak=False, dispatch_uid=_CELERY_SIGNAL)


def leave_servers() -> None:
    """Undo ``watch_servers``."""
    for name in SERVER_LOGGERS:
        logger = logging.getLogger(name)
        for known in [one for one in logger.filters if isinstance(one, _AtEachRecord)]:
            logger.removeFilter(known)
    signals = _celery_signals()
    if signals is not None:
        signals.setup_logging.disconnect(dispatch_uid=_CELERY_SIGNAL)


class _AtEachRecord(logging.Filter):
    """On the logger of a server: ``dictConfig`` replaces its handlers, but leaves its filters."""

    def __init__(self, logger: logging.Logger, in_place: Callable[[], bool]) -> None:
        super().__init__()
        self._logger = logger
        self._in_place = in_place

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - looks at the logger and not at the record
        """Every record passes, on to the root."""
        logger = self._logger
        while logger.parent is not None:
            # Whoever has set up the root anew since then wants his own handlers.
            if logger.handlers and self._in_place():
                take_over_consoles([logger])
            logger = logger.parent
        return True


def _celery_signals() -> Any:
    # Where Celery is not imported there is nothing to tell it.
    return sys.modules.get("celery.signals")


def _is_console(handler: logging.Handler) -> bool:
    stream: object = getattr(handler, "stream", None)
    kind = type(handler)
    # Subclasses are somebody's own, but for the one of werkzeug, which is there for colours on Windows.
    if kind is not logging.StreamHandler and kind.__module__ != "werkzeug._internal":
        return False
    console = stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    # Flask's default handler finds the stream of the request behind a proxy.
    return console or type(stream).__name__ == "LocalProxy"
