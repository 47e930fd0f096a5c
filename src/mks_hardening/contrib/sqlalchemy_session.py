"""Cache invalidations after the COMMIT of a SQLAlchemy session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.optional_imports import optional
from mks_hardening.cache import AfterCommit
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

__all__ = ["after_commit"]

_WAITING: Final = "mks_hardening.after_commit"
_LISTENS: Final = "mks_hardening.after_commit_listens"


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
        from sqlalchemy.orm import Session, scoped_session

    given: Any = session
    kinds: tuple[Any, Any] = (Session, scoped_session)
    own: Any = given() if isinstance(given, kinds[1]) else given
    if not isinstance(own, kinds[0]):
        raise ConfigurationError(
            f"session must be a Session of SQLAlchemy, not {type(given).__name__}; with asyncio use "
            "`async with AfterCommit() as later, session.begin()`",
            parameter="session",
        )
    if not own.in_transaction():
        own.begin()
    if _LISTENS not in own.info:
        own.info[_LISTENS] = True
        event.listen(own, "after_transaction_end", _ended)
    waiting: AfterCommit = own.info.setdefault(_WAITING, AfterCommit())
    return waiting


def _ended(session: Session, transaction: SessionTransaction) -> None:
    # A SAVEPOINT's transaction has a parent, which is not committed yet.
    if transaction.parent is None:
        waiting: AfterCommit | None = session.info.pop(_WAITING, None)
        if waiting is not None:
            waiting.run()
