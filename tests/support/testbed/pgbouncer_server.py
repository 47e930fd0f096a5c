"""A real PgBouncer in front of a PostgreSQL server."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path

import psycopg

from testbed.postgres_server import PostgresServer
from testbed.process import ServerProcess, start_on_free_port
from testbed.services import program, unprivileged


class PgBouncer:
    """One PgBouncer; all databases of the server are behind it.

    Args:
        server: the PostgreSQL server behind it.
        settings: settings of the section ``[pgbouncer]``; transaction mode with two server connections otherwise.
    """

    def __init__(self, server: PostgresServer, **settings: str) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self._server = server
        self._identity = unprivileged()
        self._settings = {"pool_mode": "transaction", "default_pool_size": "2", **settings}
        self.directory = Path(tempfile.mkdtemp(prefix="mks-pgbouncer-"))
        self._process: ServerProcess | None = None

    def start(self) -> None:
        """Start on a free port."""
        if self._identity:
            shutil.chown(self.directory, self._identity["user"])
        start_on_free_port(self._start_on)

    def _start_on(self, port: int) -> None:
        self.port = port
        users = self.directory / "users.txt"
        users.write_text(f'"{self._server.user}" ""\n')
        settings = {
            "listen_addr": self.host,
            "listen_port": str(port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            "admin_users": self._server.user,
            **self._settings,
        }
        lines = [f"* = host={self._server.host} port={self._server.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        config = self.directory / "pgbouncer.ini"
        config.write_text("\n".join(("[databases]", *lines, "")))
        self._process = ServerProcess(
            [program("pgbouncer"), str(config)],
            log=self.directory / "pgbouncer.log",
            ready=self._answers,
            stop_signal=signal.SIGTERM,
            identity=self._identity,
            cwd=self.directory,
        )
        self._process.start()

    def stop(self) -> None:
        """Stop, and remove the directory."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def through(self, url: str) -> str:
        """Return the same URL with the address of this PgBouncer."""
        direct = f"{self._server.host}:{self._server.port}"
        assert direct in url, url
        return url.replace(direct, f"{self.host}:{self.port}", 1)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(
                host=self.host, port=self.port, user=self._server.user, dbname="pgbouncer", autocommit=True
            ) as connection:
                connection.execute("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True
