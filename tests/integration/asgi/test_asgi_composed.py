"""The whole ASGI stack: several workers over one Redis, and requests that are cancelled while they wait for it."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from composed_server import ComposedServer
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.redis]
WORKERS = 3

Serve = Callable[..., ComposedServer]


@pytest.fixture
def serve(tmp_path: Path, redis_url: str) -> Iterator[Serve]:
    servers: list[ComposedServer] = []

    def start(**options: int) -> ComposedServer:
        environ = {"MKS_REDIS_URL": redis_url, "MKS_STORE_BUDGET": "5s"}
        servers.append(ComposedServer(tmp_path, environ, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.process.stop()


def test_workers_agree_on_sessions_limits_and_bans(serve: Serve) -> None:
    server = serve(workers=WORKERS)
    seen: Counter[int] = Counter()

    def all_workers_answered() -> bool:
        seen[server.ask("/who").json["pid"]] += 1
        return len(seen) == WORKERS

    wait_until(all_workers_answered, timeout=60, what="a response of each worker")

    cookie = server.sign_in("tanaka")
    replies = [server.ask("/who", cookie=cookie) for _ in range(30)]
    assert {reply.json["user"] for reply in replies} == {"tanaka"}
    assert len({reply.json["pid"] for reply in replies}) > 1
    assert server.ask("/sign-out", cookie=cookie).status == 200
    assert {server.ask("/who", cookie=cookie).status for _ in range(15)} == {401}

    statuses = Counter(server.ask("/limited", client="198.51.100.1").status for _ in range(20))
    assert statuses == {200: 5, 429: 15}
    assert server.ask("/limited", client="198.51.100.2").status == 200

    sweeper = "198.51.100.3"
    assert {server.ask("/missing", client=sweeper).status for _ in range(6)} == {404}

    def refused_everywhere() -> bool:
        return {server.ask("/who", client=sweeper).status for _ in range(12)} == {403}

    wait_until(refused_everywhere, timeout=10, what="the ban in all workers")
    assert server.ask("/who").status == 200
    assert server.ask("/livez", client=sweeper).status == 200


def test_a_cancelled_request_leaves_its_response_to_nobody(serve: Serve, redis_server: RedisServer) -> None:
    """The response of Redis to a request that was cancelled must not become that of another user's request."""
    server = serve()
    cookies = {user: server.sign_in(user) for user in ("tanaka", "sato")}
    for _ in range(3):
        redis_server.pause()
        leaving = []
        try:
            for _ in range(8):
                client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                head = f"GET /who HTTP/1.1\r\nHost: localhost\r\nCookie: {cookies['tanaka']}\r\n\r\n"
                client.sendall(head.encode())
                leaving.append(client)
            time.sleep(0.3)  # they wait for Redis
        finally:
            for client in leaving:
                client.close()
            time.sleep(0.2)  # they are cancelled
            redis_server.resume()
        for _ in range(10):
            for user, cookie in cookies.items():
                reply = server.ask("/who", cookie=cookie)
                assert (reply.status, reply.json["user"]) == (200, user)
    assert server.ask("/who").json["cancelled"] == 3 * 8
    assert "Traceback" not in server.process.log_tail(lines=500)
