"""The example for FastAPI under uvicorn: sign-in, second factor, stream, WebSocket, limits, health and records."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from mks_hardening.security import totp_code
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess

EXAMPLE = Path(__file__).parents[4] / "examples" / "fastapi_app" / "app.py"
PASSWORD = "坂の上の 足場"

pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the example is not part of the wheel")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("example")
    number = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MKS_")}
    variables = {**kept, "MKS_ENV": "development", "MKS_LOG_FILE": str(folder / "app.log")}
    variables["DEMO_PASSWORD"] = PASSWORD
    program = EXAMPLE.read_text("utf-8").replace("port=8000", f"port={number}")
    (folder / "app.py").write_text(program, "utf-8")
    server = ServerProcess(
        ["env", *(f"{name}={value}" for name, value in variables.items()), sys.executable, "app.py"],
        log=folder / "server.log",
        ready=lambda: accepts_connections(number),
        cwd=folder,
    )
    server.start()
    yield number
    server.stop()


def browser(port: int) -> httpx.Client:
    here = f"http://127.0.0.1:{port}"
    return httpx.Client(base_url=here, headers={"Origin": here}, timeout=20)


def cookies_of(client: httpx.Client) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)


def post(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    # The challenge cookie is Secure; a browser sends it to this machine over http too, httpx does not.
    return client.post(path, json=body, headers={"Cookie": cookies_of(client)})


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 200


def test_from_the_password_to_a_second_factor_and_out(port: int) -> None:
    with browser(port) as client:
        assert client.get("/events").status_code == 401
        assert post(client, "/sign-in", name="tanaka", password="wrong").status_code == 401
        assert post(client, "/sign-in", name="tanaka", password=PASSWORD).json() == {"user": "7"}
        uri = post(client, "/factor").json()["uri"]
        secret = parse_qs(urlsplit(uri).query)["secret"][0]
        codes = post(client, "/factor/confirm", code=totp_code(secret)).json()["recovery codes"]
        copied = cookies_of(client)
        assert post(client, "/sign-out").status_code == 204
        assert client.get("/events", headers={"Cookie": copied}).status_code == 401

    with browser(port) as client:
        assert post(client, "/sign-in", name="tanaka", password=PASSWORD).json() == {"next": "second factor"}
        assert client.get("/events").status_code == 401
        assert post(client, "/second-factor", code=codes[0]).json() == {"user": "7"}
        events = client.get("/events").text
        assert events.splitlines()[::2] == [f"data: {number} for 7" for number in range(3)]
        headers = {"Cookie": cookies_of(client)}
        origin: Any = f"http://127.0.0.1:{port}"
        with connect(f"ws://127.0.0.1:{port}/echo", origin=origin, additional_headers=headers) as socket:
            socket.send("hello")
            assert socket.recv() == "7: hello"
        other: Any = "https://evil.example.org"
        for wrong in ({"origin": other, "additional_headers": headers}, {"origin": origin}):
            with (
                pytest.raises(InvalidStatus) as refused,
                connect(f"ws://127.0.0.1:{port}/echo", **wrong),
            ):
                pass
            assert refused.value.response.status_code in (401, 403)
        sizes = [client.post("/uploads", content=b"x" * 100_000) for _ in range(11)]
        assert sizes[0].json() == {"bytes": 100_000}
        assert [answer.status_code for answer in sizes] == [200] * 10 + [429]


def test_health_headers_and_the_document(port: int) -> None:
    with browser(port) as client:
        assert (client.get("/livez").status_code, client.get("/readyz").status_code) == (200, 200)
        document = client.get("/openapi.json")
        assert document.headers["x-content-type-options"] == "nosniff"
        assert "server" not in document.headers
        paths = document.json()["paths"]
    assert {"401", "403", "429"} <= set(paths["/factor"]["post"]["responses"])


def test_the_log_has_a_record_for_each_request(port: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    with browser(port) as client:
        sent = client.get("/livez").headers["x-request-id"]
    folder = next(path for path in tmp_path_factory.getbasetemp().glob("example*"))

    def is_recorded() -> bool:  # written by a thread
        lines = (folder / "app.log").read_text("utf-8").splitlines()
        return any(record.get("request_id") == sent for record in map(json.loads, lines))

    wait_until(is_recorded)
