"""Logging of uncaught exceptions, of the process and of its threads."""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType

from mks_hardening._core.checks import instance

__all__ = ["UncaughtExceptions"]


class UncaughtExceptions:
    """Log uncaught exceptions, which would otherwise be printed on stderr, unredacted and in another format.

    Other hooks that are installed are called afterwards; the interpreter's default hooks, which would only print,
    are not. KeyboardInterrupt and ``SystemExit`` are left to the interpreter.

    Args:
        logger: logger of the records.
    """

    __slots__ = ("_logger", "_process_hook", "_thread_hook")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = instance(logger, logging.Logger, parameter="logger")
        self._process_hook = sys.excepthook
        self._thread_hook = threading.excepthook
        sys.excepthook = self._in_process
        threading.excepthook = self._in_thread

    def remove(self) -> None:
        """Restore the former hooks, unless others have been installed since."""
        if sys.excepthook == self._in_process:
            sys.excepthook = self._process_hook
        if threading.excepthook == self._in_thread:
            threading.excepthook = self._thread_hook

    def _in_process(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if not issubclass(kind, Exception):
            self._process_hook(kind, error, trace)
            return
        self._log("uncaught exception", (kind, error, trace))
        # The interpreter's default hook would print the exception a second time, including secrets.
        if self._process_hook is not sys.__excepthook__:
            self._process_hook(kind, error, trace)

    def _in_thread(self, args: threading.ExceptHookArgs) -> None:
        error = args.exc_value
        if args.exc_type is SystemExit or error is None:
            self._thread_hook(args)
            return
        name = args.thread.name if args.thread else "unknown"
        self._log("uncaught exception in thread %s", (args.exc_type, error, args.exc_traceback), name)
        if self._thread_hook is not threading.__excepthook__:
            self._thread_hook(args)

    def _log(
        self,
        message: str,
        info: tuple[type[BaseException], BaseException, TracebackType | None],
        *args: str,
    ) -> None:
        self._logger.critical(message, *args, exc_info=info)
