"""The ASGI edge under Hypercorn over HTTP/2: early hints, trailers, split cookies, a client that leaves."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
)

from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[2] / "support"
PROXIED = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "www.example.com"),
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-proto", "https"),
]


class Hypercorn:
    """One server, and a client of it that speaks HTTP/2 without TLS."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.records_file = folder / "records"
        self.records_file.touch()
        environ = [
            f"PYTHONPATH={SUPPORT}",
            f"RECORDS={self.records_file}",
            f"HOME={os.environ.get('HOME', '/')}",
        ]
        self.process = ServerProcess(
            [
                *("env", *environ, "PYTHONWARNINGS=ignore", sys.executable, "-m", "hypercorn"),
                *("--bind", f"127.0.0.1:{self.port}", "asgi_server_apps:application"),
            ],
            log=folder / "log",
            ready=lambda: accepts_connections(self.port),
        )
        self.process.start()

    def record(self, path: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            lines = self.records_file.read_text().splitlines()
            return [record for record in map(json.loads, lines) if record["path"] == path]

        [record] = wait_until(found, what=f"a record of {path}")
        return record

    def get(
        self, path: str, *fields: tuple[str, str], parts: int | None = None, body: bytes = b""
    ) -> dict[str, Any]:
        """What comes back by kind of event; after so many parts of the body the client leaves.

        A ``body`` is sent with POST, without a length.
        """
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        said: dict[str, Any] = {"body": b""}
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            connection.initiate_connection()
            method = (":method", "POST" if body else "GET")
            head = [method, *PROXIED[1:3], (":path", path), *PROXIED[3:], *fields]
            connection.send_headers(1, head, end_stream=not body)
            if body:
                connection.send_data(1, body, end_stream=True)
            client.sendall(connection.data_to_send())
            received = 0
            while "ended" not in said:
                data = client.recv(65536)
                if not data:
                    break
                for event in connection.receive_data(data):
                    if isinstance(event, InformationalResponseReceived):
                        said["hints"] = dict(event.headers)
                    elif isinstance(event, ResponseReceived):
                        said["head"] = dict(event.headers)
                    elif isinstance(event, TrailersReceived):
                        said["trailers"] = dict(event.headers)
                    elif isinstance(event, DataReceived):
                        said["body"] += event.data
                        received += 1
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                    elif isinstance(event, StreamEnded):
                        said["ended"] = True
                if parts is not None and received >= parts:
                    said["ended"] = False
                client.sendall(connection.data_to_send())
        return said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hypercorn]:
    started = Hypercorn(tmp_path_factory.mktemp("http2"))
    yield started
    started.process.stop()


def test_a_page(server: Hypercorn) -> None:
    said = server.get("/seen", ("cookie", "a=1"), ("cookie", "b=2"))
    seen = json.loads(said["body"])
    assert (seen["http_version"], seen["scheme"], seen["client"]) == ("2", "https", ["203.0.113.9", 0])
    assert said["head"]["x-request-id"] == seen["request_id"]
    assert "max-age" in said["head"]["strict-transport-security"]
    assert server.record("/seen")["outcome"] == "ok"


def test_early_hints_and_trailers_pass(server: Hypercorn) -> None:
    said = server.get("/hints", ("te", "trailers"))
    assert said["hints"]["link"] == "</style.css>; rel=preload"
    assert (said["head"][":status"], said["body"], said["trailers"]) == ("200", b"hello", {"checksum": "42"})
    assert server.record("/hints")["outcome"] == "ok"


def test_a_session_in_one_of_several_cookie_lines(server: Hypercorn) -> None:
    cookie = server.get("/sign-in")["head"]["set-cookie"].partition(";")[0]
    assert json.loads(server.get("/mine", ("cookie", "a=1"), ("cookie", cookie))["body"])["alive"] is True
    assert server.record("/mine")["user_id"] == "alice"


def test_a_client_leaves_in_the_middle_of_a_stream(server: Hypercorn) -> None:
    # Not an application that never calls receive: Hypercorn lets it wait in send() until the server ends.
    server.get("/fastapi/stream", parts=3)
    assert server.record("/fastapi/stream")["outcome"] == "aborted"


def test_a_body_is_counted_without_a_length(server: Hypercorn) -> None:
    assert server.get("/small-body", body=b"x" * 1000)["body"] == b"1000"
    assert server.get("/small-body", body=b"x" * 1001)["head"][":status"] == "413"
