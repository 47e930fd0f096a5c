"""A real redis-server."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from testbed.certificates import Certificates
from testbed.process import ServerProcess, start_on_free_port
from testbed.services import program

ONE_TRY: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 0)}


class RedisServer:
    """One redis-server without persistence.

    Args:
        directory: where its log and socket go.
        password: password of the default user.
        certificates: speak TLS (only) with these.
        unix_socket: also listen on a socket file (``.unix_url``).
        options: further configuration, written as in redis.conf, for example ``{"maxclients": "10"}``.
        movable_clock: whether ``move_clock`` can be used, which needs a C compiler.
        engine: name or path of the program; Valkey and other versions take the same configuration.
    """

    _mode: tuple[str, ...] = ()
    _defaults: Mapping[str, str] = MappingProxyType(
        {"save": '""', "appendonly": "no", "enable-debug-command": "yes", "repl-diskless-sync-delay": "0"}
    )

    def __init__(
        self,
        directory: Path,
        *,
        password: str | None = None,
        certificates: Certificates | None = None,
        unix_socket: bool = False,
        options: Mapping[str, str] | None = None,
        movable_clock: bool = False,
        engine: str = "redis-server",
    ) -> None:
        self._engine = engine
        self._movable_clock = movable_clock
        directory.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = 0
        self.directory = directory
        self.password = password
        self.certificates = certificates
        self.socket_path = directory / "redis.sock"
        self._options = {**self._defaults, **(options or {})}
        if unix_socket:
            self._options["unixsocket"] = f'"{self.socket_path}"'
        self._process: ServerProcess | None = None
        self._initial: dict[str, str] = {}

    # --- addresses

    @property
    def url(self) -> str:
        """URL of database 0, with the password of the default user if there is one."""
        return self.url_for(password=self.password)

    def url_for(self, *, user: str = "", password: str | None = None, database: int = 0) -> str:
        """Return the URL for an account."""
        scheme = "rediss" if self.certificates else "redis"
        account = f"{user}:{quote(password, safe='')}@" if password else ""
        return f"{scheme}://{account}{self.host}:{self.port}/{database}"

    @property
    def unix_url(self) -> str:
        """URL of the socket file."""
        return f"unix://{self.socket_path}"

    @property
    def bus_port(self) -> int:
        """Return the port of the cluster bus."""
        return int(self._options["cluster-port"])

    @property
    def process(self) -> ServerProcess:
        """The process, for its id, its log and unusual signals."""
        assert self._process is not None, "the server was never started"
        return self._process

    # --- life

    def start(self) -> None:
        """Start on a free port; after a stop, on the same port again."""
        if self.port:
            self._start_on(self.port)
            return
        start_on_free_port(self._start_on)
        self._initial = self._configuration()

    def _start_on(self, port: int) -> None:
        self.port = port
        if self._options.get("save") == '""':  # what a replica or DEBUG RELOAD has left is not to come back
            (self.directory / "dump.rdb").unlink(missing_ok=True)
        config = self.directory / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._settings(port).items()))
        self._process = ServerProcess(
            [*self._clock(), program(self._engine), str(config), *self._mode],
            log=self.directory / "redis.log",
            ready=self._answers,
        )
        self._process.start()

    def _clock(self) -> list[str]:
        if not self._movable_clock:
            return []
        library = self.directory / "movable_clock.so"
        source = Path(__file__).with_name("movable_clock.c")
        subprocess.run([program("cc"), "-shared", "-fPIC", "-o", library, source], check=True)
        self.move_clock(0)
        return ["env", f"LD_PRELOAD={library}", f"SECONDS_AHEAD_FILE={self.directory / 'seconds_ahead'}"]

    def move_clock(self, seconds: int) -> None:
        """Set the server's wall clock that many seconds ahead of the machine's, or behind it."""
        (self.directory / "seconds_ahead").write_text(str(seconds))

    def _settings(self, port: int) -> dict[str, str]:
        settings = {
            "bind": self.host,
            "port": "0" if self.certificates else str(port),
            "dir": f'"{self.directory}"',
            **self._options,
        }
        if self.password:
            settings["requirepass"] = f'"{self.password}"'
        if self.certificates:
            settings |= {
                "tls-port": str(port),
                "tls-cert-file": f'"{self.certificates.cert_file}"',
                "tls-key-file": f'"{self.certificates.key_file}"',
                "tls-ca-cert-file": f'"{self.certificates.ca_file}"',
                "tls-auth-clients": "no",
            }
        return settings

    def stop(self) -> None:
        """Stop gracefully."""
        self.process.stop()

    def kill(self) -> None:
        """Kill at once."""
        self.process.kill()

    def restart(self) -> None:
        """Kill if running, then start on the same port, empty."""
        if self.process.running:
            self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze (SIGSTOP): the kernel accepts connections, nothing responds."""
        self.process.pause()

    def resume(self) -> None:
        """Continue after ``pause`` (SIGCONT)."""
        self.process.resume()

    def close(self) -> None:
        """Stop, whatever the state."""
        if self._process is not None:
            self._process.kill()

    # --- use

    def client(self, **options: Any) -> redis.Redis:
        """Return a redis-py client without retries; the caller closes it."""
        if self.certificates:
            options["ssl_ca_certs"] = str(self.certificates.ca_file)
        return redis.Redis.from_url(self.url, **{**ONE_TRY, **options})

    def command(self, *arguments: str | bytes | float) -> Any:
        """Send one command on a new connection and return the response."""
        with self.client() as client:
            return client.execute_command(*arguments)

    def command_count(self, name: str | None = None) -> int:
        """Return the number of calls since the last reset, of one command or of all (``INFO commandstats``)."""
        with self.client() as client:
            stats: dict[str, Any] = client.info("commandstats")
        return sum(
            row["calls"] for key, row in stats.items() if name is None or key == f"cmdstat_{name.lower()}"
        )

    def reset(self) -> None:
        """Return to the running state, empty and with the initial configuration."""
        self.resume()
        try:
            self._clean()
        except (redis.RedisError, AssertionError):
            self.restart()

    def _clean(self) -> None:
        assert self.process.running
        with self.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
            changed = {k: v for k, v in self._configuration(client).items() if self._initial.get(k) != v}
            for name in changed:
                client.config_set(name, self._initial[name])
            client.flushall()
            client.script_flush()
            for user in client.acl_users():
                if user != "default":
                    client.acl_deluser(user)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.config_resetstat()

    def _configuration(self, client: redis.Redis | None = None) -> dict[str, str]:
        with contextlib.nullcontext(client) if client else self.client() as connected:
            answer: dict[str, str] = connected.config_get("*")  # type: ignore[assignment]
        return answer

    def _answers(self) -> bool:
        with self.client() as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False
