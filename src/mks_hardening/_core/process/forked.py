"""Locks of a parent's threads must not bind a forked child: objects that hold one are renewed there."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import Protocol
from weakref import WeakSet

__all__ = ["ModuleLock", "renew_in_child"]


class Renewable(Protocol):
    """Has locks or state of running threads."""

    def renew(self) -> None:
        """Replace them by fresh ones."""
        ...


_renewables: WeakSet[Renewable] = WeakSet()
_registered = False


def renew_in_child(renewable: Renewable) -> None:
    """Call ``renewable.renew()`` in every child forked from now on, as long as the object lives."""
    global _registered  # noqa: PLW0603 - os.register_at_fork cannot be undone, so it is done once per process
    _renewables.add(renewable)
    if not _registered:
        os.register_at_fork(after_in_child=_renew_all)
        _registered = True


class ModuleLock:
    """A reentrant lock for a module: fresh in a forked child, and nothing is registered before its first use."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._registered = False

    def renew(self) -> None:
        """Replace the lock."""
        self._lock = RLock()

    def __enter__(self) -> None:
        if not self._registered:
            self._registered = True
            renew_in_child(self)
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # forked inside: the fresh lock was never taken
            self._lock.release()


def _renew_all() -> None:
    for renewable in list(_renewables):
        # Whatever one of them raises, the others must not keep the parent's locks.
        with suppress(Exception):
            renewable.renew()
