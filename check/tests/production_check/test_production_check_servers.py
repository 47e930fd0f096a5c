"""The check against real servers: TLS of nginx, the running Redis and the running PostgreSQL."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mks_check import CheckReport, check
from testbed.certificates import Certificates
from testbed.redis_server import RedisServer

GOOD = {"MKS_ALLOWED_HOSTS": "www.example.com"}


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Set-Cookie", "sid=1; HttpOnly; SameSite=Lax")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def site(certificates: Certificates) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.socket = certificates.server_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join(5)


def ids(report: CheckReport) -> set[str]:
    return {finding.id for finding in report.findings}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_certificate_is_judged_by_the_given_authority(site: str, certificates: Certificates) -> None:
    trusted = check(url=site, ca_file=certificates.ca_file)
    assert trusted.failed == ()
    assert "MKS-WEB-001" not in ids(trusted)
    assert {"MKS-WEB-008", "MKS-WEB-015"} <= ids(trusted)
    untrusted = check(url=site)
    assert untrusted.failed == ()
    assert "MKS-WEB-001" in ids(untrusted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_old_versions_of_tls_are_found_where_they_are_accepted(site: str, certificates: Certificates) -> None:
    assert "MKS-WEB-003" not in ids(check(url=site, ca_file=certificates.ca_file))
    certificates.server_context.minimum_version = ssl.TLSVersion.TLSv1
    certificates.server_context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        assert "MKS-WEB-003" in ids(check(url=site, ca_file=certificates.ca_file))
    finally:
        del certificates.server_context


def test_the_running_redis_is_asked_about_eviction_and_persistence(
    make_redis: Callable[..., RedisServer],
) -> None:
    server = make_redis(
        options={"maxmemory": "50mb", "maxmemory-policy": "allkeys-lru", "save": "", "appendonly": "no"}
    )
    found = ids(check(environ={**GOOD, "MKS_REDIS_URL": server.url}, host=True))
    assert {"MKS-HOST-012", "MKS-HOST-013"} <= found


def test_a_careful_redis_has_no_findings(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis(options={"maxmemory": "50mb", "maxmemory-policy": "noeviction", "appendonly": "yes"})
    found = ids(check(environ={**GOOD, "MKS_REDIS_URL": server.url}, host=True))
    assert not found & {"MKS-HOST-012", "MKS-HOST-013", "MKS-HOST-006"}


def test_the_running_postgresql_is_asked_how_many_connections_it_allows(postgres_url: str) -> None:
    settings = {**GOOD, "DATABASE_URL": postgres_url, "MKS_DB_MAX_CONNECTIONS": "100000"}
    assert "MKS-HOST-014" in ids(check(environ=settings, host=True))
    assert "MKS-HOST-014" not in ids(check(environ={**settings, "MKS_DB_MAX_CONNECTIONS": "5"}, host=True))


def test_servers_that_are_unavailable_are_no_finding() -> None:
    settings = {
        **GOOD,
        "MKS_REDIS_URL": "redis://127.0.0.1:1/0",
        "DATABASE_URL": "postgresql+psycopg://a@127.0.0.1:1/a",
    }
    found = ids(check(environ=settings, host=True))
    assert not found & {"MKS-HOST-012", "MKS-HOST-013", "MKS-HOST-014", "MKS-RUN-001"}
