"""Keep threads out of a handler while the process forks.

A buffered stream has a lock of its own. A child forked while another thread writes would inherit it held, and could
never write again. So a fork waits until nobody is inside the handler; what the child gets is a stream at rest.
"""

from __future__ import annotations

import logging
import os
from threading import RLock
from typing import Any, Final
from weakref import WeakSet

__all__ = ["hold_at_fork"]

_PATIENCE: Final = 1.0  # seconds; a stream that hangs longer must not keep the process from forking

_handlers: Final[WeakSet[logging.Handler]] = WeakSet()
_held: Final[list[Any]] = []
_armed: Final[list[bool]] = []


def hold_at_fork(handler: logging.Handler) -> None:
    """From now on, let no fork happen while a thread is inside the handler."""
    _handlers.add(handler)
    if not _armed:
        _armed.append(True)
        # The child has nothing to let go: logging makes its locks anew there.
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_held.clear)


def _hold() -> None:
    # logging's own lock comes first, as everywhere in logging: whoever holds it may be waiting for a handler.
    module_lock: Any = getattr(logging, "_lock", None) or RLock()
    for lock in (module_lock, *(handler.lock for handler in list(_handlers))):
        if lock is not None and lock.acquire(timeout=_PATIENCE):
            _held.append(lock)


def _let_go() -> None:
    while _held:
        _held.pop().release()
