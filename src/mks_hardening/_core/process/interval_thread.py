"""A thread that runs a function at intervals while there is work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakMethod

from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["IntervalThread", "until_collected"]


class IntervalThread:
    """Calls a function at intervals until it reports that no work is left; ``start`` resumes it.

    It may try often what an unavailable server prevents: while a circuit breaker is open, that takes microseconds.

    Args:
        work: does part of the work and returns whether there may be more; an exception counts as "more", unless it
            says that the client of a server is closed.
        every: seconds between two calls.
        name: name of the thread.
    """

    __slots__ = ("__weakref__", "_asked", "_closed", "_every", "_lock", "_name", "_thread", "_work")

    def __init__(self, work: Callable[[], bool], *, every: float, name: str) -> None:
        self._work = work
        self._every = every
        self._name = name
        self._closed = False
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Forget the thread in a forked child, where it does not exist."""
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._asked = False

    def start(self) -> None:
        """Start the thread if it is not running: there is work."""
        if self._asked and self._thread is not None:
            return
        with self._lock:
            self._asked = True
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with suppress(RuntimeError):  # no more threads available: the next call of start() tries again
                thread.start()
                self._thread = thread

    def close(self, *, last_try: bool = False) -> bool:
        """End the thread, after a last attempt in this one if wanted; return whether that left more to do."""
        more = last_try and self._try_once()
        self._closed = True
        return more

    def _try_once(self) -> bool:
        if self._closed:
            return False
        try:
            return self._work()
        except BackendUnavailableError as error:
            # A closed client never responds again, and the thread must not outlive its owner.
            return error.reason != "closed"

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._every)
            self._asked = False
            more = True
            with suppress(Exception):
                more = self._try_once()
            with self._lock:
                if not more and not self._asked:
                    self._thread = None
                    return


def until_collected(method: Callable[[], bool]) -> Callable[[], bool]:
    """Return work for an ``IntervalThread`` that ends when the object of the method is garbage-collected."""
    reference = WeakMethod(method)

    def work() -> bool:
        found = reference()
        return found is not None and found()

    return work
