"""Many processes, one computation: cold, at expiry, and when the one who computes dies."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.cache import RedisCache
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

pytestmark = pytest.mark.redis

# Each process runs so many threads or tasks that ask at the same moment, in several rounds, each with new
# connections and a key of its own; it prints what they got in each round. Where there was a value, the function
# ends when all processes have their answers.
WORKER = """
import asyncio, json, sys, threading, time
import redis
from mks_hardening.cache import RedisCache, cached

url, kind, callers, key, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
processes, later = int(sys.argv[6]), float(sys.argv[7])
counter = redis.Redis.from_url(url)

class Clock:
    monotonic = staticmethod(time.monotonic)
    def time(self):
        return time.time() + later

def count(name):
    return int(counter.get(name) or 0)

def start_together(name):
    counter.incr("ready" + name)
    while count("go" + name) == 0:
        time.sleep(0.002)

def ask(name):
    cache = RedisCache(url, signing_keys=["0123456789abcdef"], clock=Clock())
    before = count("computed" + name)

    def is_waiting():
        return before > 0 and count("answered" + name) < processes

    @cached(cache=cache, key_prefix=name, ttl=600, stale_while_revalidate=600)
    def answer():
        time.sleep(0.4)
        while is_waiting(): time.sleep(0.01)
        return int(counter.incr("computed" + name))

    @cached(cache=cache, key_prefix=name, ttl=600, stale_while_revalidate=600)
    async def aanswer():
        await asyncio.sleep(0.4)
        while is_waiting(): await asyncio.sleep(0.01)
        return int(counter.incr("computed" + name))

    got = []
    if kind == "threads":
        barrier = threading.Barrier(callers + 1)
        def work():
            barrier.wait()
            got.append(answer())
        threads = [threading.Thread(target=work) for _ in range(callers)]
        for thread in threads: thread.start()
        start_together(name)
        barrier.wait()
        for thread in threads: thread.join()
        counter.incr("answered" + name)
        for thread in threading.enumerate():
            if thread.name == "mks-cache-refresh": thread.join()
        cache.close()
    else:
        async def main():
            got.extend(await asyncio.gather(*(aanswer() for _ in range(callers))))
            counter.incr("answered" + name)
            while asyncio.all_tasks() != {asyncio.current_task()}: await asyncio.sleep(0.01)
            await cache.aclose()
        start_together(name)
        asyncio.run(main())
    return got

print(json.dumps([ask(f"{key}{number}") for number in range(rounds)]))
"""


class Crowd:
    """Four processes with many callers each."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self.server = server
        self.script = folder / "worker.py"
        self.script.write_text(WORKER)

    def ask(self, kind: str, *, later: float = 0.0) -> list[Any]:
        (got,) = self.rounds(kind, 1, later=later)
        return got

    def rounds(self, kind: str, count: int, *, away: float = 0.0, later: float = 0.0) -> list[list[Any]]:
        """Return what the callers got in each round.

        Args:
            kind: threads or tasks.
            count: number of rounds.
            away: seconds for which each process is stopped in turn.
            later: seconds by which the clocks of the caches are ahead.
        """
        processes = 4
        names = [f"shared{number}" for number in range(count)]
        for name in names:
            self.server.command("DEL", f"ready{name}", f"go{name}", f"answered{name}")
        arguments = [
            sys.executable,
            self.script,
            self.server.url,
            kind,
            50,
            "shared",
            count,
            processes,
            later,
        ]
        started = [subprocess.Popen([*map(str, arguments)], stdout=subprocess.PIPE) for _ in range(processes)]
        with stopped_in_turn(started, away) if away else nullcontext():
            for name in names:
                wait_until(
                    lambda name=name: int(self.server.command("GET", f"ready{name}") or 0) == processes,
                    timeout=120,
                    what="ready workers",
                )
                self.server.command("SET", f"go{name}", 1)
            outputs = [process.communicate(timeout=120)[0] for process in started]
        assert [process.returncode for process in started] == [0] * processes
        of_processes = [json.loads(output) for output in outputs]
        return [[value for of_process in of_processes for value in of_process[at]] for at in range(count)]

    def computed(self, number: int = 0) -> int:
        return int(self.server.command("GET", f"computedshared{number}") or 0)


@pytest.fixture
def crowd(make_redis: Callable[..., RedisServer], tmp_path: Path) -> Crowd:
    server = make_redis()
    with suppress(PermissionError):  # only the callers wait for the processor, however busy the machine is
        os.setpriority(os.PRIO_PROCESS, server.process.pid, -20)
    return Crowd(server, tmp_path)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_one_computation_for_four_processes(crowd: Crowd, kind: str) -> None:
    assert crowd.ask(kind) == [1] * 200
    assert crowd.computed() == 1
    assert crowd.ask(kind, later=700) == [1] * 200  # nobody waits: all have the old answer
    assert crowd.computed() == 2


@contextmanager
def stopped_in_turn(processes: list[subprocess.Popen[bytes]], seconds: float) -> Iterator[None]:
    """Take the processor from each process for so many seconds, again and again."""
    ended = threading.Event()

    def stop_in_turn() -> None:
        for process in cycle(processes):
            process.send_signal(signal.SIGSTOP)
            ended.wait(seconds)
            process.send_signal(signal.SIGCONT)
            if ended.is_set():
                return

    thread = threading.Thread(target=stop_in_turn)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two other programs that use the processor."""
    program = "import os; os.nice(19)\nwhile True: pass"  # Redis goes before them
    programs = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    try:
        yield
    finally:
        for running in programs:
            running.kill()
            running.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("busy_machine")
def test_one_computation_while_other_programs_use_the_processor(crowd: Crowd) -> None:
    got = crowd.rounds("threads", 10, away=0.15)  # longer than the budget of an operation
    assert [crowd.computed(number) for number in range(10)] == [1] * 10
    assert got == [[1] * 200] * 10


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[RedisCache]:
    with RedisCache(redis_server.url, store_budget=5) as made:
        yield made


@pytest.fixture
def dying_holder(cache: RedisCache, redis_server: RedisServer) -> Iterator[int]:
    """A process that computes ``k`` for ever."""
    child = os.fork()
    if child == 0:
        cache.get_or_compute("k", signal.pause)
        os._exit(1)
    try:
        wait_until(lambda: redis_server.command("EXISTS", "mks:l:{=k}") == 1, timeout=10, what="a lease")
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_killed_holder_is_replaced_long_before_patience_ends(
    dying_holder: int, redis_server: RedisServer
) -> None:
    os.kill(dying_holder, signal.SIGKILL)
    seconds, microseconds = map(int, redis_server.command("TIME"))
    left = int(redis_server.command("HGET", "mks:l:{=k}", "until")) - (seconds * 1000 + microseconds // 1000)
    assert left <= 1000  # milliseconds that a dead holder costs
    with RedisCache(redis_server.url, compute_wait=600, store_budget=5) as patient:
        assert patient.get_or_compute("k", lambda: "mine") == "mine"
        assert patient.get("k") == "mine"  # what is computed without the lease is not kept


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_living_holder_keeps_its_lease_however_long_it_computes(
    dying_holder: int, redis_server: RedisServer
) -> None:
    until = int(redis_server.command("HGET", "mks:l:{=k}", "until"))
    wait_until(
        lambda: int(redis_server.command("HGET", "mks:l:{=k}", "until")) > until + 1500,
        timeout=20,
        what="a lease renewed several times",
    )
    with RedisCache(redis_server.url, compute_wait=0.05, store_budget=5) as impatient:
        assert impatient.get_or_compute("k", lambda: "for myself") == "for myself"
        assert impatient.get("k") is None


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_holder_that_was_stopped_for_long_still_keeps_its_value(
    cache: RedisCache, redis_server: RedisServer
) -> None:
    def compute() -> str:
        redis_server.command("HSET", "mks:l:{=k}", "until", 1)  # nobody heard of it for long
        return "kept"

    assert cache.get_or_compute("k", compute) == "kept"
    assert cache.get("k") == "kept"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_an_invalidation_in_another_process_wins_over_a_computation(cache: RedisCache) -> None:
    def compute() -> str:
        child = os.fork()
        if child == 0:
            done = cache.invalidate_tags("t")
            os._exit(0 if done else 1)
        assert os.waitpid(child, 0)[1] == 0
        return "old"

    assert cache.get_or_compute("k", compute, tags=["t"]) == "old"
    assert cache.get("k") is None


def test_two_processes_that_compute_for_each_other_do_not_hang(redis_server: RedisServer) -> None:
    """Caches of their own, so that the two only meet in Redis."""
    both = threading.Barrier(2)

    def ask(own: str, other: str) -> str:
        with RedisCache(redis_server.url, compute_wait=0.2, store_budget=5) as cache:

            def compute() -> str:
                both.wait(10)  # each holds its own lease now
                return own + cache.get_or_compute(other, lambda: other)

            return cache.get_or_compute(own, compute)

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask, "a", "b"), pool.submit(ask, "b", "a")]
        assert [answer.result(20)[0] for answer in answers] == ["a", "b"]


def test_a_busy_event_loop_keeps_its_leases(redis_server: RedisServer) -> None:
    def until() -> int:
        return int(redis_server.command("HGET", "mks:l:{=k}", "until"))

    async def compute() -> str:
        first = until()
        # This blocks the loop, as a long computation does.
        wait_until(lambda: until() > first + 1000, timeout=20, what="a lease renewed several times")
        return "kept"

    async def scenario() -> None:
        async with RedisCache(redis_server.url, store_budget=5) as cache:
            assert await cache.aget_or_compute("k", compute) == "kept"
            assert await cache.aget("k") == "kept"

    asyncio.run(scenario())


def test_a_lease_whose_holder_was_dropped_ends(redis_server: RedisServer) -> None:
    with RedisCache(redis_server.url, store_budget=5) as cache:
        held = cache.begin("k")
        assert held is not None
        assert cache.begin("k") is None
        del held

        def free() -> bool:
            gc.collect()  # a renewal that met an error may have left a cycle
            return cache.begin("k") is not None

        wait_until(free, timeout=10, what="a lease that ends")


class Waiters:
    """One caller that computes when it is told to, and several caches that wait for it."""

    def __init__(self, url: str, count: int, stack: ExitStack) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.computing = stack.enter_context(RedisCache(url, store_budget=5, compute_wait=30))
        self.others = [
            stack.enter_context(RedisCache(url, store_budget=5, compute_wait=30)) for _ in range(count)
        ]
        self.pool = stack.enter_context(ThreadPoolExecutor(count + 1))

    def compute(self) -> str:
        self.begun.set()
        assert self.go_on.wait(30)
        return "value"

    def start(self, server: RedisServer, compute: Callable[[], str] | None = None) -> list[Future[str]]:
        first = self.pool.submit(self.computing.get_or_compute, "k", compute or self.compute)
        assert self.begun.wait(30)
        waiting = [
            self.pool.submit(other.get_or_compute, "k", lambda: "computed again") for other in self.others
        ]
        wait_until(lambda: server.command_count("blmove") >= len(waiting), timeout=30, what="blocked callers")
        return [first, *waiting]


@pytest.fixture
def waiters(redis_server: RedisServer) -> Iterator[Waiters]:
    with ExitStack() as stack:
        yield Waiters(redis_server.url, 3, stack)


def test_all_waiting_processes_are_woken(waiters: Waiters, redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "RESETSTAT")
    answers = waiters.start(redis_server)
    waiters.go_on.set()
    assert [answer.result(30) for answer in answers] == ["value"] * 4
    assert redis_server.command("PTTL", "mks:w:{=k}") != -1  # the list ends by itself


def test_a_failed_computation_wakes_them_too(waiters: Waiters, redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "RESETSTAT")

    def fail() -> str:
        waiters.compute()
        raise ZeroDivisionError

    first, *others = waiters.start(redis_server, fail)
    waiters.go_on.set()
    with pytest.raises(ZeroDivisionError):
        first.result(30)
    assert [answer.result(30) for answer in others] == ["computed again"] * 3


def test_without_a_wake_up_they_look_again(waiters: Waiters, redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "RESETSTAT")
    first, *others = waiters.start(redis_server)
    waiters.others[0].delete("k")  # nobody pushes
    assert [answer.result(30) for answer in others] == ["computed again"] * 3
    waiters.go_on.set()
    assert first.result(30) == "value"


def test_users_of_redis_without_blocking_commands_are_not_woken(redis_server: RedisServer) -> None:
    redis_server.command("ACL", "SETUSER", "poor", "on", ">secret", "~*", "&*", "+@all", "-@blocking")
    url = redis_server.url.replace("redis://", "redis://poor:secret@", 1)
    try:
        with ExitStack() as stack:
            waiters = Waiters(url, 1, stack)
            first = waiters.pool.submit(waiters.computing.get_or_compute, "k", waiters.compute)
            assert waiters.begun.wait(30)
            second = waiters.pool.submit(waiters.others[0].get_or_compute, "k", lambda: "computed again")
            wait_until(
                lambda: redis_server.command("HEXISTS", "mks:l:{=k}", "waiting"), timeout=30, what="a waiter"
            )
            waiters.go_on.set()
            assert (first.result(30), second.result(30)) == ("value", "value")
    finally:
        redis_server.command("ACL", "DELUSER", "poor")


def test_tasks_are_woken(waiters: Waiters, redis_server: RedisServer) -> None:
    redis_server.command("CONFIG", "RESETSTAT")
    first = waiters.pool.submit(waiters.computing.get_or_compute, "k", waiters.compute)
    assert waiters.begun.wait(30)

    async def again() -> str:
        return "computed again"

    async def ask() -> list[str]:
        cache = waiters.others[0]
        asked = [asyncio.create_task(cache.aget_or_compute("k", again)) for _ in range(5)]
        while redis_server.command_count("blmove") < 1:  # noqa: ASYNC110 - it happens in Redis
            await asyncio.sleep(0.01)
        waiters.go_on.set()
        found = await asyncio.gather(*asked)
        await cache.aclose()
        return found

    assert asyncio.run(ask()) == ["value"] * 5
    assert first.result(30) == "value"


INVALIDATIONS: dict[str, Callable[[RedisCache], object]] = {
    "tag": lambda cache: cache.invalidate_tags("t"),
    "key": lambda cache: cache.delete("k"),
    "pattern": lambda cache: cache.delete_pattern("k*"),
    "everything": lambda cache: cache.clear(),
}


@pytest.mark.parametrize(
    ("invalidation", "full"),
    [
        *((name, "") for name in INVALIDATIONS),
        # A server whose memory is full refuses what needs memory, which all of these but a new generation do not.
        *((name, full) for name in ("tag", "key", "pattern") for full in ("before", "during")),
    ],
)
def test_who_comes_after_an_invalidation_elsewhere_does_not_share_what_began_before(
    redis_server: RedisServer, invalidation: str, full: str
) -> None:
    began, may_end = threading.Event(), threading.Event()

    def compute() -> str:
        began.set()
        assert may_end.wait(60)
        return "old"

    with (
        RedisCache(redis_server.url, store_budget=5) as one,
        RedisCache(redis_server.url, store_budget=5) as other,
        ThreadPoolExecutor(8) as pool,
    ):

        def read(compute: Callable[[], str]) -> object:
            return other.get_or_compute("k", compute, tags=["t"], ttl=600, compute_wait=30)

        if full == "before":
            redis_server.command("CONFIG", "SET", "maxmemory", 1)
        first = pool.submit(read, compute)
        assert began.wait(20)
        if full == "during":
            redis_server.command("CONFIG", "SET", "maxmemory", 1)
        errors = one.stats().errors
        INVALIDATIONS[invalidation](one)
        assert one.stats().errors == errors
        later = [pool.submit(read, lambda: "new") for _ in range(4)]
        wait_until(lambda: other.stats().misses == 5, what="callers that come later")
        may_end.set()
        assert first.result(60) == "old"
        assert {each.result(60) for each in later} == {"new"}
