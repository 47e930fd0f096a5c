"""A host of the reference deployment on loopback: the rendered files, used by the real servers."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_settings import deployed
from mks_deploy.atomic_files import relink
from mks_deploy.operations.host_steps import HostSteps
from mks_deploy.operations.release import State
from mks_deploy.settings.definitions import Settings
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess
from testbed.services import program

HOST = "knowledge.example.test"
SHORT = "www.example.test"

_SETTINGS = """
[site]
hosts = ["{host}"]
redirect_hosts = ["{short}"]
environment = "{environment}"
[app]
{application}
{app}
[paths]
{paths}
[edge]
mode = "{mode}"
http_port = {http}
https_port = {https}
status_port = {status}
ipv6 = false
listen_address = "{listen}"
user = "{user}"
{edge}
[tls]
{tls}
{hsts}
[gunicorn]
workers = {workers}
threads = {threads}
{gunicorn}
[upkeep]
alert_mail = "ops@example.test"
metrics_port = {metrics}
{upkeep}
"""

PATHS = (
    "releases",
    "config",
    "credentials",
    "state",
    "share",
    "logs",
    "runtime",
    "backups",
    "key_backups",
    "wal",
    "nginx",
)
PATHS += ("nginx_logs", "nginx_cache", "acme")


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, with repeated header fields."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def one(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values} in an answer {self.status}"
        return values[0]

    def json(self) -> Any:
        return json.loads(self.body)


class Host:
    """Rendered files below a short directory, and the servers that use them."""

    def __init__(
        self,
        certificates: Any = None,
        *,
        name: str = "knowledge-system",
        base: str = "",
        source: Path | None = None,
        hosts: str = "",
        here: str = "",
        **options: str,
    ) -> None:
        # Another application than the reference: its name, its deploy.toml, and the folder that it is started in.
        self.name, self.base, self.source = name, base, source
        # One of several hosts: their tables, and which of them this one is.
        self.hosts, self.here = hosts, here
        # Short: addresses of unix sockets have 107 bytes. Open: nginx's workers are another account.
        self.folder = Path(tempfile.mkdtemp(prefix="mksd"))
        self.folder.chmod(0o755)
        self.root = self.folder / "out"
        self.http, self.https, self.status = free_port(), free_port(), free_port()
        self.metrics = free_port(row=2)  # the other slot's is the next one
        self.certificates = certificates
        self.servers: list[ServerProcess] = []
        self.patience = 10.0  # seconds a client waits for an answer
        for place in (
            "state",
            "releases/public/static",
            "nginx_logs",
            "nginx_cache",
            "logs",
            "acme/webroot",
            "run",
        ):
            (self.folder / place).mkdir(parents=True)
        self.options = {
            "application": "deploy_echo:application()",
            "mode": "nginx",
            "listen": "loopback",
            "workers": "1",
            "threads": "8",
            "environment": "production",
            "app": "",
            "edge": "",
            "gunicorn": "",
            "upkeep": "",
            "hsts": "",
            "tls": self.own_certificate() if certificates else 'email = "ops@example.test"',
            **options,
        }

    def own_certificate(self) -> str:
        for file in (self.certificates.cert_file, self.certificates.key_file):
            shutil.copy(file, self.folder / file.name)
        return (
            f'source = "own"\ncertificate = "{self.folder}/{self.certificates.cert_file.name}"\n'
            f'key = "{self.folder}/{self.certificates.key_file.name}"'
        )

    def path(self, name: str) -> Path:
        """Return the location of an entry of ``[paths]``."""
        if name == "nginx":
            return self.root / self.folder.relative_to("/") / "nginx"
        if name in {"config", "share"}:
            return self.root / self.folder.relative_to("/") / name
        return self.folder / ("run" if name == "runtime" else name)

    def settings_text(self, *more: str) -> str:
        """Return the reference application's settings for this host; further TOML overrides options."""
        given = {**self.options}
        given["application"] = f'target = "{given["application"]}"' if not self.base else ""
        text = _SETTINGS.format(
            host=HOST,
            short=SHORT,
            # Folders of rendered files are below the output folder as below the root of a host.
            paths="\n".join(f'{name} = "{self.real_path(name)}"' for name in PATHS),
            http=self.http,
            https=self.https,
            status=self.status,
            metrics=self.metrics,
            user="www-data" if os.geteuid() == 0 else _account(),
            **given,
        )
        return deployed(text, *more, without=("tls",), base=self.base) + self.hosts

    def real_path(self, name: str) -> str:
        """Return the real location of a path of the settings, where the files were rendered to."""
        return (
            str(self.path(name)).replace(str(self.root), "", 1) if name in _RENDERED else str(self.path(name))
        )

    def render(self, installed: Any = None) -> None:
        from mks_deploy.output_files import write
        from mks_deploy.rendering import render
        from mks_deploy.settings.settings_file import read_settings
        from mks_deploy.versions import Installed, detect

        settings = read_settings(self.settings_text())
        settings = settings.on(self.here) if self.here else settings
        files = render(settings, installed or detect() or Installed())
        write(files, self.root)
        # What would be copied to the root of a host is linked there: the rendered texts name these paths.
        for name in _RENDERED:
            link = Path(self.real_path(name))
            if not link.exists() and self.path(name).exists():
                link.symlink_to(self.path(name))
        mime_types = Path("/etc/nginx/mime.types")
        if self.options["mode"] == "nginx":
            upstream = self.path("nginx") / self.name / "upstream.conf"
            if not upstream.exists():  # systemd-tmpfiles does it on a host
                shutil.copy(self.path("share") / "nginx/upstream.conf", upstream)
            if mime_types.exists():
                shutil.copy(mime_types, self.path("nginx") / "mime.types")

    def nginx_command(self, *more: str) -> list[str]:
        return [program("nginx"), "-c", str(self.path("nginx") / "nginx.conf"), *more]

    def application_variables(self, *, redis_url: str, postgres_url: str) -> dict[str, str]:
        """Return the variables of the rendered environment file, and the secrets that the unit would pass."""
        from mks_hardening.security import SecretBox

        text = (self.path("config") / f"{self.name}.env").read_text()
        given = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
        secrets = {"DATABASE_URL": postgres_url, "MKS_REDIS_URL": redis_url}
        return {**given, **secrets, "MKS_SECRET_KEYS": SecretBox.generate_key()}

    def start_nginx(self, *, ready: Callable[[], object] | None = None) -> ServerProcess:
        return self._start(
            ServerProcess(
                self.nginx_command("-g", "daemon off;"),
                log=self.folder / "nginx.out",
                ready=ready or (lambda: accepts_connections(self.https) and accepts_connections(self.http)),
                stop_signal=signal.SIGQUIT,
            )
        )

    def socket_file(self, slot: str = "blue") -> Path:
        return self.folder / "run" / self.name / f"{slot}.sock"

    def start_application(self, slot: str = "blue", **variables: str) -> ServerProcess:
        """Start gunicorn with the rendered configuration, as the unit would."""
        socket_file = self.socket_file(slot)
        socket_file.parent.mkdir(exist_ok=True)
        support = str(Path(__file__).parent)
        path = f"{self.source / 'src'}" if self.source else support
        environment = {**os.environ, "DEPLOY_SLOT": slot, "PYTHONPATH": path, **variables}
        arguments = [
            f"{name}={value}" for name, value in environment.items() if name in {"DEPLOY_SLOT", "PYTHONPATH"}
        ]
        arguments += [f"{name}={value}" for name, value in variables.items()]
        server = ServerProcess(
            [
                "env",
                *arguments,
                sys.executable,
                "-m",
                "gunicorn",
                "-c",
                str(self.path("config") / "gunicorn.conf.py"),
            ],
            log=self.folder / f"gunicorn-{slot}.out",
            cwd=self.source,
            ready=lambda: accepts(socket_file),
        )
        return self._start(server)

    def start_unit(self, **variables: str) -> ServerProcess:
        """Start the command of the rendered unit with the socket of systemd, whichever server it is."""
        socket_file = self.socket_file()
        socket_file.parent.mkdir(exist_ok=True)
        unit = (self.root / "etc/systemd/system" / f"{self.name}@.service").read_text()
        command = re.search(r"(?m)^ExecStart=(.+)$", unit)
        assert command is not None
        server, *words = shlex.split(command[1])
        variables = {"DEPLOY_SLOT": "blue", **variables}
        given = [f"--setenv={name}={value}" for name, value in variables.items()]
        started = self._start(
            ServerProcess(
                [
                    program("systemd-socket-activate"),
                    f"--listen={socket_file}",
                    *given,
                    str(Path(sys.executable).with_name(Path(server).name)),
                    *words,
                ],
                log=self.folder / "server.out",
                cwd=self.source,
                ready=lambda: accepts(socket_file),
            )
        )
        socket_file.chmod(0o666)  # as app.socket opens it to nginx's account
        return started

    def start_direct(self, **more: str) -> None:
        """Start gunicorn with its own TLS, and the second master that redirects plain HTTP."""
        support = str(Path(__file__).parent)
        variables = [f"PYTHONPATH={support}", f"MKS_ALLOWED_HOSTS={HOST}", f"MKS_HTTPS_PORT={self.https}"]
        variables += [f"{name}={value}" for name, value in more.items()]
        for name, port in (("gunicorn.conf.py", self.https), ("redirect.conf.py", self.http)):
            self._start(
                ServerProcess(
                    [
                        "env",
                        *variables,
                        sys.executable,
                        "-m",
                        "gunicorn",
                        "-c",
                        str(self.path("config") / name),
                    ],
                    log=self.folder / f"{name}.out",
                    ready=functools.partial(accepts_connections, port),
                )
            )

    def _start(self, server: ServerProcess) -> ServerProcess:
        server.start()
        self.servers.append(server)
        return server

    def stop(self) -> None:
        for server in reversed(self.servers):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- asking -------------------------------------------------------------------------------

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = HOST,
        sni: str | None = HOST,
        tls: bool = True,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        client: str = "127.0.0.1",
        at: str = "127.0.0.1",
    ) -> Answer | None:
        """Send one request on a new connection; ``None`` if the server closes it or refuses the name."""
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in (fields or {}).items()]
        head += [f"Content-Length: {len(body)}"] if body or (method == "POST" and not fields) else []
        request = "\r\n".join(head).encode() + b"\r\n\r\n" + body
        return self.say(request, sni=sni, tls=tls, client=client, at=at)

    def say_with(self, fields: Mapping[str, str], path: str, body: bytes) -> Answer | None:
        """Send a form with exactly these header fields."""
        head = [f"POST {path} HTTP/1.1", f"Host: {HOST}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in fields.items()]
        return self.say("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def say(
        self,
        request: bytes,
        *,
        sni: str | None = HOST,
        tls: bool = True,
        client: str = "127.0.0.1",
        at: str = "127.0.0.1",
    ) -> Answer | None:
        """Send raw bytes on a new connection from one address of this machine to another."""
        port = self.https if tls else self.http
        connection = socket.create_connection((at, port), timeout=self.patience, source_address=(client, 0))
        try:
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                connection = context.wrap_socket(connection, server_hostname=sni)
            # Refused before it was read whole: the answer is there.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            data = _read_all(connection)
        except ssl.SSLError:
            return None
        finally:
            connection.close()
        return _parsed(data, head_only=request.startswith(b"HEAD "))

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the access log, parsed."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    @property
    def log_file(self) -> Path:
        return self.folder / "nginx_logs" / f"{self.name}.access.log"

    def line_of(self, request_id: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [line for line in self.log_lines() if line["request_id"] == request_id]

        wait_until(found, timeout=5, what="the line of the request")
        return found()[0]


def as_released(settings: Settings, state: State) -> None:
    """Leave what releases leave on a host: a link for each slot, and where nginx sends the requests."""
    releases = Path(settings.paths.releases)
    for slot in ("blue", "green"):
        if version := state.in_slot(slot):
            relink(releases / "slots" / slot, releases / "versions" / version)
    upstream = Path(settings.paths.nginx) / settings.name / "upstream.conf"
    upstream.parent.mkdir(parents=True, exist_ok=True)
    upstream.touch()
    HostSteps(settings, command=lambda _: 0).route(state)


_RENDERED = ("nginx", "config", "share")


def _account() -> str:
    import getpass

    return getpass.getuser()


def accepts(file: Path) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(file))
        except OSError:
            return False
    return True


def _read_all(connection: socket.socket) -> bytes:
    data = bytearray()
    while True:
        try:
            part = connection.recv(65_536)
        except (ConnectionResetError, ssl.SSLEOFError):
            break
        if not part:
            break
        data += part
        # nginx waits for the rest of a body that it refused: what was said is said.
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if length and len(body) >= int(length[1]):
            break
    return bytes(data)


def _parsed(data: bytes, *, head_only: bool) -> Answer | None:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    answer = Answer(int(first.split()[1]), fields, body)
    if "chunked" in answer.all("Transfer-Encoding") and not head_only:
        return Answer(answer.status, fields, _dechunked(body))
    return answer


def _dechunked(body: bytes) -> bytes:
    whole = bytearray()
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            break
        whole += rest[:length]
        body = rest[length + 2 :]
    return bytes(whole)
