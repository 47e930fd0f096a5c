"""Connection limits as options of each driver."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.engine.interfaces import DBAPIConnection

__all__ = ["ConnectionLimits", "asyncpg_options", "libpq_options", "sqlite_pragmas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Time limits of a connection in milliseconds; 0 means no limit."""

    statement: int
    lock: int
    idle: int
    client: int

    @property
    def of_server(self) -> dict[str, str]:
        """Session settings of PostgreSQL."""
        return {
            "statement_timeout": str(self.statement),
            "lock_timeout": str(self.lock),
            "idle_in_transaction_session_timeout": str(self.idle),
        }


def libpq_options(
    url: URL,
    limits: ConnectionLimits,
    application_name: str,
    given: dict[str, object],
    *,
    startup_limits: bool = True,
) -> dict[str, object]:
    """Connection options for libpq; options of the caller or the URL override the defaults.

    Args:
        url: URL of the database.
        limits: limits of the connection.
        application_name: name in ``pg_stat_activity``.
        given: options of the caller.
        startup_limits: whether the server accepts the limits when the connection is opened; a pooler does not.
    """
    # In the startup packet: this needs no round trip, and a session reset does not lose them.
    of_server = limits.of_server.items() if startup_limits else ()
    server = " ".join(f"-c {name}={value}" for name, value in of_server)
    from_url = url.query.get("options", "")
    of_caller = given.pop("options", from_url if isinstance(from_url, str) else " ".join(from_url))
    defaults: dict[str, object] = {"application_name": application_name}
    if limits.client:
        defaults |= {
            "connect_timeout": max(2, ceil(limits.client / 1000)),  # libpq raises 1 to 2
            # The kernel detects a dead network, but not a stopped server (see ``_client_deadline``).
            "tcp_user_timeout": limits.client,
            "keepalives": 1,
            "keepalives_idle": max(1, limits.client // 1000),
            "keepalives_interval": 1,
            "keepalives_count": 3,
        }
    unset = {name: value for name, value in defaults.items() if name not in url.query}
    options = f"{server} {of_caller}".strip()
    return {**unset, **given, **({"options": options} if options else {})}


def asyncpg_options(
    limits: ConnectionLimits,
    application_name: str,
    given: dict[str, object],
    *,
    startup_limits: bool = True,
) -> dict[str, object]:
    """Connection options for asyncpg; the parameters are those of ``libpq_options``."""
    settings = {
        **(limits.of_server if startup_limits else {}),
        "application_name": application_name,
        **cast("dict[str, str]", given.pop("server_settings", {})),
    }
    patience = {"timeout": limits.client / 1000} if limits.client else {}
    return {**patience, **given, "server_settings": settings}


def sqlite_pragmas(connection: DBAPIConnection, busy_timeout: int) -> None:
    """Set the pragmas that SQLite does not persist; needed for each new connection."""
    cursor = connection.cursor()
    # The timeout comes first: switching to WAL takes a lock.
    cursor.execute(f"PRAGMA busy_timeout = {busy_timeout}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
