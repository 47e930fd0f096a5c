"""An SQLAlchemy engine with every limit set: connections, waiting, statements, locks, dead peers."""

from __future__ import annotations

from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any, Final, cast

from mks_hardening._core.durations import seconds
from mks_hardening._core.lazy import optional
from mks_hardening.db.fork import guard_fork
from mks_hardening.db.pool import plan_pool
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

__all__ = ["hardened_engine"]

_DEFAULT_MAX_CONNECTIONS: Final = 100  # what PostgreSQL ships with
_LIBPQ_DRIVERS: Final = frozenset({"psycopg", "psycopg2"})
_QUEUE_OPTIONS: Final = frozenset({"pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"})


def hardened_engine(
    url: str | URL,
    *,
    workers: int = 1,
    threads: int = 1,
    max_connections: int | None = None,
    statement_timeout: float | timedelta = 30,
    lock_timeout: float | timedelta = 2,
    idle_in_transaction_timeout: float | timedelta = 60,
    client_deadline: float | timedelta = 2,
    application_name: str = "mks_hardening",
    **engine_options: Any,
) -> Engine:
    """Create an engine for SQLite or PostgreSQL that neither exhausts its server nor waits for ever.

    The pool is sized from processes and threads (``plan_pool``), tests a connection before use, prefers the one
    used last, and starts empty in forked children. Error texts carry no parameter values.

    Args:
        url: SQLAlchemy URL; a password in it appears in no repr and no error.
        workers: processes that make such an engine.
        threads: threads in each that use the database at the same time.
        max_connections: the server's limit or this application's share of it; left out: PostgreSQL's default, 100.
        statement_timeout: seconds after which PostgreSQL cancels a statement; 0 means never.
        lock_timeout: seconds a statement waits for a lock (PostgreSQL), or for another writer (SQLite).
        idle_in_transaction_timeout: seconds after which PostgreSQL ends a session that forgot its transaction.
        client_deadline: seconds to wait for a connection (libpq rounds up, to at least 2) and for a peer that no
            longer acknowledges data.
        application_name: how the connections are called in ``pg_stat_activity``.
        **engine_options: handed to ``sqlalchemy.create_engine``; explicit ``pool_*`` options win over the plan.

    Raises:
        ConfigurationError: a parameter is impossible, the URL cannot be read, or the processes do not fit.
        MissingDependencyError: SQLAlchemy is not installed.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import create_engine, event

    parsed = _parse(url)
    limits = _Limits(
        statement=_milliseconds(statement_timeout, "statement_timeout"),
        lock=_milliseconds(lock_timeout, "lock_timeout"),
        idle=_milliseconds(idle_in_transaction_timeout, "idle_in_transaction_timeout"),
        client=_milliseconds(client_deadline, "client_deadline"),
    )
    plan = plan_pool(
        workers=workers,
        threads=threads,
        max_connections=_DEFAULT_MAX_CONNECTIONS if max_connections is None else max_connections,
    )
    options: dict[str, Any] = {
        "hide_parameters": True,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_size": plan.pool_size,
        "max_overflow": plan.max_overflow,
        "pool_timeout": 5.0,
        "pool_use_lifo": True,
        **engine_options,
    }
    if not _has_queue(parsed, engine_options):
        options = {
            name: value
            for name, value in options.items()
            if name in engine_options or name not in _QUEUE_OPTIONS
        }
    if parsed.get_backend_name() == "postgresql":
        given = dict(options.get("connect_args", {}))
        options["connect_args"] = _libpq_options(parsed, limits, application_name, given)
    engine = create_engine(parsed, **options)
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine.pool, "connect", _sqlite_pragmas(limits.lock))
    guard_fork(engine)
    return engine


class _Limits:
    __slots__ = ("client", "idle", "lock", "statement")

    def __init__(self, *, statement: int, lock: int, idle: int, client: int) -> None:
        self.statement = statement
        self.lock = lock
        self.idle = idle
        self.client = client


def _milliseconds(value: float | timedelta, parameter: str) -> int:
    return ceil(seconds(value, parameter=parameter) * 1000)


def _parse(url: str | URL) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, ValueError):
        # SQLAlchemy's message quotes the URL with its password.
        raise ConfigurationError(
            f"url must be like postgresql+psycopg://host/name or sqlite:///file; this {type(url).__name__} is not",
            parameter="url",
        ) from None
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(
            f"url names a database or driver that is not installed: {error}", parameter="url"
        ) from None
    if parsed.get_backend_name() == "postgresql" and parsed.get_driver_name() not in _LIBPQ_DRIVERS:
        raise ConfigurationError(
            f"url must use postgresql+psycopg; the limits cannot be set through {parsed.get_driver_name()}",
            parameter="url",
        )
    return _password_in_its_place(parsed)


def _password_in_its_place(url: URL) -> URL:
    """PostgreSQL also takes the password as a query parameter, where SQLAlchemy would show it in every repr."""
    password = url.query.get("password")
    if not isinstance(password, str):
        return url
    return url.difference_update_query(["password"]).set(password=password)


def _has_queue(url: URL, given: dict[str, Any]) -> bool:
    """Whether the pool is a ``QueuePool``, the only kind that understands sizes."""
    from sqlalchemy.pool import QueuePool

    if "pool" in given:
        return False
    kind: type = given.get("poolclass") or cast("Any", url.get_dialect()).get_pool_class(url)
    return issubclass(kind, QueuePool)


def _libpq_options(url: URL, limits: _Limits, application_name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Connection options in libpq's own words; what the caller or the URL says comes last and so wins."""
    server = (
        f"-c statement_timeout={limits.statement} -c lock_timeout={limits.lock} "
        f"-c idle_in_transaction_session_timeout={limits.idle}"
    )
    from_url = url.query.get("options", "")
    theirs = given.pop("options", from_url if isinstance(from_url, str) else " ".join(from_url))
    defaults: dict[str, Any] = {"application_name": application_name}
    if limits.client:
        defaults |= {
            "connect_timeout": max(2, ceil(limits.client / 1000)),
            "tcp_user_timeout": limits.client,
            "keepalives": 1,
            "keepalives_idle": max(1, limits.client // 1000),
            "keepalives_interval": 1,
            "keepalives_count": 3,
        }
    kept = {name: value for name, value in defaults.items() if name not in url.query}
    return {**kept, **given, "options": f"{server} {theirs}".rstrip()}


def _sqlite_pragmas(busy_timeout: int) -> Any:
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        # The time-out comes first: switching to WAL takes a lock itself.
        cursor.execute(f"PRAGMA busy_timeout = {busy_timeout}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    return prepare
