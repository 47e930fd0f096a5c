"""Detection of calls that block an event loop, by the functions called in its thread rather than by time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    import pytest

_SOCKET_CALLS = ("connect", "recv", "recv_into", "send", "sendall", "sendto", "recvfrom", "accept")


class LoopWatch:
    """The calls that blocked the loop, with their callers, and the longest delay of the loop."""

    def __init__(self) -> None:
        self.blocked: list[str] = []
        self.lag = self.work = 0.0
        self._thread: int | None = None

    def note(self, what: str) -> None:
        """Record a blocking call if it happens in the loop's thread."""
        if threading.get_ident() == self._thread:
            frames = [frame for frame in traceback.extract_stack() if "mks_hardening" in frame.filename]
            place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "outside"
            self.blocked.append(f"{what} at {place}")

    async def run(self, seconds: float) -> None:
        """Measure the delay of the running loop."""
        self._thread = threading.get_ident()
        self.lag = self.work = 0.0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.lag = max(self.lag, time.perf_counter() - began - 0.001)
            self.work = max(self.work, time.thread_time() - worked)


@contextmanager
def watched_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopWatch]:
    """Record every blocking call of sockets, PostgreSQL and ``time.sleep`` in the thread of the watched loop."""
    watch = LoopWatch()

    def noting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, *args: Any, **options: Any) -> Any:
            if self.gettimeout() != 0:  # asyncio's own sockets never wait
                watch.note(f"socket.{name}")
            return original(self, *args, **options)

        return call

    sleep, waits = time.sleep, psycopg.Connection.wait

    def noted_sleep(seconds: float) -> None:
        watch.note("time.sleep")
        sleep(seconds)

    def noted_wait(self: Any, *args: Any, **options: Any) -> Any:
        watch.note("psycopg")
        return waits(self, *args, **options)

    with monkeypatch.context() as patched:
        for name in _SOCKET_CALLS:
            patched.setattr(socket.socket, name, noting(name, getattr(socket.socket, name)), raising=False)
        patched.setattr(time, "sleep", noted_sleep)
        patched.setattr(psycopg.Connection, "wait", noted_wait)
        yield watch
