"""Servers for ``composed_apps``: uvicorn with several workers, or gunicorn."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parent


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ComposedServer:
    """One server behind a trusted proxy; each test acts as the proxy.

    Args:
        folder: for its log.
        environ: settings, in addition to the host and the proxy.
        workers: processes.
        kind: ``asgi`` (uvicorn) or ``wsgi`` (gunicorn).
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, workers: int = 1, kind: str = "asgi"
    ) -> None:
        self.port = free_port()
        usual = {
            "MKS_ENV": "development",
            "MKS_TRUSTED_PROXIES": "127.0.0.1",
            "MKS_GUNICORN_WORKERS": str(workers),
            "PYTHONPATH": str(SUPPORT),
            "PYTHONWARNINGS": "ignore",
            "HOME": os.environ.get("HOME", "/"),
        }
        uvicorn = ["uvicorn", "--no-proxy-headers", "--no-access-log", "--timeout-graceful-shutdown", "1"]
        gunicorn = ["gunicorn", "--no-control-socket", "--forwarded-allow-ips", "", "--threads", "2"]
        command = {
            "asgi": [
                *uvicorn,
                "--port",
                str(self.port),
                "--workers",
                str(workers),
                "composed_apps:application",
            ],
            "wsgi": [
                *gunicorn,
                "-w",
                str(workers),
                "-b",
                f"127.0.0.1:{self.port}",
                "composed_apps:wsgi_application",
            ],
        }[kind]
        variables = [f"{name}={value}" for name, value in {**usual, **environ}.items()]
        self.process = ServerProcess(
            ["env", *variables, sys.executable, "-m", *command],
            log=folder / f"composed-{self.port}.log",
            ready=lambda: accepts_connections(self.port),
        )
        self.process.start(timeout=60)

    def ask(
        self, path: str, *, client: str = "203.0.113.9", cookie: str = "", method: str = "GET", **more: Any
    ) -> Reply:
        """Send one request on a new connection, so that any worker may receive it."""
        headers = {"Host": "localhost", "X-Forwarded-For": client, **more.pop("headers", {})}
        if cookie:
            headers["Cookie"] = cookie
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers, **more)
            found = connection.getresponse()
            return Reply(found.status, found.headers, found.read())
        finally:
            connection.close()

    def sign_in(self, user: str) -> str:
        """Sign in and return the cookie."""
        fields = self.ask(f"/sign-in/{user}").headers.get_all("Set-Cookie") or []
        (cookie,) = [field.partition(";")[0] for field in fields if "session" in field.partition("=")[0]]
        return cookie
