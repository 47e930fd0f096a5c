"""Limits whose cost the response decides, on a real Redis: several processes, outages, and clients that leave."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.security import RateLimiter
from mks_hardening.testing import call_asgi, call_wsgi
from mks_hardening.wsgi import RateLimitMiddleware, RateLimitRule
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess
from testbed.redis_server import RedisServer
from together import run_together

pytestmark = pytest.mark.redis

SUPPORT = Path(__file__).parents[2] / "support"
HERE = "127.0.0.1"
PROGRAM = """
import sys
from mks_hardening.security import RateLimiter
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import RateLimitMiddleware, RateLimitRule
url, final, status = sys.argv[1:]
def view(environ, start_response):
    start_response(status, [("Content-Type", "text/plain")])
    return [b""]
limiter = RateLimiter({"g": "20 per hour"}, storage=url, store_budget=5)
rule = RateLimitRule("g", final_cost=lambda request, response: int(final) if response.status == 401 else 0)
app = RateLimitMiddleware(view, limiter=limiter, rules=[rule])
limiter.test("g", "k")
print("ready", flush=True)
sys.stdin.readline()
print(*(call_wsgi(app).status for _ in range(25)))
"""


def left(url: str, group: str = "g", key: str = HERE, quota: str = "20 per hour") -> int:
    with RateLimiter({group: quota}, storage=url, store_budget=5) as limiter:
        return limiter.test(group, key).remaining[0]


@pytest.mark.parametrize(
    ("final", "status", "passed", "remaining"),
    [
        ("1", "401 Unauthorized", (20, 20), 0),  # exactly the limit fails, in all processes together
        # three fill it; each of the four processes may have reserved a hit before
        ("7", "401 Unauthorized", (3, 6), 0),
        ("1", "200 OK", (100, 100), 20),  # what succeeds costs nothing, however often
    ],
)
def test_processes_that_run_at_once(
    redis_url: str, final: str, status: str, passed: tuple[int, int], remaining: int
) -> None:
    outputs = run_together(PROGRAM, redis_url, final, status, processes=4)
    statuses = [int(word) for words in outputs for word in words]
    assert len(statuses) == 100
    assert set(statuses) <= {int(status[:3]), 429}
    least, most = passed
    assert least <= statuses.count(int(status[:3])) <= most
    assert left(redis_url) == remaining


@pytest.mark.parametrize("shell", ["wsgi", "asgi"])
@pytest.mark.parametrize("policy", ["local", "open", "closed"])
@pytest.mark.parametrize("final", [0, 3])
def test_redis_goes_between_the_request_and_its_cost(
    redis_server: RedisServer, shell: str, policy: Any, final: int
) -> None:
    """The response stays what it was; whatever the policy does, nothing is a 500."""
    from mks_hardening.asgi import RateLimitMiddleware as OverASGI

    def view(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        redis_server.kill()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    async def async_view(scope: Any, receive: Any, send: Any) -> None:
        redis_server.kill()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    limiter = RateLimiter(
        {"g": "5 per hour"}, storage=redis_server.url, store_budget=0.5, on_unavailable=policy
    )
    rules = [RateLimitRule("g", final_cost=lambda request, response: final)]
    with limiter:
        try:
            for expected in (200, 429 if policy == "closed" else 200):
                if shell == "wsgi":
                    answer: Any = call_wsgi(RateLimitMiddleware(view, limiter=limiter, rules=rules))
                else:
                    answer = call_asgi(OverASGI(async_view, limiter=limiter, rules=rules))
                assert answer.status == expected
        finally:
            redis_server.start()


SERVERS = {
    "uvicorn": ["uvicorn", "--no-access-log", "--port", "{port}", "limits_server_app:asgi"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", "limits_server_app:asgi"],
    "granian": [
        *("granian", "--interface", "asgi", "--workers", "1", "--no-access-log"),
        *("--host", "127.0.0.1", "--port", "{port}", "limits_server_app:asgi"),
    ],
    "gunicorn": [
        *("gunicorn", "--worker-class", "gthread", "--threads", "8", "--workers", "2"),
        *("--bind", "127.0.0.1:{port}", "limits_server_app:wsgi"),
    ],
    "waitress": ["waitress", "--listen", "127.0.0.1:{port}", "limits_server_app:wsgi"],
}


@pytest.fixture(params=SERVERS)
def port(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[int]:
    number = free_port()
    environ = [f"PYTHONPATH={SUPPORT}", f"REDIS={redis_url}", f"HOME={os.environ.get('HOME', '/')}"]
    command = [part.format(port=number) for part in SERVERS[request.param]]
    server = ServerProcess(
        ["env", *environ, "PYTHONWARNINGS=ignore", sys.executable, "-m", *command],
        log=tmp_path / "log",
        ready=lambda: accepts_connections(number),
    )
    server.start()
    yield number
    server.stop()


def request(port: int, path: str) -> socket.socket:
    """A connection on which a request was sent."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return client


def ask(port: int, path: str, *, until: int | None = None) -> int:
    """The status; a client with ``until`` leaves as soon as it has that many bytes of the response."""
    with request(port, path) as client:
        received = b""
        while until is None or len(received) < until:
            chunk = client.recv(1000)
            if not chunk:
                break
            received += chunk
    return int(received[9:12]) if received else 0


@pytest.mark.slow
def test_a_client_that_leaves_before_the_response_has_failed_for_no_less(port: int, redis_url: str) -> None:
    assert [ask(port, "/sign-in/200") for _ in range(7)] == [200] * 7
    key, quota = f"client:{HERE}", "5 per hour"
    for number in range(1, 6):
        # A client that leaves before the server has read its request has attempted nothing.
        with request(port, "/sign-in/401"):
            wait_until(
                lambda count=number: left(redis_url, "sign_in", key, quota) <= 5 - count,  # type: ignore[misc]
                what="the attempt to be counted",
            )
    # A server may end the handler without a response, but the hit that was reserved for it stays.
    assert ask(port, "/sign-in/200") == 429


@pytest.mark.slow
def test_a_stream_costs_its_bytes_and_a_client_that_leaves_no_more(port: int, redis_url: str) -> None:
    key, quota = f"client:{HERE}", "100000 per hour"
    assert ask(port, "/stream") == 200
    wait_until(lambda: left(redis_url, "bytes", key, quota) == 60_000, what="the bytes to be counted")
    ask(port, "/stream", until=3000)
    wait_until(lambda: left(redis_url, "bytes", key, quota) < 59_000, what="the rest to be counted")
    assert left(redis_url, "bytes", key, quota) >= 20_000
