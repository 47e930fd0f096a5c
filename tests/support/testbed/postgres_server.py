"""A real PostgreSQL cluster in its own directory."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from testbed.polling import wait_until
from testbed.process import ServerProcess, start_on_free_port
from testbed.services import program, unprivileged

_names = itertools.count(1)
# As in a new database. The loop drops extensions too: they stand in a schema.
_EMPTY = """
    SET lock_timeout = '5s';
    DO $$ DECLARE name text; BEGIN
        FOR name IN
            SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', name);
        END LOOP;
        EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
    END $$;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
"""


class PostgresServer:
    """One PostgreSQL without durability; every test gets its own database.

    The folder is made outside pytest's private one, because the server runs under an unprivileged account.

    Args:
        programs: folder of ``initdb`` and ``postgres``; by default those of this machine.
        options: server settings, for example ``{"max_connections": "20"}``.
    """

    def __init__(self, programs: Path | None = None, **options: str) -> None:
        self._programs = programs
        self.host = "127.0.0.1"
        self.port = 0
        self.user = "postgres"
        self.directory = Path(tempfile.mkdtemp(prefix="mks-postgres-"))
        self._identity = unprivileged()
        self._options = {
            "fsync": "off",
            "full_page_writes": "off",
            "listen_addresses": self.host,
            "unix_socket_directories": str(self.directory),
            "log_min_duration_statement": "-1",
            "max_connections": "60",
            "shared_buffers": "32MB",
            **options,
        }
        self._process: ServerProcess | None = None
        self._spare: list[str] = []

    @property
    def process(self) -> ServerProcess:
        """The process, for its id and its log."""
        assert self._process is not None, "the server was never started"
        return self._process

    def start(self) -> None:
        """Create the cluster if necessary, and start; after a stop, on the same port again."""
        if self.port:
            self._start_on(self.port)
            return
        self._make_cluster()
        start_on_free_port(self._start_on)

    def _make_cluster(self) -> None:
        command = [
            self._program("initdb"),
            "-D",
            str(self.directory / "data"),
            "-U",
            self.user,
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        self._run([*command, "--no-sync", "--locale=C.UTF-8"])

    def _program(self, name: str) -> str:
        return program(name) if self._programs is None else str(self._programs / name)

    def _run(self, command: list[str]) -> None:
        """Run a program of PostgreSQL in the directory of this server, under its account."""
        if self._identity:
            shutil.chown(self.directory, self._identity["user"])
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            timeout=120,
            cwd=self.directory,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            **self._identity,
        )

    def _start_on(self, port: int) -> None:
        self.port = port
        settings = {**self._options, "port": str(port)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = ServerProcess(
            [self._program("postgres"), "-D", str(self.directory / "data"), *arguments],
            log=self.directory / "postgres.log",
            ready=self._answers,
            stop_signal=signal.SIGINT,
            identity=self._identity,
            cwd=self.directory,
        )
        self._process.start(timeout=60)

    def stop(self) -> None:
        """Roll back open transactions, disconnect all clients and stop (SIGINT)."""
        self.process.stop()

    def kill(self) -> None:
        """Stop at once (SIGQUIT, including child processes), as in a crash."""
        self.process.signal(signal.SIGQUIT)
        self.process.stop()

    def restart(self) -> None:
        """Restart on the same port with the same data."""
        if self.process.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the postmaster: new connections hang, existing ones work."""
        self.process.pause()

    def freeze(self) -> None:
        """Freeze the postmaster and its children: existing connections hang too."""
        self.process.pause()
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue after ``pause`` or ``freeze``; no effect if it is not running."""
        if not self.process.running:
            return
        self._signal_children(signal.SIGCONT)
        self.process.resume()

    def _signal_children(self, number: signal.Signals) -> None:
        pid = self.process.pid
        with suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(child), number)

    def reset(self) -> None:
        """Return to the running state, whatever the last test did."""
        self.resume()
        if not self.process.running:
            self.start()

    def close(self) -> None:
        """Stop and remove the directory."""
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- use

    def dsn(self, database: str = "postgres") -> str:
        """Return the connection string for psycopg."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{database}"

    def url(self, database: str, *, driver: str = "psycopg") -> str:
        """Return the URL for SQLAlchemy."""
        return self.dsn(database).replace("://", f"+{driver}://", 1)

    def execute(
        self, statement: str, *parameters: object, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction, as the superuser, on a new connection."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self) -> str:
        """Return the name of an empty database; used ones are preferred, as creating one takes 0.1 s."""
        if self._spare:
            return self._spare.pop()
        name = f"test_{os.getpid()}_{next(_names)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def give_back_database(self, name: str) -> None:
        """Empty a database for the next test; drop it if that is not possible."""
        try:
            self.disconnect_all(name)
            self.execute(_EMPTY, database=name)
        except psycopg.Error:
            self.drop_database(name)
        else:
            self._spare.append(name)

    def copy_database(self, template: str, name: str) -> None:
        """Replace a database by a copy of another one, which is disconnected."""
        self.drop_database(name)
        self.disconnect_all(template)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")

    def drop_database(self, name: str) -> None:
        """Remove a database and disconnect its clients."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def disconnect_all(self, database: str) -> None:
        """Terminate every connection to a database, as a failover or an administrator does."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", database)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class PostgresStandby(PostgresServer):
    """A streaming standby of another server; its databases are those of the primary.

    Args:
        primary: running server.
        options: server settings.
    """

    def __init__(self, primary: PostgresServer, **options: str) -> None:
        super().__init__(**options)
        self._primary = primary

    def _make_cluster(self) -> None:
        source = ["--host", self._primary.host, "--port", str(self._primary.port), "--username", self.user]
        # -R writes where to stream from; the copy waits for a checkpoint, which is asked for at once.
        self._run(
            [
                program("pg_basebackup"),
                *source,
                "-D",
                "data",
                "-R",
                "--checkpoint=fast",
                "--no-sync",
                "-X",
                "stream",
            ]
        )

    def pause_replay(self) -> None:
        """Stop replaying: the standby goes on receiving and serving reads, and lags."""
        self.execute("SELECT pg_wal_replay_pause()")
        wait_until(
            lambda: self.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)], what="the pause"
        )

    def resume_replay(self) -> None:
        """Replay what was received meanwhile."""
        self.execute("SELECT pg_wal_replay_resume()")

    def promote(self) -> None:
        """Make it a primary of its own, on a new timeline."""
        self.execute("SELECT pg_promote()")
