"""An application that reads no forwarding field, behind nginx as rendered, and a client with its own address."""

from __future__ import annotations

import http.client
import socket
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from websockets.sync.client import ClientConnection, connect

from deploy_host import HOST, Host
from testbed.polling import wait_until

SOURCE = Path(__file__).parents[2] / "deploy" / "tests" / "apps" / "plain_live"
SETTINGS = """
[site]
name = "live"
[app]
kind = "{kind}"
target = "live_{kind}:{target}"
server = "{server}"
needs = []
ready = "/readyz"
hardened = false
[edge]
[tls]
[upkeep]
[stores]
statement_timeout = "1s"
"""
CLIENT = "127.0.0.9"
"""Another address than the one that nginx listens on."""


class Site:
    """An application behind nginx, and a client with an address of its own."""

    def __init__(self, certificates: Any, server: str, *, target: str = "app", **options: str) -> None:
        server, _, kind = server.partition(" ")
        base = SETTINGS.format(kind=kind, server=server, target=target)
        self.host = Host(certificates, name="live", base=base, source=SOURCE, **options)

    def start(self) -> None:
        self.host.render()
        packages = tempfile.mkdtemp(dir=self.host.folder)
        # The package of this name is uvicorn's module, moved out of it.
        Path(packages, "uvicorn_worker.py").write_text("from uvicorn.workers import UvicornWorker\n")
        self.host.start_unit(PYTHONPATH=packages)
        self.host.start_nginx()
        wait_until(self.answers, timeout=60, what="the application")

    def answers(self) -> bool:
        answer = self.host.ask("/readyz")
        return answer is not None and answer.status == 200

    def secured(self) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(
            ("127.0.0.1", self.host.https), timeout=20, source_address=(CLIENT, 0)
        )
        return context.wrap_socket(plain, server_hostname=HOST)

    @contextmanager
    def ask(
        self, path: str, fields: Mapping[str, str] = MappingProxyType({}), *, method: str = "GET"
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(HOST)
        with self.secured() as connection.sock:
            connection.request(method, path, headers={"Connection": "close", **fields})
            with connection.getresponse() as answer:
                yield answer

    def open_socket(self, path: str = "/live", **fields: str) -> ClientConnection:
        return connect(
            f"ws://{HOST}{path}", sock=self.secured(), additional_headers=fields, compression=None, proxy=None
        )
