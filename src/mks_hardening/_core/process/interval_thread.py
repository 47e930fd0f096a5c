"""A thread that works at intervals for as long as there is something to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from mks_hardening._core.process.after_fork import renew_in_child

__all__ = ["IntervalThread"]


class IntervalThread:
    """Calls a function every so often until it says that nothing is left; started again when there is.

    Args:
        work: does a part and answers whether more may come; what it raises counts as "more".
        every: seconds between two calls.
        name: of the thread.
    """

    __slots__ = ("__weakref__", "_asked", "_every", "_lock", "_name", "_thread", "_work")

    def __init__(self, work: Callable[[], bool], *, every: float, name: str) -> None:
        self._work = work
        self._every = every
        self._name = name
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """In a forked child: there is no thread."""
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._asked = False

    def start(self) -> None:
        """There is something to do."""
        if self._asked and self._thread is not None:
            return
        with self._lock:
            self._asked = True
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with suppress(RuntimeError):  # no thread to be had: tried again by the next who asks
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._every)
            self._asked = False
            more = True
            with suppress(Exception):
                more = self._work()
            with self._lock:
                if not more and not self._asked:
                    self._thread = None
                    return
