"""Applications that read no forwarding field, on each server as it is rendered, behind nginx with TLS."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from deploy_host import HOST
from deploy_site import CLIENT, Site

pytestmark = pytest.mark.nginx

LIES = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=http;host=evil.test",
}
WSGI = ("gunicorn wsgi", "granian wsgi")
ASGI = ("gunicorn asgi", "gunicorn-uvicorn asgi", "uvicorn asgi", "hypercorn asgi", "granian asgi")
SERVERS = (*WSGI, *ASGI)


@pytest.fixture(scope="module")
def site(certificates: Any) -> Iterator[Any]:
    """Start each server once for all its tests."""
    running: dict[str, Site] = {}

    def of(server: str) -> Site:
        if server not in running:
            running[server] = Site(certificates, server)
            running[server].start()
        return running[server]

    yield of
    for each in running.values():
        each.host.stop()


@pytest.mark.parametrize("server", SERVERS)
def test_the_application_knows_the_client_and_nobody_else_decides_who_it_is(site: Any, server: str) -> None:
    for lies in ({}, LIES):
        with site(server).ask("/who", lies) as answer:
            assert answer.read().decode() == f"{CLIENT} https {HOST}:{site(server).host.https}"


@pytest.mark.parametrize("server", ASGI)
def test_a_web_socket_passes(site: Any, server: str) -> None:
    with site(server).open_socket(**LIES) as opened:
        assert opened.recv(timeout=20) == f"{CLIENT} wss {HOST}:{site(server).host.https}"
        opened.send("a" * 100_000)
        assert opened.recv(timeout=20) == "A" * 100_000


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/events", "text/event-stream"),
        # As `fetch` asks, and as programs of chats do.
        ("GET", "/events", "*/*"),
        ("POST", "/events", "*/*"),
        ("GET", "/api/parts", "*/*"),
    ],
)
def test_parts_of_a_response_arrive_one_by_one(
    site: Any, server: str, method: str, path: str, accept: str
) -> None:
    """Without a mark of the client or the application; compressed or not."""
    with site(server).ask(path, {"Accept": accept, "Accept-Encoding": "gzip"}, method=method) as answer:
        compressed = answer.getheader("Content-Encoding") == "gzip"
        assert compressed == (path == "/api/parts")
        assert answer.getheader("X-Accel-Buffering") is None
        plain = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress if compressed else bytes
        text = b""
        while len(text) < len(b"data: first\n\n"):
            text += plain(answer.read1())
        assert text == b"data: first\n\n"
        with site(server).ask("/more", method="POST") as more:
            assert more.status == 200
        assert plain(answer.read()) == b"data: second\n\n"


@pytest.fixture
def make_site(certificates: Any) -> Iterator[Any]:
    made: list[Site] = []

    def make(server: str, **options: str) -> Site:
        made.append(Site(certificates, server, **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.host.stop()


@pytest.mark.parametrize("target", ["fixed", "trusting"])
@pytest.mark.parametrize("server", ["gunicorn wsgi", "uvicorn asgi"])
def test_an_application_that_reads_the_fields_itself_gets_the_same(
    make_site: Any, server: str, target: str
) -> None:
    """ProxyFix of Werkzeug, the one of uvicorn, and our own middleware: the client is decided once."""
    made = make_site(server, target=target)
    with made.ask("/who", LIES) as answer:
        assert answer.read().decode() == f"{CLIENT} https {HOST}:{made.host.https}"


@pytest.mark.parametrize(
    ("method", "upgrade"), [("GET", "h2c"), ("POST", "websocket"), ("GET", "websocket, h2c"), ("GET", "")]
)
def test_no_other_upgrade_reaches_the_application(site: Any, method: str, upgrade: str) -> None:
    fields = {"Connection": "Upgrade", "Upgrade": upgrade, "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    with site("gunicorn wsgi").ask("/fields", fields, method=method) as answer:
        seen = answer.read().decode()
    assert "HTTP_UPGRADE" not in seen
    assert "HTTP_CONNECTION" not in seen


def test_an_application_that_is_away_is_told_to_those_who_wait_for_events_too(certificates: Any) -> None:
    site = Site(certificates, "uvicorn asgi")
    try:
        site.host.render()
        site.host.start_nginx()
        with site.ask("/events", {"Accept": "text/event-stream"}) as answer:
            assert answer.status == 502
            assert "アプリケーションに接続できません" in answer.read().decode()
            assert len(answer.headers.get_all("Content-Security-Policy", [])) == 1
        flag = site.host.path("releases") / "maintenance.on"
        flag.parent.mkdir(exist_ok=True)
        flag.touch()
        with site.ask("/events", {"Accept": "text/event-stream"}) as answer:
            assert answer.status == 503
    finally:
        site.host.stop()


@pytest.mark.slow
def test_what_is_quiet_for_longer_than_the_limit_of_other_responses_stays_open(make_site: Any) -> None:
    site = make_site("uvicorn asgi", edge='read_timeout = "5s"', gunicorn='timeout = "3s"')
    with site.open_socket() as opened, site.ask("/events", {"Accept": "text/event-stream"}) as events:
        assert opened.recv(timeout=20)
        assert events.readline() == b"data: first\n"
        with site.ask("/quiet") as other:  # nginx ends it
            assert other.status == 504
        opened.send("still here")
        assert opened.recv(timeout=20) == "STILL HERE"
        with site.ask("/more", method="POST"):
            assert events.read() == b"\ndata: second\n\n"


@pytest.mark.slow
@pytest.mark.chromium
def test_somebody_signs_in_with_a_browser(make_site: Any, chromium_path: str) -> None:
    """A page with styles, a script and a form, of an application without a policy."""
    from playwright.sync_api import sync_playwright

    site = make_site("gunicorn wsgi")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    said: list[str] = []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=flags) as browser,
    ):
        page = browser.new_page(ignore_https_errors=True)
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"https://{HOST}:{site.host.https}/")
        assert page.title() == "ready"
        assert page.locator("form").evaluate("form => getComputedStyle(form).margin") == "16px"
        page.fill("input", "mori")
        page.click("button")
        page.locator("text=hello mori").wait_for()
    assert said == []
