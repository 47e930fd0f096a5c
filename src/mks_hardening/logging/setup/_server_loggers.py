"""Handlers that servers and frameworks attach to their own loggers, which would print plain lines next to ours."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SERVER_LOGGERS", "remove_console_handlers", "unwatch_servers", "watch_servers"]

#: Loggers to which servers attach their own handlers and for which they disable propagation.
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


def remove_console_handlers(loggers: list[logging.Logger]) -> None:
    """Remove the console handlers of these loggers and let their records propagate to the root."""
    for logger in loggers:
        consoles = [handler for handler in logger.handlers if _is_console(handler)]
        for handler in consoles:
            logger.removeHandler(handler)
        # Without handlers and propagation their records would be lost.
        if consoles or (logger.name in SERVER_LOGGERS and not logger.handlers):
            logger.propagate = True


def watch_servers(on_celery: Callable[..., object], *, in_place: Callable[[], bool]) -> None:
    """Also remove handlers that a server installs later: ``uvicorn.run`` after the setup, gunicorn at a reload.

    Args:
        on_celery: called when a Celery worker would set up logging, which it then skips.
        in_place: returns whether our handlers are still installed.
    """
    unwatch_servers()
    for name in SERVER_LOGGERS:
        logger = logging.getLogger(name)
        logger.addFilter(_ConsoleRemovalFilter(logger, in_place))
    signals = _celery_signals()
    if signals is not None:
        signals.setup_logging.connect(on_celery, weak=False, dispatch_uid=_CELERY_SIGNAL)


def unwatch_servers() -> None:
    """Undo ``watch_servers``."""
    for name in SERVER_LOGGERS:
        logger = logging.getLogger(name)
        for known in [one for one in logger.filters if isinstance(one, _ConsoleRemovalFilter)]:
            logger.removeFilter(known)
    signals = _celery_signals()
    if signals is not None:
        signals.setup_logging.disconnect(dispatch_uid=_CELERY_SIGNAL)


class _ConsoleRemovalFilter(logging.Filter):
    """Filter on the logger of a server: ``dictConfig`` replaces the logger's handlers, but keeps its filters."""

    def __init__(self, logger: logging.Logger, in_place: Callable[[], bool]) -> None:
        super().__init__()
        self._logger = logger
        self._in_place = in_place

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - depends on the logger, not on the record
        """Pass every record on to the root."""
        logger = self._logger
        while logger.parent is not None:
            # If the application has reconfigured the root since, it wants its own handlers.
            if logger.handlers and self._in_place():
                remove_console_handlers([logger])
            logger = logger.parent
        return True


def _celery_signals() -> Any:
    # If Celery is not imported, there is no signal to connect.
    return sys.modules.get("celery.signals")


def _is_console(handler: logging.Handler) -> bool:
    stream: object = getattr(handler, "stream", None)
    kind = type(handler)
    # Subclasses are custom handlers, except for that of werkzeug, which adds colours on Windows.
    if kind is not logging.StreamHandler and kind.__module__ != "werkzeug._internal":
        return False
    console = stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    # Flask's default handler resolves the stream of the request through a proxy.
    return console or type(stream).__name__ == "LocalProxy"
