"""``mks-deploy test`` and testssl.sh against a rendered host, and against one that keeps no promise."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy_certificates import Certificates
from deploy_host import HOST, Host
from deploy_site import Site
from mks_deploy.cli import main
from mks_deploy.operations.probe import Target, probe
from testbed.nginx_server import NginxServer
from testbed.polling import wait_until
from testbed.services import program

pytestmark = pytest.mark.nginx


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("issued"))


@pytest.fixture(scope="module")
def host(issued: Certificates) -> Iterator[Host]:
    with _served(issued) as host:
        yield host


@contextmanager
def _served(issued: Certificates, **options: str) -> Iterator[Host]:
    host = Host(issued, **options)
    try:
        host.render()
        host.start_application()
        host.start_nginx()
        yield host
    finally:
        host.stop()


def test_a_rendered_host_keeps_every_promise(host: Host, issued: Certificates, capsys: Any) -> None:
    words = ["test", f"https://{HOST}:{host.https}", "--http-port", str(host.http), "--address", "127.0.0.1"]
    assert main([*words, "--ca", str(issued.ca_file)]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.count("✓") >= 25
    assert "– HSTS for 180 days or more" in out
    assert 'max-age=300; set tls.hsts_max_age = "730d" once https has worked for a week' in out
    assert out.endswith("all promises hold\n")


@pytest.fixture(scope="module")
def make_site(issued: Certificates) -> Iterator[Any]:
    made: list[Site] = []

    def make(**options: str) -> Site:
        made.append(Site(issued, "gunicorn wsgi", **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.host.stop()


NOTHING = "default-src 'none'; form-action 'none'"


@pytest.mark.parametrize(
    ("options", "blocked"),
    [
        # An application without a policy: nothing is added, so nothing is blocked.
        ({}, []),
        # What nginx once added to every such page.
        (
            {"edge": f'content_security_policy = "{NOTHING}"'},
            [
                (
                    "/: a browser shows all of the page  style-src-elem blocks {site}/style.css of <link>; "
                    "style-src-elem blocks inline of <style>; form-action blocks {site}/sign-in of <form>; 2 more; "
                    "allowed by csp.style-src-elem = [\"'self'\"]; allowed by csp.style-src-elem = [\"'sha256-"
                )
            ],
        ),
        # Another page, and a style that is not served.
        (
            {"target": "incomplete", "pages": "/start"},
            ["/start: a browser shows all of the page  {site}/style.css of <link> is answered with 404"],
        ),
        # The front page leads to the sign-in page.
        ({"target": "redirecting", "edge": "content_security_policy = \"default-src 'self'\""}, ["/start: "]),
        # The front page has a link to it.
        ({"target": "linking", "edge": "content_security_policy = \"form-action 'none'\""}, ["/sign-in: "]),
    ],
)
def test_pages_are_judged_as_a_browser_shows_them(
    make_site: Any, issued: Certificates, capsys: Any, options: dict[str, str], blocked: list[str]
) -> None:
    pages = [f"--page={path}" for path in options.pop("pages", "").split()]
    host = make_site(**options).host
    words = [
        "test",
        *pages,
        f"https://{HOST}:{host.https}",
        "--http-port",
        str(host.http),
        "--address",
        "127.0.0.1",
    ]
    assert main([*words, "--ca", str(issued.ca_file)]) == bool(blocked)
    lines = capsys.readouterr().out.splitlines()
    bad = [re.sub(" {2,}", "  ", line[2:]) for line in lines if line.startswith("✗")]
    assert len(bad) == len(blocked)
    for found, start in zip(bad, blocked, strict=True):
        assert found.startswith(start.format(site=f"https://{HOST}:{host.https}"))
    assert any("a browser shows all of the page" in line for line in lines)


@pytest.mark.parametrize(("server", "reached"), [("uvicorn asgi", True), ("gunicorn wsgi", False)])
def test_a_websocket_is_tried(issued: Certificates, capsys: Any, server: str, *, reached: bool) -> None:
    site = Site(issued, server)
    try:
        site.start()
        words = ["test", f"https://{HOST}:{site.host.https}", "--http-port", str(site.host.http)]
        words += ["--address", "127.0.0.1", "--ca", str(issued.ca_file), "--websocket", "/live"]
        assert main(words) == (not reached)
        missing = "/live: a browser shows all of the page" in (out := capsys.readouterr().out)
        assert ("the WebSocket is not opened: 404" in out) == missing == (not reached)
    finally:
        site.host.stop()


def _answers(host: Host) -> bool:
    try:
        return host.ask("/livez") is not None
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
def test_a_host_without_nginx_keeps_every_promise(
    issued: Certificates, redis_server: Any, postgres_url: str, capsys: Any
) -> None:
    """The real application: without nginx it is the one that adds header fields and refuses hosts and methods."""
    direct = Host(issued, mode="direct", application="knowledge_system.app:from_env()")
    try:
        direct.render()
        variables = direct.application_variables(redis_url=redis_server.url, postgres_url=postgres_url)
        direct.start_direct(**variables)
        # The port is open before the workers have imported the application.
        wait_until(lambda: _answers(direct), timeout=60, what="the application")
        words = ["test", f"https://{HOST}:{direct.https}", "--http-port", str(direct.http)]
        words += ["--address", "127.0.0.1", "--ca", str(issued.ca_file)]
        assert main(words) == 0, capsys.readouterr().out
    finally:
        direct.stop()


def test_a_host_that_keeps_no_promise_is_told_each(
    tmp_path: Path, issued: Certificates, certificates: Any
) -> None:
    text = """
    server { listen @port@; listen @tls_port@ ssl; ssl_certificate @cert@; ssl_certificate_key @key@;
        location / { add_header Cache-Control a; add_header Cache-Control b; return 200 ok; } }
    """
    server = NginxServer(tmp_path / "nginx", text, certificates=certificates)
    server.start()
    try:
        target = Target(HOST, server.tls_port, server.port, "127.0.0.1", issued.ca_file)
        found = {finding.promise: finding for finding in probe(target)}
    finally:
        server.stop()
    assert not found["the chain is trusted and names the host"].holds
    bad = [promise for promise, finding in found.items() if not finding.holds]
    for promise in (
        "plain http: GET is redirected to https",
        "plain http: POST is redirected to https",
        "/: HSTS once",
        "/: Cache-Control once",
        "/: no version of the server",
        "an unknown name is refused in the handshake",
        "an unknown host behind a known handshake is refused",
        "/.git/config does not exist",
    ):
        assert promise in bad


def test_a_certificate_near_its_end_is_told(host: Host, issued: Certificates) -> None:
    target = Target(HOST, host.https, host.http, "127.0.0.1", issued.ca_file)
    later = datetime.now(UTC) + timedelta(days=80)
    found = {finding.promise: finding for finding in probe(target, now=later)}
    assert not found["the certificate lasts"].holds


@pytest.mark.parametrize(
    "url", ["http://a.example", "https://", "a.example", "https://u@a.example", "https://a/b"]
)
def test_what_is_no_address_of_a_host_is_refused(url: str, capsys: Any) -> None:
    assert main(["test", url]) == 2
    assert "must be" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif("MKS_VERIFY_DEPLOY" not in os.environ, reason="takes minutes; make verify-deploy runs it")
@pytest.mark.timeout(400)
def test_testssl_gives_the_best_grade(issued: Certificates, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [program("testssl"), "--quiet", "--color", "0", "--ip", "127.0.0.1", "--add-ca", issued.ca_file]
    command += ["--jsonfile", report, "--warnings", "batch", "--nodns", "min", "--fast"]
    # The grade is capped while HSTS lasts less than half a year, as in a site's first week.
    with _served(issued, hsts='hsts_max_age = "730d"') as host:
        subprocess.run([*command, f"{HOST}:{host.https}"], check=False, capture_output=True, timeout=380)
    found = {entry["id"]: entry for entry in json.loads(report.read_text())}
    assert found["overall_grade"]["finding"] == "A+"
    serious = {"HIGH", "CRITICAL", "FATAL"}
    # The authority of the test has no list of revoked certificates; that is its own matter.
    of_the_edge = [entry for entry in found.values() if not entry["id"].startswith("cert_")]
    assert {entry["id"]: entry["finding"] for entry in of_the_edge if entry["severity"] in serious} == {}


def test_a_page_of_another_site_is_a_wrong_option(host: Host, issued: Certificates, capsys: Any) -> None:
    words = ["test", f"https://{HOST}:{host.https}", "--http-port", str(host.http), "--address", "127.0.0.1"]
    assert main([*words, "--ca", str(issued.ca_file), "--page", "https://other.example/"]) == 2
    assert "pages must be a path of the site, not 'https://other.example/'" in capsys.readouterr().err
