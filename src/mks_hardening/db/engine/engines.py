"""SQLAlchemy engines with every limit set: pool, waits, statements, locks, unresponsive servers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeVar

from mks_hardening._core.checks import boolean, text_of
from mks_hardening._core.durations import seconds
from mks_hardening._core.optional_imports import optional
from mks_hardening.db.engine._asyncpg_errors import convert_connection_errors
from mks_hardening.db.engine._client_deadline import ClientDeadline
from mks_hardening.db.engine._connect_options import (
    ConnectionLimits,
    asyncpg_options,
    libpq_options,
    sqlite_pragmas,
)
from mks_hardening.db.engine._session_reset import refuse_session_state, reset_session_state
from mks_hardening.db.engine._sqlite_transactions import begin_transactions
from mks_hardening.db.engine._supervised_drivers import psycopg2_connection, supervise
from mks_hardening.db.engine._transaction_outcome import record_outcomes
from mks_hardening.db.engine._transaction_pooling import (
    detect_pooler,
    set_limits_at_begin,
    unprepared_options,
)
from mks_hardening.db.engine._url import parse_url
from mks_hardening.db.engine.fork_guard import guard_fork
from mks_hardening.db.engine.pool_size import PoolPlan, plan_pool

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["hardened_async_engine", "hardened_engine"]

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULT_MAX_CONNECTIONS: Final = 100  # default of PostgreSQL
_QUEUE_OPTIONS: Final = frozenset({"pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"})


class _EngineParts(NamedTuple):
    """What an engine is created with, sync or async."""

    options: dict[str, Any]
    limits: ConnectionLimits
    deadline: ClientDeadline | None
    transaction_pooling: bool


def _engine_parts(
    url: str | URL,
    *,
    workers: int = 1,
    threads: int = 1,
    max_connections: int | None = None,
    generations: int = 1,
    statement_timeout: float | timedelta = 30,
    lock_timeout: float | timedelta = 2,
    idle_in_transaction_timeout: float | timedelta = 60,
    client_deadline: float | timedelta = 2,
    application_name: str = "mks_hardening",
    transaction_pooling: bool = False,
    **engine_options: Any,
) -> _EngineParts:
    """Check the parameters of ``hardened_engine`` and ``hardened_async_engine``, and compute the options."""
    from sqlalchemy import make_url

    parsed = make_url(url)
    text_of(application_name, parameter="application_name")
    boolean(transaction_pooling, parameter="transaction_pooling")
    limits = ConnectionLimits(
        statement=_milliseconds(statement_timeout, "statement_timeout"),
        lock=_milliseconds(lock_timeout, "lock_timeout"),
        idle=_milliseconds(idle_in_transaction_timeout, "idle_in_transaction_timeout"),
        client=_milliseconds(client_deadline, "client_deadline"),
    )
    deadline = ClientDeadline(limits.client / 1000) if limits.client else None
    plan = plan_pool(
        workers=workers,
        threads=threads,
        max_connections=_DEFAULT_MAX_CONNECTIONS if max_connections is None else max_connections,
        generations=generations,
    )
    options = _options(parsed, engine_options, plan)
    if parsed.get_backend_name() == "postgresql":
        given = dict(options.get("connect_args", {}))
        driver = parsed.get_driver_name()
        at_startup = not transaction_pooling
        if transaction_pooling:
            given = {**unprepared_options(driver), **given}
        if driver == "asyncpg":
            given = asyncpg_options(limits, application_name, given, startup_limits=at_startup)
        else:
            given = libpq_options(parsed, limits, application_name, given, startup_limits=at_startup)
        options["connect_args"] = given
        if driver == "psycopg2" and deadline:
            extensions = parsed.get_dialect().import_dbapi().extensions
            factory = psycopg2_connection(extensions, given.get("connection_factory"), deadline)
            options["connect_args"]["connection_factory"] = factory
    return _EngineParts(options, limits, deadline, transaction_pooling)


def _same_parameters(template: Callable[P, object]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function the parameters of ``template``, for readers and type checkers."""

    def adopt(function: Callable[..., R]) -> Callable[P, R]:
        result = signature(function).return_annotation
        vars(function)["__signature__"] = signature(template).replace(return_annotation=result)
        return function

    return adopt


@_same_parameters(_engine_parts)
def hardened_engine(url: str | URL, **engine_options: Any) -> Engine:
    """Create an engine for SQLite or PostgreSQL that neither exhausts the server nor waits forever.

    The pool is sized from the number of processes and threads (``plan_pool``), checks each connection at checkout
    (one round trip; ``pool_pre_ping=False`` saves it), prefers the most recently used connection, and is empty in
    forked children. Error messages contain no parameters; values that a driver quotes in its message reach no log
    and no alert.

    A connection returns to the pool without the settings, advisory locks and temporary tables that statements left
    in its session on PostgreSQL.

    On SQLite each transaction starts with BEGIN, so it also covers reads, DDL and savepoints. A transaction that
    reads before it writes should set the execution option ``sqlite_transaction_mode="IMMEDIATE"``; it then waits
    for its turn (``lock_timeout``). Without it, SQLite rejects the write ("database is locked") if another writer
    was faster; ``retry_on_serialization_failure`` then runs the transaction again. ``isolation_level="AUTOCOMMIT"``
    sends no BEGIN; VACUUM needs it. The levels ``READ COMMITTED`` and ``REPEATABLE READ`` are accepted as on
    PostgreSQL; SQLite satisfies them, because its transactions are serializable.

    Args:
        url: SQLAlchemy URL, for PostgreSQL with psycopg or psycopg2; a password in it appears in no repr and no
            error.
        workers: number of processes that create such an engine.
        threads: threads per process that use the database at the same time.
        max_connections: the server's limit, or this application's share of it; None means PostgreSQL's default,
            100.
        generations: 2 if a release starts the new workers before the old ones have ended; see ``plan_pool``.
        statement_timeout: seconds after which PostgreSQL cancels a statement; 0 disables the limit.
        lock_timeout: seconds a statement waits for a lock (PostgreSQL) or for another writer (SQLite).
        idle_in_transaction_timeout: seconds after which PostgreSQL ends a session that is idle in a transaction.
        client_deadline: seconds within which a PostgreSQL server must respond: while an operation on an open
            connection runs, the server's address is probed, and the operation fails if there is no response. A
            statement may take longer while the server responds. Opening a connection takes at most this long for
            each address of the host (libpq rounds up, to at least 2). 0 disables the limit. A pooler that responds
            on behalf of a stopped server counts as the server.
        application_name: name of the connections in ``pg_stat_activity``.
        transaction_pooling: True if a pooler in transaction mode, such as PgBouncer, is between the application and
            PostgreSQL. The limits are then set at the start of each transaction (one more round trip), the driver
            prepares no statements, and a statement whose effect would reach other clients is rejected with a
            ``ConfigurationError``: SET without LOCAL, session-level advisory locks, LISTEN, PREPARE, temporary
            tables without ON COMMIT DROP, cursors WITH HOLD.
        **engine_options: passed to ``sqlalchemy.create_engine``; explicit ``pool_*`` options override the computed
            pool size.

    Raises:
        ConfigurationError: a parameter is invalid, the URL cannot be parsed or names another database, or there are
            too many processes for the connections.
        MissingDependencyError: SQLAlchemy is not installed.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import create_engine

    parsed = parse_url(url, asynchronous=False)
    parts = _engine_parts(parsed, **engine_options)
    engine = create_engine(parsed, **parts.options)
    _attach_listeners(engine, parts)
    return engine


@_same_parameters(_engine_parts)
def hardened_async_engine(url: str | URL, **engine_options: Any) -> AsyncEngine:
    """``hardened_engine`` for asyncio: PostgreSQL with psycopg or asyncpg, SQLite with aiosqlite.

    A stopped server does not block the event loop: a separate thread probes its address. With asyncpg, too, a lost
    connection raises ``OperationalError``.

    Args:
        url: SQLAlchemy URL.
        workers: number of processes that create such an engine.
        threads: tasks per process that use the database at the same time.
        max_connections: as for ``hardened_engine``.
        generations: as for ``hardened_engine``.
        statement_timeout: as for ``hardened_engine``.
        lock_timeout: as for ``hardened_engine``.
        idle_in_transaction_timeout: as for ``hardened_engine``.
        client_deadline: as for ``hardened_engine``.
        application_name: as for ``hardened_engine``.
        transaction_pooling: as for ``hardened_engine``.
        **engine_options: passed to ``sqlalchemy.ext.asyncio.create_async_engine``.

    Raises:
        ConfigurationError: a parameter is invalid, the URL cannot be parsed, or there are too many processes for
            the connections.
        MissingDependencyError: SQLAlchemy or greenlet is not installed.
    """
    with optional("greenlet", extra="db"):
        import greenlet  # noqa: F401 - SQLAlchemy reports its absence as an ImportError of its own
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy.ext.asyncio import create_async_engine

    parsed = parse_url(url, asynchronous=True)
    parts = _engine_parts(parsed, **engine_options)
    engine = create_async_engine(parsed, **parts.options)
    _attach_listeners(engine.sync_engine, parts)
    return engine


def _milliseconds(value: float | timedelta, parameter: str) -> int:
    return ceil(seconds(value, parameter=parameter) * 1000)


def _options(url: URL, given: dict[str, Any], plan: PoolPlan) -> dict[str, Any]:
    """Options for ``create_engine``: the defaults, overridden by those of the caller."""
    options: dict[str, Any] = {
        # Otherwise every error message contains the values: "[parameters: (...)]".
        "hide_parameters": True,
        # One round trip per checkout, 34 microseconds on loopback (benchmarks/db.py). Pinging only idle connections
        # would save it under load, but then a server restart would fail one request in each process.
        "pool_pre_ping": True,
        # Below the idle timeouts of common firewalls and load balancers.
        "pool_recycle": 1800,
        "pool_size": plan.pool_size,
        "max_overflow": plan.max_overflow,
        # SQLAlchemy's default is 30 s; by then the client has given up.
        "pool_timeout": 5.0,
        # The most recently used connection is warm; surplus connections become idle and are recycled.
        "pool_use_lifo": True,
        **given,
    }
    if _has_queue(url, given):
        return options
    return {name: value for name, value in options.items() if name in given or name not in _QUEUE_OPTIONS}


def _has_queue(url: URL, given: dict[str, Any]) -> bool:
    """Whether the pool is a ``QueuePool``, the only kind that accepts size options."""
    from sqlalchemy.pool import QueuePool

    if "pool" in given:
        return False
    dialect: Any = url.get_dialect()  # its type stub lacks get_pool_class
    kind: type = given.get("poolclass") or dialect.get_pool_class(url)
    return issubclass(kind, QueuePool)


def _attach_listeners(engine: Engine, parts: _EngineParts) -> None:
    """Attach the listeners that configure and supervise each connection of the engine."""
    from sqlalchemy import event

    if engine.dialect.name == "sqlite":

        def connected(connection: DBAPIConnection, _record: object) -> None:
            sqlite_pragmas(connection, parts.limits.lock)

        event.listen(engine.pool, "connect", connected)
        begin_transactions(engine)
    else:
        record_outcomes(engine)
        if parts.transaction_pooling:
            set_limits_at_begin(engine, parts.limits)
            refuse_session_state(engine)
        else:
            detect_pooler(engine, parts.limits)
            reset_session_state(engine)
        if engine.dialect.driver == "asyncpg":
            convert_connection_errors(engine)
        if parts.deadline is not None:
            supervise(engine, parts.deadline)
    guard_fork(engine)
