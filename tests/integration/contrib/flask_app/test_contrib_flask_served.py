"""The Flask adapter as the documentation shows it, under real servers, with Redis and without."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from contrib_served import SNIPPETS, Browser, served
from mks_hardening.wsgi import RedisSessionStore, SessionManager
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess
from testbed.redis_server import RedisServer

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel"),
]
COOKIE = "mks-session"
HTML = "text/html,*/*;q=0.8"


@pytest.fixture
def browser(redis_server: RedisServer, tmp_path: Path) -> Iterator[Browser]:
    environment = {"MKS_ENV": "development", "MKS_REDIS_URL": redis_server.url, "MKS_STORE_BUDGET": "5s"}
    with served("flask_app:app", log=tmp_path / "log", environment=environment) as found:
        yield found


def test_one_session_for_all_processes_from_the_first_basket_to_the_sign_out(
    browser: Browser, redis_server: RedisServer
) -> None:
    assert browser.ask("/basket/helmet").json == {"user": None, "basket": ["helmet"], "messages": []}
    planted = browser.copy()
    assert browser.ask("/sign-in", {"name": "alice"}).headers["X-RateLimit-Limit"] == "5"
    assert (list(browser.cookies), browser.cookies != planted.cookies) == ([COOKIE], True)
    body = browser.ask("/basket/gloves").json
    assert body == {"user": "alice", "basket": ["helmet", "gloves"], "messages": ["welcome"]}
    assert planted.ask("/basket/bait").json["user"] is None
    baskets = [browser.ask(f"/basket/{number}").json["basket"] for number in range(8)]
    assert baskets[-1] == ["helmet", "gloves", *map(str, range(8))]
    with RedisSessionStore(redis_server.url, store_budget=5) as store:
        assert len(SessionManager(store).sessions("alice")) == 1
    stolen = browser.copy()
    browser.ask("/sign-out", {})
    assert browser.cookies == {}
    ended = stolen.copy().ask("/basket/x")
    assert (ended.status, ended.headers["X-Session-Timeout-Reason"]) == (401, "revoked")
    page = stolen.ask("/basket/x", Accept=HTML)
    assert (page.status, page.headers["Location"]) == (303, "/sign-in")


def test_requests_at_the_same_time_see_one_change_of_the_id(browser: Browser) -> None:
    browser.ask("/sign-in", {"name": "alice"})
    old = browser.copy()
    with ThreadPoolExecutor(8) as pool:
        rotation = pool.submit(browser.ask, "/second-factor", {})
        reads = list(pool.map(lambda _: old.copy().ask("/stream"), range(24)))
    assert rotation.result().status == 200
    assert {(answer.status, answer.body[:5]) for answer in reads} == {(200, b"alice")}
    assert browser.ask("/stream").body == b"alice 0\nalice 1\nalice 2\n"
    assert old.ask("/sign-out", {}).status == 401  # nothing is changed with the old id
    assert browser.ask("/basket/x").json["user"] == "alice"


def test_a_limit_holds_in_all_processes(browser: Browser) -> None:
    statuses = [browser.copy().ask("/sign-in", {"name": f"user{number}"}).status for number in range(8)]
    assert statuses == [200] * 5 + [429] * 3


def test_an_outage_is_a_503_that_keeps_the_cookie(browser: Browser, redis_server: RedisServer) -> None:
    browser.ask("/sign-in", {"name": "alice"})
    for _ in range(8):  # every process has seen the session
        browser.ask("/stream")
    before = dict(browser.cookies)
    redis_server.stop()
    # What was confirmed a moment ago is believed, by the process that has seen it.
    assert any(browser.ask("/stream").body.startswith(b"alice") for _ in range(8))
    for answer in (
        browser.ask("/basket/x"),
        browser.ask("/second-factor", {}),
        Browser(browser.port).ask("/basket/x"),
    ):
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers.get("Set-Cookie") is None
    assert Browser(browser.port, {COOKIE: "~" + "A" * 43}).ask("/basket/x").status == 503
    assert browser.cookies == before
    redis_server.start()
    wait_until(
        lambda: Browser(browser.port).ask("/basket/y").status == 200, what="the session store to be back"
    )


def test_without_redis_one_process_keeps_its_own(tmp_path: Path) -> None:
    with served(
        "flask_app:app", log=tmp_path / "log", environment={"MKS_ENV": "development"}, workers=1
    ) as browser:
        browser.ask("/sign-in", {"name": "alice"})
        assert browser.ask("/basket/x").json["user"] == "alice"


def test_flasks_own_server_reloads(tmp_path: Path) -> None:
    module, port = tmp_path / "reloaded.py", free_port()
    source = (SNIPPETS / "flask_app.py").read_text()
    module.write_text(source)
    options = ["--app", "reloaded", "run", "--port", str(port), "--reload"]
    server = ServerProcess(
        ["env", "MKS_ENV=development", f"PYTHONPATH={tmp_path}", sys.executable, "-m", "flask", *options],
        log=tmp_path / "log",
        ready=lambda: accepts_connections(port),
        cwd=tmp_path,
    )
    server.start()
    try:
        browser = Browser(port)
        assert browser.ask("/basket/x").json["basket"] == ["x"]
        module.write_text(source.replace('get("user_id")', 'get("user_id", "nobody")'))
        later = module.stat().st_mtime + 10
        os.utime(module, (later, later))

        def reloaded() -> bool:
            try:
                return bool(Browser(port).ask("/basket/x").json["user"] == "nobody")
            except (OSError, HTTPException):  # it goes while it answers
                return False

        wait_until(reloaded, what="the reloaded application")
    finally:
        server.stop()
