"""Against a split brain: a former primary stops itself as soon as it sees that another server has taken over.

The newest timeline decides. PostgreSQL begins a new one when a standby takes over, and the former primary does not
notice it (PostgreSQL manual, "Timelines").
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_deploy.operations.database_hosts import TIMELINE, replication_connection
from mks_deploy.operations.release import ReleaseError

if TYPE_CHECKING:
    import psycopg

    from mks_deploy.settings.definitions import Host, Settings

__all__ = ["PrimaryGuard"]

_QUERY: Final = f"SELECT (SELECT system_identifier FROM pg_control_system()), {TIMELINE}"  # noqa: S608 - constants
_PAUSE: Final = 1
"""Seconds between two looks at the other servers."""
_STOP: Final = 600
"""Seconds that a server may take to stop; its connections end at once."""
_LIMITS: Final = "tcp_user_timeout=3000 keepalives_idle=1 keepalives_interval=1 keepalives_count=3"


class _Primary(NamedTuple):
    system: int
    timeline: int


class PrimaryGuard:
    """Looks at the servers of the database for the one of this host.

    Args:
        settings: settings as seen from this host.
        data: folder of the cluster of this host.
        stop: stops the server of this host; by default with ``pg_ctl``.
        pause: sleeps for a number of seconds.
    """

    def __init__(
        self,
        settings: Settings,
        data: Path,
        *,
        stop: Callable[[], None] | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings = settings
        self._data = data
        self._stop = stop or self._stop_server
        self._pause = pause
        self._connections: dict[str, psycopg.Connection] = {}

    def wait_for_newer(self) -> str:
        """Wait until another server has taken over from this one; return the name of its host."""
        while not (found := self.newer_primary()):
            self._pause(_PAUSE)
        return found

    def newer_primary(self) -> str:
        """Return the host that has taken over from this server; empty if none has, or this one takes no writes."""
        if self._settings.here is None or (own := self._read(self._settings.here)) is None:
            return ""
        for host in self._settings.with_role("database", "standby"):
            other = self._read(host) if host is not self._settings.here else None
            if other is not None and other.system == own.system and other.timeline > own.timeline:
                return host.name
        return ""

    def fence(self) -> None:
        """Stop the server of this host; whoever starts it, it takes no writes.

        Raises:
            ReleaseError: it did not stop.
            OSError: the file could not be written.
        """
        # First the file: should this end here, a start makes no second primary.
        (self._data / "standby.signal").touch(mode=0o600)
        self._stop()

    def close(self) -> None:
        """Close the connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    def _read(self, host: Host) -> _Primary | None:
        """Return what a server is; ``None`` if it takes no writes or cannot be reached."""
        import psycopg

        connection = self._connections.pop(host.name, None)
        try:
            if connection is None or connection.closed:
                place = replication_connection(self._settings, host.address, connect_timeout=2)
                connection = psycopg.connect(f"{place} dbname=postgres {_LIMITS}", autocommit=True)
            row = connection.execute(_QUERY).fetchone()
        except psycopg.Error:
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()
            return None
        self._connections[host.name] = connection
        return _Primary(*row) if row and row[1] else None

    def _stop_server(self) -> None:
        program = f"/usr/lib/postgresql/{self._data.parent.name}/bin/pg_ctl"
        words = [program, "stop", "-D", str(self._data), "-m", "fast", "-t", str(_STOP)]
        if code := subprocess.run(words, check=False, cwd="/").returncode:  # noqa: S603 - fixed words, no shell
            raise ReleaseError(f"pg_ctl did not stop {self._data}, and ended with {code}")
