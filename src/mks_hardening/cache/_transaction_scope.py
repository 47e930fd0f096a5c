"""Transactions that are open in the current context: what they change is not cached until they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import Final

__all__ = ["TransactionScope", "current_scopes", "enter_scope", "entered_scopes", "leave_scope"]

Scopes = tuple["TransactionScope", ...]

_current: Final[ContextVar[Scopes]] = ContextVar("mks_hardening.cache.transactions", default=())


class TransactionScope:
    """What one transaction invalidates. State without I/O.

    Args:
        is_active: returns whether the transaction is still active; None: until ``close`` is called.

    Attributes:
        keys: keys that it invalidates.
        tags: tags that it invalidates.
    """

    __slots__ = ("_has_ended", "_is_active", "keys", "tags")

    def __init__(self, is_active: Callable[[], object] | None = None) -> None:
        self._is_active = is_active
        self._has_ended = False
        self.keys: set[str] = set()
        self.tags: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether the transaction has not ended."""
        return not self._has_ended and (self._is_active is None or bool(self._is_active()))

    def close(self) -> None:
        """Record that the transaction has ended."""
        self._has_ended = True

    def covers(self, key: str, tags: Iterable[str]) -> bool:
        """Return whether the transaction changes what an entry was made from."""
        return key in self.keys or not self.tags.isdisjoint(tags)


entered_scopes: Final = _current.get
"""Return the transactions of this context, also those that have ended: the quickest test whether there are any."""


def current_scopes() -> Scopes:
    """Return the open transactions of this context."""
    scopes = entered_scopes()
    return tuple(scope for scope in scopes if scope.is_open) if scopes else scopes


def enter_scope(scope: TransactionScope) -> Token[Scopes]:
    """Add a transaction to this context; those that have ended are dropped."""
    return _current.set((*current_scopes(), scope))


def leave_scope(token: Token[Scopes]) -> None:
    """Restore the transactions of this context."""
    _current.reset(token)
