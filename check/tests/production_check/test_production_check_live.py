"""The live check against servers on this machine: good ones, bad ones and those that lie."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mks_check import CheckReport, check
from mks_check.production_check.http_response import parse_response

GOOD = (
    b"HTTP/1.1 200 OK\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nPermissions-Policy: camera=()\r\n"
    b"X-Request-ID: a\r\nCache-Control: no-store\r\n\r\nhello"
)


class Server:
    """Answers every connection with what a function makes of the request, and remembers the requests."""

    def __init__(self, respond: Callable[[bytes], bytes]) -> None:
        self.requests: list[bytes] = []
        self._respond = respond
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    request = b""
                    while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
                        request += piece
                    self.requests.append(request)
                    connection.sendall(self._respond(request))
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@contextmanager
def served(respond: Callable[[bytes], bytes]) -> Iterator[Server]:
    server = Server(respond)
    try:
        yield server
    finally:
        server.close()


def run(server: Server, **options: Any) -> CheckReport:
    return check(url=f"http://127.0.0.1:{server.port}/", **options)


def ids(report: CheckReport) -> set[str]:
    return {finding.id for finding in report.findings}


def careful(request: bytes) -> bytes:
    head = request.split(b"\r\n")[0].decode()
    if b"Host: spoofed" in request:
        return GOOD.replace(b"200 OK", b"421 Misdirected Request")
    if head.startswith("TRACE"):
        return GOOD.replace(b"200 OK", b"405 Method Not Allowed")
    if head.startswith("POST"):
        return GOOD.replace(b"200 OK", b"413 Content Too Large")
    return GOOD if head.split()[1] == "/" else GOOD.replace(b"200 OK", b"404 Not Found")


def test_a_careful_site_has_no_findings_and_is_asked_a_bounded_number_of_times() -> None:
    with served(careful) as server:
        report = run(server, body_limit=1000)
        assert report.failed == ()
        assert ids(report) == set()
        assert 10 <= len(server.requests) <= 80


def test_no_request_changes_anything() -> None:
    with served(careful) as server:
        run(server, body_limit=1000)
        methods = {request.split(b" ")[0] for request in server.requests}
        bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
        assert methods <= {b"GET", b"TRACE", b"POST"}
        assert set(bodies) == {b""}
        paths = {request.split(b" ")[1] for request in server.requests if request.startswith(b"POST")}
        assert paths == {b"/mks-hardening-check-missing-page"}


def test_without_a_promised_limit_nothing_is_posted() -> None:
    with served(careful) as server:
        run(server)
        assert not [request for request in server.requests if request.startswith(b"POST")]


def careless(request: bytes) -> bytes:
    head = request.split(b"\r\n")[0]
    fields = [line for line in request.split(b"\r\n")[1:] if b":" in line]
    given = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in fields}
    host = given.get(b"x-forwarded-host", given.get(b"host", b""))
    lines = [
        b"HTTP/1.1 200 OK",
        b"Server: nginx/1.18.0",
        b"Set-Cookie: sessionid=1; Path=/",
        b"Content-Type: application/json",
        b"Access-Control-Allow-Origin: " + given.get(b"origin", b"*"),
        b"Access-Control-Allow-Credentials: true",
    ]
    body = b'{"redis": "ok"} Traceback (most recent call last): http://' + host
    if b".git" in head:
        body = b"ref: refs/heads/main\n"
    return b"\r\n".join([*lines, b"", head + b" " + body if head.startswith(b"TRACE") else body])


def test_what_a_careless_site_does_is_found() -> None:
    with served(careless) as server:
        expected = {
            "MKS-WEB-006",
            "MKS-WEB-007",
            "MKS-WEB-009",
            "MKS-WEB-011",
            "MKS-WEB-012",
            "MKS-WEB-013",
            "MKS-WEB-014",
            "MKS-WEB-016",
            "MKS-WEB-017",
            "MKS-WEB-018",
            "MKS-WEB-020",
            "MKS-WEB-021",
            "MKS-WEB-022",
            "MKS-WEB-023",
            "MKS-WEB-024",
            "MKS-WEB-025",
            "MKS-WEB-026",
            "MKS-WEB-027",
        }
        assert expected <= ids(run(server, body_limit=1000))


def test_a_redirect_to_another_host_is_reported_and_not_followed() -> None:
    with served(careful) as other:
        target = f"http://localhost:{other.port}/".encode()

        def elsewhere(request: bytes) -> bytes:
            return b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\n\r\n"

        with served(elsewhere) as server:
            report = run(server)
            assert "MKS-WEB-005" in ids(report)
            assert other.requests == []


def test_a_redirect_loop_ends() -> None:
    with served(lambda _: b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n") as server:
        report = run(server)
        assert "MKS-WEB-005" in ids(report)
        assert len(server.requests) <= 80


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: =;;;=\r\nLocation: http://[::1\r\nAge: x\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: //[\r\nContent-Security-Policy: ;;script-src\r\nAge: -1\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: \xff\xfe\x00:99999999/\r\n\r\n",
        b"\xff" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"\x00\x1b[31m<script src='//[::1/a.js'>" * 100,
    ],
)
def test_a_server_that_lies_breaks_nothing(data: bytes) -> None:
    with served(lambda _: data) as server:
        report = run(server, body_limit=10)
        assert "MKS-RUN-001" not in ids(report)
        assert all(finding.evidence.isprintable() for finding in report.findings)


BROKEN = {
    "/": (
        b"Content-Type: text/html",
        b"<!doctype html><a href=/login>x</a><script>1</script><script src=/a.js></script>",
    ),
    "/login": (
        b"Content-Type: text/html",
        b"<!doctype html><link rel=stylesheet href=/s.css><input type=password>",
    ),
    "/s.css": (b"Content-Type: text/plain", b"p {}"),
    "/a.js": (b"Content-Type: text/javascript", b"document.createElement('style')"),
    "/ws": (b"Upgrade: websocket\r\nConnection: Upgrade", b""),
}


def broken(request: bytes) -> bytes:
    path = request.split(b" ")[1].decode()
    if b"Host: spoofed" in request or request.startswith(b"TRACE") or path not in BROKEN:
        return careful(request)
    fields, body = BROKEN[path]
    head = GOOD.partition(b"\r\n\r\n")[0].replace(b"'none'; frame", b"'self'; frame")
    if path == "/ws":
        head = head.replace(b"200 OK", b"101 Switching Protocols")
    chunks = b"".join(b"%x;a=b\r\n%b\r\n" % (len(part), part) for part in (body[:40], body[40:]) if part)
    return b"\r\n".join([head, fields, b"Transfer-Encoding: chunked", b"", chunks + b"0\r\n\r\n"])


def test_the_front_page_and_the_sign_in_page_are_judged_as_a_browser_shows_them() -> None:
    with served(broken) as server:
        name, digest = "style-src-elem", "a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s="
        report = run(server, websocket="/ws")
        assert [(each.level, each.evidence) for each in report.findings if each.id == "MKS-WEB-028"] == [
            (
                "error",
                f"/: script-src-elem blocks inline of <script>; csp.script-src-elem = [\"'sha256-{digest}'\"]",
            ),
            (
                "error",
                f"/login: http://127.0.0.1:{server.port}/s.css of <link> is served as text/plain, not as text/css",
            ),
            (
                "note",
                f"/: {name} blocks inline of <script>, when it is used; csp.{name} = [\"'unsafe-inline'\"]",
            ),
        ]
        report = run(server, websocket="/elsewhere", pages=["/login"])
        assert "/elsewhere: the WebSocket is not opened: 404" in {each.evidence for each in report.findings}


def test_an_endless_response_is_cut() -> None:
    with served(lambda _: GOOD + b"a" * 5_000_000) as server:
        assert run(server).failed == ()


def test_nobody_there_is_a_failure_and_no_finding() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    report = check(url=f"http://127.0.0.1:{port}/")
    assert report.findings == ()
    assert "cannot be reached" in report.failed[0]


@pytest.mark.parametrize(
    ("fields", "data", "body"),
    [
        ("Content-Type: text/html; charset=Shift_JIS", "<p>日本".encode("shift_jis"), "<p>日本"),
        ("Content-Type: text/html; charset=unknown", "é".encode(), "é"),
        ("Content-Type: text/html; charset=base64", "é".encode(), "é"),
        ("Transfer-Encoding: chunked", b"4\r\nab\r\n\r\n1;x=y\r\nc\r\n0\r\n\r\nnext", "ab\r\nc"),
        ("Transfer-Encoding: chunked", b"ff\r\ncut", "cut"),
        ("Transfer-Encoding: chunked", b"no chunks", ""),
    ],
)
def test_a_body_is_read_as_its_fields_say(fields: str, data: bytes, body: str) -> None:
    assert parse_response(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + data, "http://a/").body == body


def test_a_response_is_parsed_as_it_stands() -> None:
    found = parse_response(
        b"HTTP/1.1 404 Not Found\r\nSet-Cookie: a=1; Secure; SameSite=Lax\r\nset-cookie: b=2\r\n\r\nbody",
        "http://a/",
    )
    assert (found.status, found.body, [cookie.name for cookie in found.cookies]) == (404, "body", ["a", "b"])
    assert found.cookies[0].same_site == "lax"
