from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mks_hardening.wsgi import RedisSessionStore, SessionManager
from testbed.polling import accepts_connections, free_port
from testbed.process import ServerProcess
from testbed.redis_server import RedisServer

SUPPORT = Path(__file__).parents[3] / "support"
pytestmark = pytest.mark.redis


class Site:
    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, cookie: str = "", *, method: str = "GET") -> tuple[int, str, str]:
        """Status, the cookie that was set, and the reason of a refusal."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
            answer = connection.getresponse()
            answer.read()
            set_cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
            return answer.status, set_cookie, answer.getheader("X-Session-Timeout-Reason") or ""
        finally:
            connection.close()

    def sign_in(self) -> str:
        status, cookie, _ = self.get("/sign-in")
        assert status == 200
        return cookie


@pytest.fixture(params=["plain", "preloaded"])
def site(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    preload = ["--preload"] if request.param == "preloaded" else []
    options = ["-b", f"127.0.0.1:{port}", "-w", "3", "--threads", "2", "--no-control-socket", *preload]
    environment = [f"SESSIONS_URL={redis_server.url}", f"PYTHONPATH={SUPPORT}"]
    process = ServerProcess(
        ["env", *environment, sys.executable, "-m", "gunicorn", *options, "wsgi_session_served:application"],
        log=tmp_path / "log",
        ready=lambda: accepts_connections(port),
    )
    process.start()
    yield Site(port)
    process.stop()


def test_a_session_is_alive_in_all_processes_and_dead_in_all(site: Site) -> None:
    cookie = site.sign_in()
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _, _ in pool.map(lambda _: site.get("/page", cookie), range(40))} == {200}
        assert site.get("/sign-out", cookie)[0] == 200
        answers = set(pool.map(lambda _: site.get("/page", cookie)[::2], range(40)))
    assert answers == {(401, "revoked")}


def test_rotation_in_one_process_kills_the_old_id_in_all(site: Site) -> None:
    old = site.sign_in()
    status, new, _ = site.get("/rotate", old)
    assert (status, new != old) == (200, True)
    answers = [site.get("/page", old, method="POST") for _ in range(12)]
    assert {(status, cookie) for status, cookie, _ in answers} == {(401, "")}  # the new cookie is left alone
    assert {site.get("/page", old)[0] for _ in range(12)} == {200}  # may have been under way
    assert {site.get("/page", new)[0] for _ in range(12)} == {200}
    site.get("/sign-out", new)
    assert {site.get("/page", old)[0] for _ in range(12)} == {401}


def test_one_of_many_rotations_wins_among_processes(site: Site) -> None:
    cookie = site.sign_in()
    with ThreadPoolExecutor(8) as pool:
        cookies = {new for _, new, _ in pool.map(lambda _: site.get("/rotate", cookie), range(16))}
    alive = [new for new in cookies - {""} if new.partition("=")[2] and site.get("/page", new)[0] == 200]
    assert len(alive) == 1


def test_the_limit_holds_among_processes(site: Site, redis_server: RedisServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        cookies = list(pool.map(lambda _: site.sign_in(), range(24)))
    assert len(set(cookies)) == 24
    assert sum(site.get("/page", cookie)[0] == 200 for cookie in cookies) == 3
    with RedisSessionStore(redis_server.url) as store:
        manager = SessionManager(store)
        assert len(manager.sessions("alice")) == 3
        assert manager.end_user("alice") == 3
    assert {site.get("/page", cookie)[0] for cookie in cookies} == {401}
