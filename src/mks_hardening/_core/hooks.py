"""Who is told about events. Without observers an event costs one truth test: ``if hooks.observers: ...``."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import function
from mks_hardening._core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from mks_hardening.protocols import Observer

__all__ = ["add_observer", "emit", "observers", "remove_observer"]

# Callers test this list before they build an event. It is changed in place, each time by one step of the
# interpreter, so a loop over it in another thread sees the old or the new state, and no fork finds a lock held.
observers: list[Observer] = []
_silent_until: Final[dict[str, float]] = {}
_EVERY: Final = 60
_MOST_NAMES: Final = 100
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


def _report(observer: Observer, event: Any, error: Exception) -> None:
    name, now = _name_of(observer), SYSTEM_CLOCK.monotonic()
    if now < _silent_until.get(name, now):
        return
    if len(_silent_until) >= _MOST_NAMES:
        _silent_until.clear()
    _silent_until[name] = now + _EVERY
    import logging
    import traceback

    # Not the text of the error: it may hold the DSN or the parameters of an audit table.
    where = "".join(traceback.format_tb(error.__traceback__))
    with suppress(Exception):  # a handler may raise too
        logging.getLogger("mks_hardening.observers").error(
            "the observer %s raised %s for %s; other such errors are not logged for %d s\n%s",
            name,
            type(error).__name__,
            type(event).__name__,
            _EVERY,
            where,
        )


def _name_of(observer: object) -> str:
    name: object = getattr(observer, "__qualname__", None)
    return f"{getattr(observer, '__module__', '')}.{name or type(observer).__qualname__}"


def emit(event: Any) -> None:
    """Hand one event to all observers. An observer cannot cause events itself.

    One that raises is skipped, and logged by ``mks_hardening.observers`` with its traceback, at most once a minute:
    otherwise nobody would notice that audit records are missing.
    """
    if _busy.get():
        return
    token = _busy.set(True)
    try:
        for observer in tuple(observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - an observer must never break what it observes
                _report(observer, event, error)
    finally:
        _busy.reset(token)
