"""Where a request stands that does not come back: its stack, in the log, while it still hangs."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening.protocols import Clock

__all__ = ["RequestWatchdog"]

_log = logging.getLogger(__name__)


class _Running(NamedTuple):
    """One call of the application."""

    since: float
    thread: int
    environ: WSGIEnvironment


class RequestWatchdog:
    """Tells once about each request that runs for longer than its limit, with the stack of its thread.

    The outermost wrapper of an application, so that a wrapper that hangs is seen too. What is measured ends when
    the application has given its answer to the server: a body that streams may take its time. One thread looks,
    begun with the first request of a process. A worker whose every thread waits for the interpreter's lock is
    beyond it; that is the server's own time-out.

    Args:
        app: the WSGI application.
        limit: seconds after which a request is told.
        every: seconds between two looks.
        clock: source of time.
    """

    def __init__(
        self, app: WSGIApplication, *, limit: float = 20, every: float = 1, clock: Clock = time
    ) -> None:
        self._app = app
        self._limit = limit
        self._every = every
        self._monotonic = clock.monotonic
        self._running: dict[int, _Running] = {}
        self._told: set[int] = set()
        self._watching = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        if self._watching != os.getpid():
            self._watch()
        running = _Running(self._monotonic(), threading.get_ident(), environ)
        number = id(running)
        self._running[number] = running
        try:
            return self._app(environ, start_response)
        finally:
            del self._running[number]
            if number in self._told:
                self._told.discard(number)
                _log.warning("%s came back after %.1f s", _name(environ), self._monotonic() - running.since)

    def look(self) -> None:
        """Tell about every request that is over its limit and was not told yet."""
        now = self._monotonic()
        late = [
            (number, running)
            for number, running in tuple(self._running.items())
            if now - running.since >= self._limit and number not in self._told
        ]
        # Asked for only then: it stops every thread for as long as there are many.
        stacks = sys._current_frames() if late else {}  # noqa: SLF001 - documented, for debugging tools as this one
        for number, running in late:
            self._told.add(number)
            frame = stacks.get(running.thread)
            lines = traceback.format_stack(frame) if frame is not None else ["(its thread is gone)\n"]
            _log.error(
                "%s has been running for %.1f s, here:\n%s",
                _name(running.environ),
                now - running.since,
                "".join(lines),
            )

    def close(self) -> None:
        """Look no more; harmless when called twice. Requests are answered as before."""
        self._ended.set()

    def _watch(self) -> None:
        with self._lock:
            if self._watching == os.getpid():
                return
            # In a forked child the parent's requests and its thread are not here.
            self._running, self._told, self._watching = {}, set(), os.getpid()
            self._ended = threading.Event()
            threading.Thread(target=self._run, name="request-watchdog", daemon=True).start()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - whatever goes wrong in one look, the next one is made
                _log.exception("the watchdog could not look")


def _name(environ: WSGIEnvironment) -> str:
    """Method, path and number of a request; never its query or body."""
    path = ascii(environ.get("PATH_INFO", ""))[1:-1][:200]
    return f"{environ.get('REQUEST_METHOD', '')} {path} (request {environ.get('REQUEST_ID', 'unknown')})"
