"""The first call of a process imports nothing: a forked child would wait for ever for a lock of its parent."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from testbed.http_sink import HttpSink
from testbed.redis_groups import RedisCluster, SentinelGroup
from testbed.redis_server import RedisServer
from testbed.run_python import run_python
from testbed.smtp_server import SmtpServer

PRELUDE = """
import asyncio, sys
from contextlib import suppress
from mks_hardening import cache, security, wsgi
from mks_hardening._core.backend.http_session import HttpSession
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.mail.smtp_server import smtp_session
from mks_hardening.exceptions import BackendUnavailableError

imported = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        imported.append(name)

def watch(*calls):
    loop = asyncio.new_event_loop()
    sys.meta_path.insert(0, Watch())
    for call in calls:
        with suppress(BackendUnavailableError):
            answer = call()
            if asyncio.iscoroutine(answer):
                loop.run_until_complete(answer)
    print(*imported)
    sys.meta_path.pop(0)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
"""

PLAIN = """
watch(
    lambda: client.call("SET", "a", "1"),
    lambda: client.pipeline([("GET", "a"), ("GET", "a")]),
    lambda: client.script("return 1").run(["a"], []),
)
"""
ASYNC = """
watch(
    lambda: client.acall("SET", "a", "1"),
    lambda: client.apipeline([("GET", "a"), ("GET", "a")]),
    lambda: client.script("return 1").arun(["a"], []),
)
"""


def imported(code: str, *arguments: object) -> str:
    return run_python(PRELUDE + code, *map(str, arguments)).stdout.strip()


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_one_server_by_name(redis_server: RedisServer, calls: str) -> None:
    client = "client = RedisClient(sys.argv[1], store_budget=5)"
    assert imported(client + calls, redis_server.url.replace("127.0.0.1", "localhost")) == ""


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_a_server_that_refuses(calls: str) -> None:
    assert imported('client = RedisClient("redis://localhost:1", store_budget=5)' + calls) == ""


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_a_client_that_is_handed_in(redis_server: RedisServer, calls: str) -> None:
    client = "import redis; client = RedisClient(redis.Redis.from_url(sys.argv[1]), store_budget=5)"
    assert imported(client + calls, redis_server.url) == ""


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_tls(make_redis: Callable[..., RedisServer], certificates: Any, calls: str) -> None:
    server = make_redis(certificates=certificates)
    client = "client = RedisClient(sys.argv[1], store_budget=5)"
    assert imported(client + calls, f"{server.url}?ca_file={certificates.ca_file}") == ""


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_a_socket_file(make_redis: Callable[..., RedisServer], calls: str) -> None:
    server = make_redis(unix_socket=True)
    assert imported("client = RedisClient(sys.argv[1], store_budget=5)" + calls, server.unix_url) == ""


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_sentinels(redis_sentinels: SentinelGroup, calls: str) -> None:
    places = ",".join(f"localhost:{port}" for _, port in redis_sentinels.addresses)
    client = "client = RedisClient(sys.argv[1], store_budget=5)"
    assert imported(client + calls, f"redis+sentinel://{places}/mks") == ""


@pytest.mark.redis
@pytest.mark.parametrize("calls", [PLAIN, ASYNC], ids=["plain", "async"])
def test_a_cluster(redis_cluster: RedisCluster, calls: str) -> None:
    assert imported("client = RedisClient(sys.argv[1], store_budget=5)" + calls, redis_cluster.url) == ""


@pytest.mark.redis
@pytest.mark.parametrize(
    "calls",
    [
        """
        async def answer():
            return 1
        store = cache.RedisCache(sys.argv[1])
        watch(
            lambda: store.set("a", 1, tags=["t"]), lambda: store.get("a"),
            lambda: store.get_or_compute("b", lambda: 1), lambda: store.aget_or_compute("c", answer),
            lambda: store.delete("a"),
        )
        """,
        """
        limiter = security.RateLimiter({"a": [security.Limit("a", 1, 1)]}, storage=sys.argv[1])
        watch(lambda: limiter.hit("a", "x"), lambda: limiter.hit("a", "x"), lambda: limiter.ahit("a", "x"))
        """,
        """
        limiter = security.ConcurrencyLimiter({"a": 2}, storage=sys.argv[1])
        def held():
            with limiter.hold("a", "x"):
                pass
        async def aheld():
            async with limiter.hold("a", "x"):
                pass
        watch(held, aheld)
        """,
    ],
    ids=["cache", "limits", "slots"],
)
def test_what_stands_on_it(redis_server: RedisServer, calls: str) -> None:
    assert imported(textwrap.dedent(calls), redis_server.url) == ""


def test_http(make_http_sink: Callable[..., HttpSink], certificates: Any) -> None:
    code = """
session = HttpSession("chat", ca_file=sys.argv[2])
watch(lambda: session.post(sys.argv[1], json={"a": 1}), lambda: session.get("https://localhost:1/"))
"""
    sink = make_http_sink(tls=True)
    assert imported(code, sink.url.replace("127.0.0.1", "localhost"), certificates.ca_file) == ""


def test_mail(make_smtp: Callable[..., SmtpServer], certificates: Any) -> None:
    code = """
session = smtp_session(
    "localhost", smtp_port=int(sys.argv[1]), username="ada", password="hunter2", security="starttls",
    ssl_context=None, ca_file=sys.argv[2], timeout=10, allow_plaintext=False,
)
watch(lambda: session.deliver("a@example.com", ["b@example.com"], b"Subject: a\\r\\n\\r\\nb"))
"""
    server = make_smtp(security="starttls", users={"ada": "hunter2"})
    assert imported(code, server.port, certificates.ca_file) == ""


@pytest.mark.redis
def test_children_forked_during_the_first_calls_of_their_parent(redis_server: RedisServer) -> None:
    code = """
import os, signal, sys, threading
from mks_hardening._core.backend.redis_client import RedisClient

client = RedisClient(sys.argv[1], store_budget=5)
for _ in range(4):
    threading.Thread(target=lambda: [client.ping() for _ in range(50)]).start()
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # one that hangs is killed
        os._exit(0 if client.ping() else 1)
    children.append(child)
print(sum(os.waitpid(child, 0)[1] == 0 for child in children))
"""
    url = redis_server.url.replace("127.0.0.1", "localhost")
    flags = ("-I", "-W", "ignore::DeprecationWarning")
    assert [run_python(code, url, flags=flags, timeout=120).stdout for _ in range(10)] == ["10\n"] * 10
