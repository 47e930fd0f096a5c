"""nginx in front of gunicorn: what a client writes into headers, and what arrives."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.certificates import Certificates
from testbed.nginx_server import NginxServer
from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess

SUPPORT = Path(__file__).parents[3] / "support"
SPOOFED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.test",
    "X-Real-IP": "6.6.6.6",
}
APPENDING = """
server {
    listen 127.0.0.1:@port@;
    listen 127.0.0.1:@tls_port@ ssl;
    ssl_certificate @cert@;
    ssl_certificate_key @key@;
    location / {
        proxy_pass http://127.0.0.1:@app@;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Prefix "";
    }
}
"""

pytestmark = pytest.mark.nginx


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    process = ServerProcess(
        [
            *("env", f"PYTHONPATH={SUPPORT}", sys.executable, "-m", "gunicorn", "-w", "1"),
            *("--no-control-socket", "--forwarded-allow-ips", "", "-b", f"127.0.0.1:{port}"),
            "wsgi_edge_stack:one_hop",
        ],
        log=tmp_path_factory.mktemp("backend") / "log",
        ready=lambda: accepts_connections(port),
    )
    process.start()
    yield port
    process.stop()


@pytest.fixture
def front(make_nginx: Callable[..., NginxServer], backend: int) -> NginxServer:
    return make_nginx(APPENDING, values={"app": str(backend)})


def ask(
    front: NginxServer, context: ssl.SSLContext | None, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], Any]:
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", front.tls_port, timeout=20, context=context)
    try:
        connection.request(method, "/where?x=1", headers={"Host": "www.example.com", **headers})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_over_tls_the_application_sees_the_client(front: NginxServer, certificates: Certificates) -> None:
    status, fields, body = ask(front, certificates.client_context, **SPOOFED)
    assert status == 200
    seen = json.loads(body)
    assert seen["client_ip"] == seen["REMOTE_ADDR"] == seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
    assert seen["wsgi.url_scheme"] == "https"
    assert seen["HTTP_HOST"] == "www.example.com"
    assert "HTTP_FORWARDED" not in seen
    assert fields["strict-transport-security"] == "max-age=63072000; includeSubDomains"


def test_over_plain_http_spoofing_does_not_help(front: NginxServer) -> None:
    status, fields, _ = ask(front, None, **SPOOFED)
    assert (status, fields["location"]) == (301, "https://www.example.com/where?x=1")
    assert "strict-transport-security" not in fields


def test_a_host_that_is_not_listed(front: NginxServer, certificates: Certificates) -> None:
    assert ask(front, certificates.client_context, Host="evil.test")[0] == 400
    assert ask(front, None, Host="evil.test")[0] == 400


@pytest.mark.parametrize(
    ("host", "origin", "fetch_site", "status"),
    [
        ("$http_host", "https://www.example.com:@", None, 200),
        ("$http_host", "https://www.example.com:1", None, 403),
        ("$http_host", "https://evil.test", "cross-site", 403),
        # A widespread setting drops the port; browsers say that they come from the same origin.
        ("$host", "https://www.example.com:@", "same-origin", 200),
        ("$host", "https://www.example.com:@", None, 403),
        ("$host", "https://evil.test", "same-site", 403),
    ],
)
def test_forms_are_posted_to_the_port_that_browsers_see(
    make_nginx: Callable[..., NginxServer],
    backend: int,
    certificates: Certificates,
    *,
    host: str,
    origin: str,
    fetch_site: str | None,
    status: int,
) -> None:
    front = make_nginx(APPENDING.replace("$http_host", host), values={"app": str(backend)})
    headers = {
        "Host": f"www.example.com:{front.tls_port}",
        "Origin": origin.replace("@", str(front.tls_port)),
        "Content-Length": "0",
    }
    if fetch_site:
        headers["Sec-Fetch-Site"] = fetch_site
    assert ask(front, certificates.client_context, method="POST", **headers)[0] == status
