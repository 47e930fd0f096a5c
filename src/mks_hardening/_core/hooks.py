"""Event observers. Without observers, an event costs one truth test: ``if hooks.observers: ...``."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakMethod

from mks_hardening._core.checks import function
from mks_hardening._core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening.protocols import Observer

__all__ = ["add_observer", "emit", "observe_until_collected", "observers", "remove_observer"]

# Callers test this list before they create an event. It is modified in place by atomic operations, so a loop over
# it in another thread sees the old or the new state, and a fork never copies a held lock.
observers: list[Observer] = []
_silent_until: Final[dict[str, float]] = {}
_EVERY: Final = 60
_MOST_NAMES: Final = 100
# Per context rather than per thread: greenlets share a thread.
_busy: Final[ContextVar[bool]] = ContextVar("mks_hardening.emitting", default=False)


def add_observer(observer: Observer) -> None:
    """Call ``observer`` for every event from now on; adding it twice has no effect."""
    function(observer, parameter="observer")
    if observer not in observers:
        observers.append(observer)


def remove_observer(observer: Observer) -> None:
    """Stop calling ``observer``; removing an unknown one has no effect."""
    with suppress(ValueError):
        observers.remove(observer)


class _WeakObserver:
    """A method as an observer that does not keep its object alive; equal to the method itself."""

    __slots__ = ("_hash", "_method")

    def __init__(self, method: Callable[[object], None]) -> None:
        self._method = WeakMethod(method)
        self._hash = hash(method)

    def __call__(self, event: object) -> None:
        method = self._method()
        if method is None:
            remove_observer(self)
        else:
            method(event)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _WeakObserver):
            return self._method == other._method
        return self._method() == other

    def __hash__(self) -> int:
        return self._hash


def observe_until_collected(method: Callable[[object], None]) -> None:
    """Call a method for every event until its object is garbage-collected.

    It has no effect if the method is an observer already, and ``remove_observer`` accepts the method.
    """
    add_observer(_WeakObserver(method))


def _report(observer: Observer, event: Any, error: Exception) -> None:
    name, now = _name_of(observer), SYSTEM_CLOCK.monotonic()
    if now < _silent_until.get(name, now):
        return
    if len(_silent_until) >= _MOST_NAMES:
        _silent_until.clear()
    _silent_until[name] = now + _EVERY
    import logging
    import traceback

    # Without the text of the error: it may contain the DSN or the parameters of an audit table.
    where = "".join(traceback.format_tb(error.__traceback__))
    with suppress(Exception):  # a handler may raise too
        logging.getLogger("mks_hardening.observers").error(
            "the observer %s raised %s for %s; further errors of this kind are not logged for %d s\n%s",
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
    """Pass one event to all observers. An observer cannot emit events itself.

    An observer that raises is skipped, and logged by ``mks_hardening.observers`` with its traceback, at most once a
    minute: otherwise missing audit records would go unnoticed.
    """
    if _busy.get():
        return
    token = _busy.set(True)
    try:
        for observer in tuple(observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - an observer must never break the code that it observes
                _report(observer, event, error)
    finally:
        _busy.reset(token)
