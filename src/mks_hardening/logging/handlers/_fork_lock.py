"""Locks that keep threads out of a handler while the process forks.

A buffered stream has its own lock. If a child is forked while another thread is writing, it inherits the lock in
the held state and can never write again. A fork therefore waits until no thread is inside the handler.
"""

from __future__ import annotations

import logging
import os
from threading import RLock
from typing import Any, Final
from weakref import WeakSet

__all__ = ["lock_during_fork"]

_PATIENCE: Final = 1.0  # seconds; a stream that blocks for longer must not prevent the fork

_handlers: Final[WeakSet[logging.Handler]] = WeakSet()
_held: Final[list[Any]] = []
_armed: Final[list[bool]] = []


def lock_during_fork(handler: logging.Handler) -> None:
    """Prevent forks from now on while a thread is inside the handler."""
    _handlers.add(handler)
    if not _armed:
        _armed.append(True)
        # The child has nothing to release: logging recreates its locks there.
        os.register_at_fork(before=_acquire_locks, after_in_parent=_release_locks, after_in_child=_held.clear)


def _acquire_locks() -> None:
    # The module lock of logging first, as in logging itself: its holder may be waiting for a handler.
    module_lock: Any = getattr(logging, "_lock", None) or RLock()
    for lock in (module_lock, *(handler.lock for handler in list(_handlers))):
        if lock is not None and lock.acquire(timeout=_PATIENCE):
            _held.append(lock)


def _release_locks() -> None:
    while _held:
        _held.pop().release()
