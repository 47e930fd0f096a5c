"""Sessions of the primary that can read from a replica without missing their own writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.checks import instance
from mks_hardening._core.operations import Call, Op, arun, run
from mks_hardening._core.optional_imports import optional
from mks_hardening.db import ReadReplicas, ReadToken
from mks_hardening.exceptions import ConfigurationError

with optional("sqlalchemy", extra="db"):
    from sqlalchemy import event
    from sqlalchemy.orm import Session
with optional("greenlet", extra="db"):
    import greenlet  # noqa: F401 - SQLAlchemy reports its absence as an ImportError of its own
with optional("sqlalchemy", extra="db"):
    from sqlalchemy.ext.asyncio import AsyncSession

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["AsyncReplicaSession", "ReplicaSession"]

_COMMITTED: Final = "mks_hardening.committed"
# NULL until the transaction writes; a read-only one never gets a number.
_WRITES: Final = "SELECT txid_current_if_assigned() IS NOT NULL"


class _NotedCommits(Session):
    """Session that notes that it has committed since its last token."""


@event.listens_for(_NotedCommits, "after_commit")
def _note(session: Session) -> None:
    session.info[_COMMITTED] = True


class _Writes:
    """Effect that returns whether the transaction of a session has written."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self) -> bool:
        """Ask in this thread."""
        return bool(self._session.connection().exec_driver_sql(_WRITES).scalar())

    async def arun(self) -> bool:
        """Ask on the event loop."""
        return bool((await (await self._session.connection()).exec_driver_sql(_WRITES)).scalar())


class _Reads:
    """Where one session reads.

    Args:
        replicas: choice of engines.
        session: session of either kind.
        after: token of an earlier session.
    """

    def __init__(self, replicas: ReadReplicas[Any], session: Any, after: ReadToken | None) -> None:
        self._replicas = replicas
        self._session = session
        self._is_async = hasattr(session, "sync_session")
        self._info: dict[Any, Any] = session.info
        self._after = after if after is None else instance(after, ReadToken, parameter="after")

    def token(self) -> Op[ReadToken | None]:
        """Take the token of what the session must see."""
        if self._info.pop(_COMMITTED, False):
            try:
                self._after = yield Call(self._replicas.atoken if self._is_async else self._replicas.token)
            except BaseException:
                self._info[_COMMITTED] = True
                raise
        return self._after

    def engine(self) -> Op[Any]:
        """Choose an engine; ``None`` if only the session's own transaction has what it wrote."""
        session = self._session
        if session.new or session.dirty or session.deleted:
            return None
        if session.in_transaction() and (yield _Writes(session)):
            return None
        after = yield from self.token()
        choose: Any = self._replicas.aengine if self._is_async else self._replicas.engine
        engine = yield Call(partial(choose, after=after))
        # The fall-back refuses writes too; otherwise they would only fail while a replica is available.
        return engine.execution_options(postgresql_readonly=True)


def _bound(replicas: ReadReplicas[Any], options: dict[str, Any], *, is_async: bool) -> dict[str, Any]:
    """Options of a session that is bound to the primary; factories pass a bind, too."""
    instance(replicas, ReadReplicas, parameter="replicas")
    engine: Any = replicas.primary
    if hasattr(engine, "sync_engine") is not is_async:
        raise ConfigurationError(
            f"replicas must have {'asynchronous' if is_async else 'synchronous'} engines",
            parameter="replicas",
        )
    if options.get("bind") not in {None, engine}:
        raise ConfigurationError("bind must be the primary of replicas, or omitted", parameter="bind")
    return {**options, "bind": engine}


class ReplicaSession(_NotedCommits):
    """SQLAlchemy session of the primary, of which ``on_replica`` reads from a replica.

    It knows what it has written by its transactions: writes under AUTOCOMMIT, and those on other connections, may
    be missing from a replica.

    Create it by a factory, as other sessions::

        Sessions = sessionmaker(class_=ReplicaSession, replicas=replicas)
        with Sessions() as session:
            session.add(order)
            session.commit()
            with session.on_replica() as reading:
                orders = reading.scalars(select(Order)).all()

    Args:
        replicas: choice of engines; the session is bound to its primary.
        after: token of an earlier session, whose writes the reads must see.
        **options: passed to ``sqlalchemy.orm.Session``.

    Raises:
        ConfigurationError: a parameter is invalid, or the engines are asynchronous.
        MissingDependencyError: SQLAlchemy is not installed.
    """

    def __init__(
        self, *, replicas: ReadReplicas[Engine], after: ReadToken | None = None, **options: Any
    ) -> None:
        super().__init__(**_bound(replicas, options, is_async=False))
        self._reads = _Reads(replicas, self, after)

    @contextmanager
    def on_replica(self) -> Generator[Session]:
        """Open a read-only session on a replica that has replayed all transactions of this session.

        If no replica has them in time, or none is available, it is a read-only session on the primary. If this
        session has changes that are not committed, it is this session itself.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the primary is not available to tell what it has committed.
        """
        engine = run(self._reads.engine())
        if engine is None:
            yield self
        else:
            with Session(engine) as reading:
                yield reading

    def read_token(self) -> ReadToken | None:
        """Return the token for later sessions (``after``), for example for the user's next request.

        Returns:
            a token of all that this session has committed; if it has committed nothing, the ``after`` it was given.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the primary is not available.
        """
        return run(self._reads.token())


class AsyncReplicaSession(AsyncSession):
    """``ReplicaSession`` for asyncio, for ``async_sessionmaker``.

    Args:
        replicas: choice of asynchronous engines; the session is bound to its primary.
        after: as for ``ReplicaSession``.
        **options: passed to ``sqlalchemy.ext.asyncio.AsyncSession``.

    Raises:
        ConfigurationError: a parameter is invalid, or the engines are synchronous.
        MissingDependencyError: SQLAlchemy or greenlet is not installed.
    """

    def __init__(
        self, *, replicas: ReadReplicas[AsyncEngine], after: ReadToken | None = None, **options: Any
    ) -> None:
        bound = _bound(replicas, options, is_async=True)
        super().__init__(sync_session_class=_NotedCommits, **bound)
        self._reads = _Reads(replicas, self, after)

    @asynccontextmanager
    async def on_replica(self) -> AsyncGenerator[AsyncSession]:
        """``ReplicaSession.on_replica`` for asyncio: ``async with session.on_replica() as reading``.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: as for ``ReplicaSession.on_replica``.
        """
        engine = await arun(self._reads.engine())
        if engine is None:
            yield self
        else:
            async with AsyncSession(engine) as reading:
                yield reading

    async def read_token(self) -> ReadToken | None:
        """``ReplicaSession.read_token`` for asyncio.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: as for ``ReplicaSession.read_token``.
        """
        return await arun(self._reads.token())
