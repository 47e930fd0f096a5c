"""Bans, concurrent requests and deadlines in gunicorn workers of gevent."""

from __future__ import annotations

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("gevent", reason="gevent is not installed")

from gunicorn_server import Gunicorn
from mks_hardening.security import ConcurrencyLimiter
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.redis]
ATTACKER, OTHER = "198.51.100.7", "203.0.113.9"
PROGRAM = """
import os, time
from mks_hardening.compose import harden_wsgi
from mks_hardening.security import ConcurrencyLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import BanList, BanRule, ConcurrencyRule, RequestTimeoutRule, request_deadline

def view(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/late":
        time.sleep(0.3)
        request_deadline(environ).timeout()
    start_response("404 Not Found" if path == "/missing" else "200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

settings = HardeningSettings.from_env(environ={
    "MKS_ENV": "test", "MKS_ALLOWED_HOSTS": "127.0.0.1", "MKS_TRUSTED_PROXIES": "127.0.0.1",
    "MKS_STORE_BUDGET": "5s"})
application = harden_wsgi(
    view, settings,
    bans=BanList([BanRule("probing", strikes=6, when={404})], store=os.environ["STORE"], store_budget=5),
    concurrency_limiter=ConcurrencyLimiter({"crowded": 1}, storage=os.environ["STORE"], store_budget=5),
    concurrency_rules=[ConcurrencyRule("crowded", path="/crowded")],
    timeout_rules=[RequestTimeoutRule("/late", 0.1)],
)
"""


@pytest.fixture
def server(tmp_path: Path, redis_server: RedisServer) -> Gunicorn:
    return Gunicorn(
        tmp_path,
        config="worker_class = 'gevent'\nworkers = 2\n",
        program=PROGRAM,
        environ={"STORE": redis_server.url},
    )


def status(server: Gunicorn, path: str, client: str = OTHER) -> int:
    fields = {"X-Forwarded-For": client, "X-Forwarded-Proto": "https"}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=fields)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_offences_of_all_workers_lead_to_a_ban(server: Gunicorn) -> None:
    try:
        assert {status(server, "/missing", ATTACKER) for _ in range(6)} <= {404, 403}
        # Offences in one worker reach the other within a second.
        wait_until(
            lambda: {status(server, "/", ATTACKER) for _ in range(8)} == {403}, what="the ban in both workers"
        )
        assert status(server, "/") == 200
    finally:
        server.process.terminate()
        server.process.wait(30)


def test_concurrent_requests_and_deadlines(server: Gunicorn, redis_server: RedisServer) -> None:
    limiter = ConcurrencyLimiter({"crowded": 1}, storage=redis_server.url, store_budget=5)
    try:
        with limiter, limiter.hold("crowded", "all"), ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: status(server, "/crowded"), range(8))) == {503}
        # A slot is released after the client has the last byte.
        for _ in range(4):
            wait_until(lambda: status(server, "/crowded") == 200, what="the slot")
        assert status(server, "/late") == 504
        assert status(server, "/") == 200
    finally:
        server.process.terminate()
        server.process.wait(30)
