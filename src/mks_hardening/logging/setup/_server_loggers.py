"""Handlers that servers and frameworks have put on their own loggers: plain lines beside ours."""

from __future__ import annotations

import logging
import sys
from typing import Final

__all__ = ["SERVER_LOGGERS", "take_over_consoles"]

#: Loggers to which servers give handlers of their own and which they cut off from the root.
SERVER_LOGGERS: Final = (
    "gunicorn.error",
    "gunicorn.access",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "celery",
    "celery.task",
    "celery.redirected",
    "werkzeug",
)


def take_over_consoles(loggers: list[logging.Logger]) -> None:
    """Let what these loggers print on the console go to the root instead."""
    for logger in loggers:
        consoles = [handler for handler in logger.handlers if _is_console(handler)]
        for handler in consoles:
            logger.removeHandler(handler)
        # Without handlers and cut off from the root their records would go nowhere.
        if consoles or (logger.name in SERVER_LOGGERS and not logger.handlers):
            logger.propagate = True


def _is_console(handler: logging.Handler) -> bool:
    stream: object = getattr(handler, "stream", None)
    if type(handler) is not logging.StreamHandler:  # subclasses are somebody's own
        return False
    console = stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    # Flask's default handler finds the stream of the request behind a proxy.
    return console or type(stream).__name__ == "LocalProxy"
