"""Who is told about events. Without observers an event costs one truth test: ``if hooks.observers: ...``."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import function

if TYPE_CHECKING:
    from mks_hardening.protocols import Observer

__all__ = ["add_observer", "emit", "observers", "remove_observer"]

# Callers test this list before they build an event. It is changed in place, each time by one step of the
# interpreter, so a loop over it in another thread sees the old or the new state, and no fork finds a lock held.
observers: list[Observer] = []
# Per context and not per thread: greenlets share a thread.
_busy: Final[ContextVar[bool]] = ContextVar("mks_hardening.emitting", default=False)


def add_observer(observer: Observer) -> None:
    """Tell ``observer`` of every event from now on; adding it twice changes nothing."""
    function(observer, parameter="observer")
    if observer not in observers:
        observers.append(observer)


def remove_observer(observer: Observer) -> None:
    """Stop telling ``observer``; removing an unknown one changes nothing."""
    with suppress(ValueError):
        observers.remove(observer)


def emit(event: Any) -> None:
    """Hand one event to all observers. An observer that raises is skipped, and cannot cause events itself."""
    if _busy.get():
        return
    token = _busy.set(True)
    try:
        for observer in tuple(observers):
            try:
                observer(event)
            except Exception:  # noqa: BLE001, S112 - an observer must never break what it observes
                continue
    finally:
        _busy.reset(token)
