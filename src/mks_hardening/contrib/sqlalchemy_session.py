"""Cache invalidations after the COMMIT of a SQLAlchemy session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import instance
from mks_hardening._core.optional_imports import optional
from mks_hardening.cache import AfterCommit, BaseCache, CacheTransaction
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["after_commit", "invalidate_after_commit"]

_WAITING: Final = "mks_hardening.after_commit"
_CHANGES: Final = "mks_hardening.cache_transactions"
_LISTENS: Final = "mks_hardening.after_commit_listens"


def invalidate_after_commit(
    session: Session | AsyncSession, *keys: str, cache: BaseCache, tags: Iterable[str] = ()
) -> None:
    """Invalidate entries of a cache when the session's transaction has ended.

    Call it in the transaction that makes the change, before or after the change::

        article.title = "New"
        invalidate_after_commit(session, cache=cache, tags=["articles"])
        session.commit()

    Until the outermost transaction ends, by COMMIT or by ROLLBACK, cached functions called in this context compute
    what it changes, and store nothing (see ``CacheTransaction``). A transaction is begun if none is active.

    Args:
        session: a ``Session``, a ``scoped_session``, or an ``AsyncSession`` in a transaction.
        keys: keys, for example ``function.cache_key(7)``.
        cache: the cache.
        tags: tags of entries.

    Raises:
        ConfigurationError: not a session of SQLAlchemy, not a cache, or an invalid key or tag.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy.ext.asyncio import AsyncSession

    given: Any = session
    is_async = isinstance(given, AsyncSession)
    own = _checked_session(given.sync_session if is_async else given)
    chosen = instance(cache, BaseCache, parameter="cache")
    changes: dict[BaseCache, CacheTransaction] = own.info.setdefault(_CHANGES, {})
    change = changes.get(chosen)
    if change is None:
        change = CacheTransaction(chosen)
        change.invalidate(*keys, tags=tags)  # before anything is registered: it may be invalid
        changes[chosen] = change
        change.begin()
        end = partial(_end_on_loop, change) if is_async else change.end
        after_commit(own).add(_end_change, own, chosen, end)
    else:
        change.invalidate(*keys, tags=tags)


def _end_change(session: Session, cache: BaseCache, end: Callable[[], None]) -> None:
    session.info.get(_CHANGES, {}).pop(cache, None)
    end()


def _end_on_loop(change: CacheTransaction) -> None:
    """End a change in the greenlet of an ``AsyncSession``, without blocking the event loop."""
    from sqlalchemy.exc import MissingGreenlet
    from sqlalchemy.util import await_only

    try:
        await_only(change.aend())
    except MissingGreenlet:  # for example a session that the garbage collector closes
        change.end()


def after_commit(session: Session) -> AfterCommit:
    """Return the collector of calls to run after the session's transaction.

    Use it in the transaction that makes the change::

        article.title = "New"
        after_commit(session).add(cache.invalidate_tags, "articles")
        session.commit()

    The calls run when the outermost transaction has ended, by COMMIT or by ROLLBACK (after which an invalidation is
    unnecessary but harmless). A transaction is begun if none is active. An ``AsyncSession`` is rejected, because
    its events cannot await: use ``AfterCommit`` around ``session.begin()``.

    Args:
        session: a ``Session`` or a ``scoped_session``.

    Raises:
        ConfigurationError: it is not a SQLAlchemy session, or it is one for asyncio.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import event

    own = _checked_session(session)
    if not own.in_transaction():
        own.begin()
    if _LISTENS not in own.info:
        own.info[_LISTENS] = True
        event.listen(own, "after_transaction_end", _ended)
    waiting: AfterCommit = own.info.setdefault(_WAITING, AfterCommit())
    return waiting


def _checked_session(given: Any) -> Session:
    from sqlalchemy.orm import Session, scoped_session

    kinds: tuple[Any, Any] = (Session, scoped_session)
    own: Any = given() if isinstance(given, kinds[1]) else given
    if not isinstance(own, kinds[0]):
        raise ConfigurationError(
            f"session must be a Session of SQLAlchemy, not {type(given).__name__}; with asyncio use "
            "`async with AfterCommit() as later, session.begin()`",
            parameter="session",
        )
    session: Session = own
    return session


def _ended(session: Session, transaction: SessionTransaction) -> None:
    # A SAVEPOINT's transaction has a parent, which is not committed yet.
    if transaction.parent is None:
        waiting: AfterCommit | None = session.info.pop(_WAITING, None)
        if waiting is not None:
            waiting.run()
