"""Reset of objects in a forked child: locks held by threads of the parent must not block it.

gunicorn's gevent workers patch ``threading`` after the fork, and so after that reset: a queue created before would
block every greenlet, and a thread started before would fail in ``threading`` at its end. Such a child drains its
queues before gevent patches anything, and resets all objects once more afterwards.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import Protocol, runtime_checkable
from weakref import WeakSet

__all__ = ["ModuleLock", "register_after_fork"]


class ForkAware(Protocol):
    """Object with locks or with state of running threads."""

    def reset_after_fork(self) -> None:
        """Replace locks and thread state with new ones."""
        ...


@runtime_checkable
class Drainable(Protocol):
    """Fork-aware object with its own thread."""

    def drain(self) -> None:
        """Process the pending items and end the thread, within a bounded time."""
        ...


_renewables: WeakSet[ForkAware] = WeakSet()
_registered = False


def register_after_fork(renewable: ForkAware) -> None:
    """Call ``renewable.reset_after_fork()`` in every child forked from now on, as long as the object exists."""
    global _registered  # noqa: PLW0603 - os.register_at_fork cannot be undone, so it is called once per process
    _renewables.add(renewable)
    if not _registered:
        os.register_at_fork(after_in_child=_after_fork)
        _registered = True


class ModuleLock:
    """Reentrant module-level lock: new in a forked child; registers nothing before its first use."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._registered = False

    def reset_after_fork(self) -> None:
        """Replace the lock."""
        self._lock = RLock()

    def __enter__(self) -> None:
        if not self._registered:
            self._registered = True
            register_after_fork(self)
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # forked inside the block: the new lock was never acquired
            self._lock.release()


def _after_fork() -> None:
    _renew_all()
    if "gevent" in sys.modules:
        from gevent import events

        if _on_gevent_event not in events.subscribers:
            events.subscribers.append(_on_gevent_event)


def _on_gevent_event(event: object) -> None:
    kind = type(event).__name__
    if kind == "GeventWillPatchAllEvent":
        for renewable in list(_renewables):
            if isinstance(renewable, Drainable):
                with suppress(Exception):  # gevent would raise it in the code that patches
                    renewable.drain()
    elif kind == "GeventDidPatchBuiltinModulesEvent":
        _renew_all()


def _renew_all() -> None:
    for renewable in list(_renewables):
        # If one of them raises, the others must still replace the parent's locks.
        with suppress(Exception):
            renewable.reset_after_fork()
