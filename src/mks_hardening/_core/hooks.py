"""Who is told about events. Without observers an event costs one truth test: ``if hooks.observers: ...``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mks_hardening.protocols import Observer

__all__ = ["add_observer", "emit", "observers", "remove_observer", "reset_observers"]

# Callers test this list before they build an event. It is changed in place, under the lock, by copying slices,
# so that a loop over it in another thread sees either the old or the new state.
observers: list[Observer] = []
_lock = threading.Lock()
_depth = threading.local()


def add_observer(observer: Observer) -> None:
    """Tell ``observer`` of every event from now on; adding it twice changes nothing."""
    with _lock:
        if observer not in observers:
            observers[:] = [*observers, observer]


def remove_observer(observer: Observer) -> None:
    """Stop telling ``observer``; removing an unknown one changes nothing."""
    with _lock:
        observers[:] = [known for known in observers if known is not observer and known != observer]


def reset_observers() -> None:
    """Forget all observers (for tests)."""
    with _lock:
        observers.clear()


def emit(event: Any) -> None:
    """Hand one event to all observers. An observer that raises is skipped, and cannot cause events itself."""
    if getattr(_depth, "busy", False):
        return
    _depth.busy = True
    try:
        for observer in tuple(observers):
            try:
                observer(event)
            except Exception:  # noqa: BLE001, S112 - an observer must never break what it observes
                continue
    finally:
        _depth.busy = False
