"""Watchdog for hanging requests: logs the stack of a request while it is still running."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from typing import NamedTuple
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from mks_hardening.protocols import Clock

_log = logging.getLogger(__name__)


class _Running(NamedTuple):
    """One running call of the application."""

    since: float
    thread: int
    environ: WSGIEnvironment


class RequestWatchdog:
    """Logs each request that runs longer than the limit once, with the stack of its thread.

    Use it as the outermost wrapper, so that hanging wrappers are detected too. The measurement ends when the
    application returns its response to the server, so streaming a body is not limited. One thread per process
    checks the requests, started with the first one. It cannot detect a worker whose threads are all blocked on the
    interpreter lock; the server's own timeout covers that.

    Args:
        app: the WSGI application.
        limit: seconds after which a request is logged.
        every: seconds between two checks.
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
        self._reported: set[int] = set()
        self._watching = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        if self._watching != os.getpid():
            self._watch()
        running = _Running(self._monotonic(), threading.get_ident(), environ)
        number = id(running)
        self._running[number] = running
        try:
            return self._app(environ, start_response)
        finally:
            del self._running[number]
            if number in self._reported:
                self._reported.discard(number)
                _log.warning("%s finished after %.1f s", _name(environ), self._monotonic() - running.since)

    def check(self) -> None:
        """Log every request that exceeds the limit and has not been logged yet."""
        now = self._monotonic()
        late = [
            (number, running)
            for number, running in tuple(self._running.items())
            if now - running.since >= self._limit and number not in self._reported
        ]
        # Only if needed: it pauses all threads, for longer the more there are.
        stacks = sys._current_frames() if late else {}  # noqa: SLF001 - documented, for debugging tools as this one
        for number, running in late:
            self._reported.add(number)
            frame = stacks.get(running.thread)
            lines = traceback.format_stack(frame) if frame is not None else ["(its thread is gone)\n"]
            _log.error(
                "%s has been running for %.1f s, here:\n%s",
                _name(running.environ),
                now - running.since,
                "".join(lines),
            )

    def close(self) -> None:
        """Stop checking; may be called more than once. Requests are still handled."""
        self._ended.set()

    def _watch(self) -> None:
        with self._lock:
            if self._watching == os.getpid():
                return
            # A forked child has neither the parent's requests nor its thread.
            self._running, self._reported, self._watching = {}, set(), os.getpid()
            self._ended = threading.Event()
            threading.Thread(target=self._run, name="request-watchdog", daemon=True).start()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.check()
            except Exception:  # noqa: BLE001 - a failed check must not stop the next one
                _log.exception("the watchdog could not check the requests")


def _name(environ: WSGIEnvironment) -> str:
    """Return method, path and id of a request; never its query or body."""
    path = ascii(environ.get("PATH_INFO", ""))[1:-1][:200]
    return f"{environ.get('REQUEST_METHOD', '')} {path} (request {environ.get('REQUEST_ID', 'unknown')})"
