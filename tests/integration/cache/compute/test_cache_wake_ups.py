"""Waiters that Redis wakes: in forked children and under gevent."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.operations import run
from mks_hardening.cache import RedisCache
from mks_hardening.cache.backends._wake_ups import WakeUps
from mks_hardening.exceptions import BackendUnavailableError
from testbed.polling import wait_until
from testbed.redis_server import RedisServer
from testbed.run_python import run_python

pytestmark = pytest.mark.redis


@pytest.fixture
def server(make_redis: Callable[..., RedisServer]) -> RedisServer:
    return make_redis()


@pytest.fixture
def holder(server: RedisServer) -> Iterator[Callable[[str], threading.Event]]:
    """Begins computations of another process, each until its event is set."""
    with RedisCache(server.url, store_budget=5) as cache:
        threads: list[threading.Thread] = []
        events: list[threading.Event] = []

        def hold(key: str) -> threading.Event:
            began, end = threading.Event(), threading.Event()

            def compute() -> str:
                began.set()
                end.wait(60)
                return "computed"

            threads.append(threading.Thread(target=lambda: cache.get_or_compute(key, compute)))
            events.append(end)
            threads[-1].start()
            assert began.wait(20)
            return end

        yield hold
        for end in events:
            end.set()
        for thread in threads:
            thread.join(60)


def blocked(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def test_a_child_that_is_forked_while_others_wait_is_woken_as_well(
    server: RedisServer, holder: Callable[[str], threading.Event]
) -> None:
    ends = [holder(f"k{number}") for number in range(17)]
    with RedisCache(server.url, store_budget=5) as cache:
        found: list[str] = []
        waiters = [
            threading.Thread(
                target=lambda key=key: found.append(cache.get_or_compute(key, lambda: "own", compute_wait=60))
            )
            for key in (f"k{number}" for number in range(16))
        ]
        for waiter in waiters:
            waiter.start()
        wait_until(lambda: blocked(server) >= 10, timeout=20, what="callers that wait in the server")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if cache.get_or_compute("k16", lambda: "own", compute_wait=60) == "computed" else 2
            finally:
                os._exit(code)
        for end in ends[:16]:
            end.set()
        for waiter in waiters:
            waiter.join(60)
        wait_until(lambda: blocked(server) == 1, timeout=20, what="the child, which waits in the server")
        ends[16].set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found == ["computed"] * 16


def test_only_a_server_that_is_away_ends_the_wait_with_an_error(server: RedisServer) -> None:
    with RedisClient(server.url) as client:
        wake_ups = WakeUps(client)
        assert run(wake_ups.block(b"list", 0.001))
        server.pause()  # a busy machine: half of the budget was the server's own wait
        assert run(wake_ups.block(b"list", 0.001))
        server.kill()
        with pytest.raises(BackendUnavailableError):
            run(wake_ups.block(b"list", 0.001))


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from mks_hardening.cache import RedisCache

with RedisCache(sys.argv[1], store_budget=5) as cache:
    jobs = [
        gevent.spawn(cache.get_or_compute, f"k{number % 20}", lambda: "own", compute_wait=60)
        for number in range(100)
    ]
    gevent.joinall(jobs, raise_error=True)
    assert {job.value for job in jobs} == {"computed"}, [job.value for job in jobs]
    assert cache.stats().errors == 0
    # An idle pool: nobody is left behind in the server.
    assert cache.get("k0") == "computed"
"""


def test_greenlets_that_wait_block_nobody_and_are_woken(
    server: RedisServer, holder: Callable[[str], threading.Event]
) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    ends = [holder(f"k{number}") for number in range(20)]

    def end_them() -> None:
        # A greenlet that blocked the others would wait in the server alone.
        wait_until(lambda: blocked(server) >= 10, timeout=60, what="greenlets that wait together")
        for end in ends:
            end.set()

    ending = threading.Thread(target=end_them)
    ending.start()
    run_python(GEVENT, server.url, timeout=120)
    ending.join()
    assert blocked(server) == 0
