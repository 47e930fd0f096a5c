"""Parsing of database URLs; error messages never quote them, since they contain a password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["parse_url"]

_BACKENDS: Final = frozenset({"postgresql", "sqlite"})
_DRIVERS: Final = {
    # Of PostgreSQL: the limits cannot be set through other drivers. SQLite allows every driver of SQLAlchemy.
    False: frozenset({"psycopg", "psycopg2"}),
    True: frozenset({"psycopg", "asyncpg"}),
}


def parse_url(url: str | URL, *, asynchronous: bool) -> URL:
    """Parse a URL and check that its database and driver support the limits.

    Raises:
        ConfigurationError: the URL is invalid, or names an unsupported database or driver, or a driver of the wrong
            kind (sync or async).
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        # psycopg is sync and async under one name; create_async_engine of SQLAlchemy asks the dialect the same way.
        dialect = parsed.get_dialect() if backend in _BACKENDS else None
        if dialect is not None and asynchronous:
            dialect = dialect.get_async_dialect_cls(parsed)
    except (ArgumentError, ValueError):
        # Not "from error": SQLAlchemy's message quotes the URL with its password.
        raise ConfigurationError(
            f"url must be like postgresql+psycopg://host/name or sqlite:///file; this {type(url).__name__} is not",
            parameter="url",
        ) from None
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(
            f"url names a database or driver that is not installed: {error}", parameter="url"
        ) from None
    if dialect is None:
        raise ConfigurationError(
            f"url must name postgresql or sqlite: on {backend} none of the limits would be set (statements, locks, "
            "idle transactions, unresponsive servers). Use sqlalchemy.create_engine with limits of its driver; "
            "guard_fork, SlowQueryMonitor, watch_queries and retry_on_serialization_failure work with any engine",
            parameter="url",
        )
    # An unknown driver would silently run without limits.
    driver = parsed.get_driver_name()
    if backend == "postgresql" and driver not in _DRIVERS[asynchronous]:
        raise ConfigurationError(
            f"url must use postgresql+psycopg; the limits cannot be set through {driver} "
            f"{'with' if asynchronous else 'without'} asyncio",
            parameter="url",
        )
    if dialect.is_async is not asynchronous:
        maker = "hardened_engine" if asynchronous else "hardened_async_engine"
        raise ConfigurationError(f"url names the driver {driver}, which is one for {maker}", parameter="url")
    return _move_password(parsed)


def _move_password(url: URL) -> URL:
    """Move a ``password`` query parameter into the password field; SQLAlchemy would show it in every repr."""
    password = url.query.get("password")
    if not isinstance(password, str):
        return url
    return url.difference_update_query(["password"]).set(password=password)
