"""The wrappers under real servers, asked over real sockets in ways no HTTP client would ask."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[2] / "support"
# By itself gunicorn believes X-Forwarded-Proto when it comes from 127.0.0.1.
GUNICORN = ["gunicorn", "-w", "1", "--no-control-socket", "--forwarded-allow-ips", ""]
SERVERS = {
    "gunicorn": [*GUNICORN, "-b"],
    "gunicorn threads": [*GUNICORN, "--threads", "2", "-b"],
    "waitress": ["waitress", "--clear-untrusted-proxy-headers", "--listen"],
}


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


def talk(port: int, *lines: str, body: bytes = b"") -> Answer:
    """Send lines as they are, and read the answer to its end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, rest = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    return Answer(int(status.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, rest)


def serve(request: pytest.FixtureRequest, folder: Path, name: str) -> Iterator[int]:
    port = free_port()
    process = ServerProcess(
        [
            *("env", f"PYTHONPATH={SUPPORT}", f"HOME={os.environ.get('HOME', '/')}", sys.executable, "-m"),
            *SERVERS[request.param],
            f"127.0.0.1:{port}",
            f"wsgi_edge_stack:{name}",
        ],
        log=folder / "log",
        ready=lambda: accepts_connections(port),
    )
    process.start()
    yield port
    process.stop()


@pytest.fixture(scope="module", params=SERVERS)
def exposed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from serve(request, tmp_path_factory.mktemp("exposed"), "exposed")


@pytest.fixture(scope="module", params=["gunicorn", "gunicorn threads"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from serve(request, tmp_path_factory.mktemp("proxied"), "application")


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/", "https://www.example.com/"),
        ("/a%20b?x=%20y", "https://www.example.com/a%20b?x=%20y"),
        ("/%0d%0aSet-Cookie:%20x=1", "https://www.example.com/%0D%0ASet-Cookie:%20x=1"),
        ("//evil.test/x", "https://www.example.com//evil.test/x"),
        ("/%5c%5cevil.test", "https://www.example.com/%5C%5Cevil.test"),
        ("/%ff%fe", "https://www.example.com/%FF%FE"),
        ("/%E6%97%A5", "https://www.example.com/%E6%97%A5"),
    ],
)
def test_redirects(exposed: int, target: str, location: str) -> None:
    answer = talk(exposed, f"GET {target} HTTP/1.1", "Host: www.example.com:8080")
    assert answer.status == 301
    # waitress makes one slash of two in front.
    assert answer.fields["location"] in (location, location.replace("com//", "com/"))
    assert "set-cookie" not in answer.fields


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "www.example.com@evil.test",
        "www.example.com.evil.test",
        "www.example.com:99999",
        "a\\b",
        "",
    ],
)
def test_hostile_hosts(exposed: int, host: str) -> None:
    answer = talk(exposed, "GET /where HTTP/1.1", f"Host: {host}")
    assert answer.status == 400
    assert answer.body
    assert "location" not in answer.fields


def test_spoofed_headers_do_not_help(exposed: int) -> None:
    spoofed = ("X-Forwarded-Proto: https", "Forwarded: proto=https", "X-Forwarded-Host: evil.test")
    answer = talk(exposed, "GET / HTTP/1.1", "Host: www.example.com", *spoofed)
    assert (answer.status, answer.fields["location"]) == (301, "https://www.example.com/")


def test_a_post_keeps_its_method(exposed: int) -> None:
    answer = talk(exposed, "POST /x HTTP/1.1", "Host: www.example.com", "Content-Length: 3", body=b"a=1")
    assert answer.status == 308


def test_an_api_is_refused_over_plain_http(exposed: int) -> None:
    answer = talk(exposed, "GET /api/x HTTP/1.1", "Host: www.example.com")
    assert answer.status == 403
    assert json.loads(answer.body)["status"] == 403


def test_probes(exposed: int) -> None:
    assert talk(exposed, "GET /readyz HTTP/1.0").status == 200
    assert json.loads(talk(exposed, "GET /livez HTTP/1.1", "Host: 10.1.2.3").body) == {"status": "ok"}
    head = talk(exposed, "HEAD /livez HTTP/1.1", "Host: 10.1.2.3")
    assert (head.status, head.body) == (200, b"")


def test_behind_a_proxy(proxied: int) -> None:
    lines = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    answer = talk(proxied, "GET /x HTTP/1.1", "Host: www.example.com", *lines, "Forwarded: for=6.6.6.6")
    assert answer.status == 200
    seen = json.loads(answer.body)
    assert (seen["client_ip"], seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == (
        "203.0.113.9",
        "203.0.113.9",
        "https",
    )
    assert "HTTP_FORWARDED" not in seen
    assert seen["HTTP_X_FORWARDED_FOR"] == "203.0.113.9"
    assert answer.fields["strict-transport-security"].startswith("max-age=")


def test_a_forged_request_behind_a_proxy(proxied: int) -> None:
    lines = ("Host: www.example.com", "X-Forwarded-Proto: https", "Cookie: a=1", "Content-Length: 3")
    for origin, status in (("https://evil.test", 403), ("https://www.example.com", 200)):
        answer = talk(proxied, "POST /x HTTP/1.1", *lines, f"Origin: {origin}", body=b"a=1")
        assert answer.status == status
