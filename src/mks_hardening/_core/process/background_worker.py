"""A bounded queue with one daemon thread, for work that must not run on the caller's thread.

``put`` never blocks and never raises, and may be called from a signal handler. An accepted item is handled, or
returned by ``close``; rejected items are counted. A forked child starts with an empty queue: the parent handles its
own items.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Generic, Literal, TypeVar

from mks_hardening._core.checks import choice, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.process import exit_hooks
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.protocols import Clock

__all__ = ["BackgroundWorker"]

T = TypeVar("T")


class _Mark:
    """Marker in the queue; when it is dequeued, everything queued before it has been handled."""

    __slots__ = ("reached", "stop")

    def __init__(self, *, stop: bool) -> None:
        self.reached = threading.Event()
        self.stop = stop


class _Tally:
    """Counter whose increment is one C call: exact with threads and in signal handlers."""

    __slots__ = ("_added", "_lock", "_read")

    def __init__(self) -> None:
        self._added = count()
        self._read = count()
        self._lock = threading.RLock()  # reentrant: a signal handler may interrupt a reader

    def add(self) -> None:
        next(self._added)

    @property
    def value(self) -> int:
        # A counter can be read only by advancing it, so the reads are counted too.
        with self._lock:
            return next(self._added) - next(self._read)


class BackgroundWorker(Generic[T]):
    """Passes queued items one by one to ``handle`` on its own daemon thread.

    Args:
        handle: handles one item; an exception is counted in ``failed`` and does not stop the worker.
        name: name of the thread.
        max_queue: maximum number of queued items; beyond it, items are rejected or replace the oldest.
        overflow: ``drop_new`` rejects the new item, ``drop_oldest`` drops the oldest one.
        tick: called on the worker's thread after each item and when the requested time has passed; returns the
            seconds until the next call, or ``None``.
        leftover: called by ``close`` with the items that could not be handled in time (including the current one).
        at_exit: whether ``close`` is called at process exit; ``False`` if the owner does that itself.
        clock: monotonic clock for timeouts of ``close``.

    Raises:
        ConfigurationError: ``max_queue`` below 1 or an unknown ``overflow``.
    """

    _closed: bool
    _thread: threading.Thread | None

    def __init__(
        self,
        handle: Callable[[T], object],
        *,
        name: str,
        max_queue: int = 1000,
        overflow: Literal["drop_new", "drop_oldest"] = "drop_new",
        tick: Callable[[], float | None] | None = None,
        leftover: Callable[[list[T]], object] | None = None,
        at_exit: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._handle = handle
        self._name = name
        self._max_queue = whole_number(max_queue, parameter="max_queue", minimum=1)
        self._drop_oldest = (
            choice(overflow, ("drop_new", "drop_oldest"), parameter="overflow") == "drop_oldest"
        )
        self._tick = tick
        self._leftover = leftover
        self._clock = clock
        self._closed = False
        self.reset_after_fork()
        register_after_fork(self)
        if at_exit:
            exit_hooks.on_exit(self.close)

    def reset_after_fork(self) -> None:
        """Start with an empty queue and no thread in a forked child; the parent handles its own items."""
        # Looked up in the module: gevent replaces the class there, and the C class would block all greenlets.
        self._queue: queue.SimpleQueue[T | _Mark] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._thread = None
        self._ended = self._closed
        self._accepted = _Tally()
        self._dropped = _Tally()
        self._handled = 0
        self._failed = 0
        self._current_items: list[T] = []

    def put(self, item: T) -> bool:
        """Queue one item; return false (and count it as dropped) if it was rejected. Never blocks, never raises."""
        if self._closed or (self._queue.qsize() >= self._max_queue and not self._make_room()):
            self._dropped.add()
            return False
        self._accepted.add()
        self._queue.put(item)
        if self._has_ended():  # between the check and the put: no thread will dequeue it
            self._return_leftover()
        elif self._thread is None:
            self._start()
        if exit_hooks.sigterm_wanted:
            exit_hooks.arm_sigterm()
        return True

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until everything queued so far is handled; return whether it was."""
        if self._closed or (self._thread is None and self._queue.empty()):
            return self.pending == 0
        mark = _Mark(stop=False)
        self._queue.put(mark)
        self._start()
        return mark.reached.wait(timeout)

    def close(self, timeout: float = 5.0) -> list[T]:
        """Reject new items, handle the pending ones for up to ``timeout`` seconds, and return the rest.

        May be called again: it then waits for a thread that has not ended yet. On the worker's own thread it does
        not wait.
        """
        thread = self._thread
        if not self._closed:
            self._closed = True
            if thread is not None:
                self._queue.put(_Mark(stop=True))
        if thread is not None and not self.is_current_thread:
            self._join(thread, timeout)
        # From now on, callers of ``put`` remove their own items, and a busy thread stops after its current item.
        self._ended = True
        return self._return_leftover()

    def drain(self, timeout: float = 1.0) -> None:
        """Handle pending items for up to ``timeout`` seconds and end the thread; ``put`` starts another."""
        thread = self._thread
        if thread is not None and not self._closed:
            self._queue.put(_Mark(stop=True))
            self._join(thread, timeout)
            self._thread = None

    @property
    def pending(self) -> int:
        """Number of items accepted and not yet handled, including the current one."""
        return max(0, self._accepted.value - self._handled)

    @property
    def dropped(self) -> int:
        """Number of items rejected or dropped from the queue."""
        return self._dropped.value

    @property
    def failed(self) -> int:
        """Number of items whose ``handle`` raised."""
        return self._failed

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs on this worker's thread."""
        return threading.current_thread() is self._thread

    def _join(self, thread: threading.Thread, timeout: float) -> None:
        try:
            thread.join(timeout)
        except RuntimeError:
            # Another thread is just starting it, and holds the lock until it runs. If this thread is starting it,
            # and we are in a signal handler above that call, it ends when it first checks for the end.
            if self._lock.acquire(timeout=timeout):
                self._lock.release()
            with suppress(RuntimeError):
                thread.join(timeout)

    def _has_ended(self) -> bool:
        return self._ended

    def _make_room(self) -> bool:
        if not self._drop_oldest:
            return False
        try:
            oldest = self._queue.get_nowait()
        except queue.Empty:
            return True
        if isinstance(oldest, _Mark):
            self._queue.put(oldest)
        else:
            self._handled += 1
            self._dropped.add()
        return True

    def _start(self) -> None:
        # Non-blocking: the holder is starting the thread, and may be a frame below us in a signal handler.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is shutting down; close() returns the items
                    self._thread = None
        finally:
            self._lock.release()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:  # killed from outside: the next ``put`` starts another thread
            self._thread = None
            raise

    def _work(self) -> None:
        wait = self._ticked()
        while not self._ended:
            try:
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                wait = self._ticked()
                continue
            if isinstance(item, _Mark):
                item.reached.set()
                if item.stop:
                    return
                continue
            self._current_items.append(item)
            try:
                self._handle(item)
            # SystemExit too: nothing would report it here, and the items behind it would wait forever.
            except BaseException:  # noqa: BLE001 - one failing item must not stop the worker; it is counted
                self._failed += 1
            if self._current_items:
                self._current_items.clear()
                self._handled += 1
            wait = self._ticked()

    def _ticked(self) -> float | None:
        if self._tick is None:
            return None
        try:
            delay = self._tick()
        except BaseException:  # noqa: BLE001 - as in _work
            self._failed += 1
            return 1.0
        return None if delay is None else max(0.0, delay)

    def _return_leftover(self) -> list[T]:
        rest = self._remove_pending()
        if rest and self._leftover is not None:
            self._leftover(rest)
        return rest

    def _remove_pending(self) -> list[T]:
        rest = list(self._current_items)
        self._current_items = []
        stop: _Mark | None = None
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, _Mark):
                item.reached.set()
                stop = item if item.stop else stop
            else:
                rest.append(item)
        self._handled += len(rest)
        # A thread that looked for the end just before it came is about to wait for an item, perhaps forever.
        if stop is not None and self._thread is not None and self._thread.is_alive():
            self._queue.put(stop)
        return rest
