"""A server that stops answering, while a connection to it is open: nobody waits longer than the deadline."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine  # noqa: TC002 - a reader of the hints
from sqlalchemy.pool import NullPool

from lateness import Lateness
from mks_hardening.db import hardened_async_engine, hardened_engine
from mks_hardening.db.engine import _client_deadline
from mks_hardening.db.engine._client_deadline import NO_RESPONSE, ClientDeadline, DriverWait
from mks_hardening.db.engine._server_probe import is_responding
from mks_hardening.tasks.transient import is_transient
from testbed.polling import free_port, wait_until
from testbed.postgres_server import PostgresServer

pytestmark = [
    pytest.mark.postgres,
    # A stream that was cut off cannot be closed any more; psycopg says so when it is collected.
    pytest.mark.filterwarnings("ignore:.*ServerCursor:pytest.PytestUnraisableExceptionWarning"),
]

PostgresError: type[Exception] = pytest.importorskip("asyncpg").PostgresError
DEADLINE = 0.6
SLACK = 0.6  # without the deadline each of these takes half a minute
HANDS = 3  # threads that wake one after another until the caller goes on, each as late as the machine is
DRIVERS = ["psycopg", "psycopg2", "psycopg-async", "asyncpg-async"]
Operation = Callable[[Connection, Callable[[], None]], float]


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """Let what was cut off be collected, and complained of, by the test that did it."""
    yield
    gc.collect()


def _bound(late: Lateness) -> float:
    """Seconds that an operation may take on this machine; far below what it takes without the deadline."""
    return DEADLINE + SLACK + min(10.0, HANDS * late.seconds)


def _failing(work: Callable[[], object]) -> float:
    """How long the work takes to fail, which it must."""
    started = time.monotonic()
    # What asyncpg says while it streams, SQLAlchemy passes on as it is.
    with pytest.raises((DBAPIError, PostgresError)) as caught:
        work()
    took = time.monotonic() - started
    origin = getattr(caught.value, "orig", None) or caught.value
    assert NO_RESPONSE in "".join(traceback.format_exception(origin))
    assert getattr(caught.value, "connection_invalidated", True)
    return took


def _execute(connection: Connection, freeze: Callable[[], None]) -> float:
    connection.execute(text("SELECT 1"))
    freeze()
    return _failing(lambda: connection.execute(text("SELECT 2")))


def _fetch(connection: Connection, freeze: Callable[[], None]) -> float:
    many = text("SELECT generate_series(1, 100000), repeat('x', 1000)")
    result = connection.execution_options(stream_results=True, max_row_buffer=10).execute(many)
    result.fetchmany(10)
    freeze()
    took = _failing(result.fetchall)
    del result
    gc.collect()
    return took


def _commit(connection: Connection, freeze: Callable[[], None]) -> float:
    connection.execute(text("SELECT 1"))
    freeze()
    return _failing(connection.commit)


def _run(driver: str, url: str, work: Callable[[Connection], float], **options: Any) -> float:
    """What the work says, with a connection of the driver."""
    name, _, world = driver.partition("-")
    url = url.replace("+psycopg", f"+{name}")
    options = {"client_deadline": DEADLINE, **options}
    if not world:
        engine = hardened_engine(url, **options)
        with engine.connect() as connection:
            took = work(connection)
        engine.dispose()
        return took

    async def ask() -> float:
        engine = hardened_async_engine(url, **options)
        connection = await engine.connect()
        took: float = await connection.run_sync(work)
        await connection.invalidate()  # asyncpg cannot roll back what is gone
        await connection.close()
        await engine.dispose()
        return took

    return asyncio.run(ask())


# A cursor of a server that is gone cannot be closed there, which psycopg says when it is collected.
@pytest.mark.filterwarnings("ignore:.*ServerCursor object:ResourceWarning")
@pytest.mark.filterwarnings("ignore:.*ServerCursor:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("operation", [_execute, _fetch, _commit])
@pytest.mark.parametrize("driver", DRIVERS)
def test_an_operation_on_a_stopped_server_ends_in_time(
    postgres_url: str, postgres_server: PostgresServer, driver: str, operation: Operation
) -> None:
    with Lateness() as late:
        took = _run(driver, postgres_url, lambda connection: operation(connection, postgres_server.freeze))
    assert took < _bound(late)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_checkout_with_pre_ping_ends_in_time(
    postgres_url: str, postgres_server: PostgresServer, driver: str
) -> None:
    name, _, world = driver.partition("-")
    url = postgres_url.replace("+psycopg", f"+{name}")

    def look(engine: Engine) -> float:
        with engine.connect():
            pass
        postgres_server.freeze()
        started = time.monotonic()
        with pytest.raises(DBAPIError, match=NO_RESPONSE):
            engine.connect()
        took = time.monotonic() - started
        postgres_server.resume()

        def is_back() -> bool:  # this machine may stand still for longer than the deadline
            try:
                with engine.connect() as connection:
                    return connection.execute(text("SELECT 1")).scalar() == 1
            except DBAPIError:
                return False

        wait_until(is_back)
        return took

    async def ask() -> float:
        engine = hardened_async_engine(url, client_deadline=DEADLINE)
        async with engine.connect():
            pass
        postgres_server.freeze()
        started = time.monotonic()
        with pytest.raises(DBAPIError, match=NO_RESPONSE):
            await engine.connect()
        took = time.monotonic() - started
        postgres_server.resume()
        for again in range(20):
            try:
                async with engine.connect() as connection:
                    assert (await connection.execute(text("SELECT 1"))).scalar() == 1
                break
            except DBAPIError:
                assert again < 19
        await engine.dispose()
        return took

    with Lateness() as late:
        if world:
            took = asyncio.run(ask())
        else:
            engine = hardened_engine(url, client_deadline=DEADLINE)
            took = look(engine)
            engine.dispose()
    assert took < _bound(late)


def test_a_long_statement_of_a_living_server_is_left_alone(postgres_url: str) -> None:
    """With each driver, side by side: the deadline is long, so that a late machine answers within it."""

    def work(connection: Connection) -> float:
        asked = connection.execute(text("SELECT 1 FROM pg_sleep(:long)"), {"long": 4.2})
        assert asked.scalar() == 1
        return 1.0

    with ThreadPoolExecutor() as threads:
        took = list(threads.map(lambda driver: _run(driver, postgres_url, work, client_deadline=2), DRIVERS))
    assert took == [1.0] * len(DRIVERS)


def test_a_server_that_stops_in_the_middle_is_noticed(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    def work(connection: Connection) -> float:
        timer = threading.Timer(DEADLINE * 1.2, postgres_server.freeze)
        timer.start()
        return _failing(lambda: connection.execute(text(f"SELECT pg_sleep({DEADLINE * 40})")))

    with Lateness() as late:
        took = _run("psycopg", postgres_url, work)
    assert took < DEADLINE * 1.2 + _bound(late)


def test_many_threads_are_let_go_together(postgres_url: str, postgres_server: PostgresServer) -> None:
    engine = hardened_engine(postgres_url, threads=8, client_deadline=DEADLINE)
    ready = threading.Barrier(9, timeout=10)
    frozen = threading.Event()
    took: list[float] = []

    def use() -> None:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            ready.wait()
            frozen.wait()
            took.append(_failing(lambda: connection.execute(text("SELECT 2"))))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    ready.wait()
    postgres_server.freeze()
    with Lateness() as late:
        frozen.set()
        for thread in threads:
            thread.join()
    engine.dispose()
    assert len(took) == 8
    assert max(took) < _bound(late)


def test_a_busy_event_loop_is_not_taken_for_a_silent_server(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stands still for longer than the deadline, while the server responds to two probes.

    Each probe may take as long as a busy machine needs: whether a slow response is silence is not asked here.
    """
    deadline = 0.5
    probed = threading.Semaphore(0)
    probe = _client_deadline.is_responding

    def patient_probe(family: int, address: Any, *, within: float) -> bool:
        responding = probe(family, address, within=within + 30)
        probed.release()
        return responding

    monkeypatch.setattr(_client_deadline, "is_responding", patient_probe)

    def stand_still() -> None:
        threading.Event().wait(2 * deadline)
        for _ in range(2):
            assert probed.acquire(timeout=60)

    async def ask() -> object:
        engine = hardened_async_engine(
            postgres_url, client_deadline=deadline, connect_args={"connect_timeout": 30}
        )
        async with engine.connect() as connection:
            while probed.acquire(blocking=False):
                pass  # probes of a connection that opened slowly
            asked = asyncio.ensure_future(connection.execute(text("SELECT 1")))
            await asyncio.sleep(0)
            stand_still()
            answer = (await asked).scalar()
        await engine.dispose()
        return answer

    assert asyncio.run(ask()) == 1


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_nobody_asks_a_silent_server_in_the_thread_of_the_loop(
    postgres_url: str, postgres_server: PostgresServer, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_in: set[int] = set()
    ask = _client_deadline.is_responding

    def asking(*args: Any, **options: Any) -> bool:
        asked_in.add(threading.get_ident())
        return ask(*args, **options)

    monkeypatch.setattr(_client_deadline, "is_responding", asking)

    async def fail(engine: AsyncEngine, times: int) -> None:
        """Until a connection was lost, and new ones were refused."""
        while times:
            try:
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
            except DBAPIError:
                times -= 1

    async def run() -> None:
        # Room for all: who waits in the pool is not woken by a connection that could not be made.
        engine = hardened_async_engine(
            postgres_url.replace("+psycopg", f"+{driver}"), threads=30, client_deadline=DEADLINE
        )
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            postgres_server.freeze()
            with pytest.raises(DBAPIError):
                await connection.execute(text("SELECT 1"))
            await connection.invalidate()
        await asyncio.gather(*(fail(engine, 2) for _ in range(60)))
        postgres_server.resume()
        while True:
            try:
                async with engine.connect() as connection:
                    assert (await connection.execute(text("SELECT 1"))).scalar() == 1
                break
            except DBAPIError:
                continue
        await engine.dispose()

    asyncio.run(run())
    assert asked_in
    assert threading.get_ident() not in asked_in


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_lost_connection_is_an_operational_error(
    postgres_url: str, postgres_server: PostgresServer, driver: str
) -> None:
    async def run() -> None:
        url = postgres_url.replace("+psycopg", f"+{driver}")
        engine = hardened_async_engine(url, pool_pre_ping=False)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            postgres_server.kill()
            with pytest.raises(OperationalError) as caught:
                await connection.execute(text("SELECT 2"))
            assert caught.value.connection_invalidated
            assert is_transient(caught.value)
        with pytest.raises(OperationalError) as caught:
            await engine.connect()
        assert is_transient(caught.value)
        await engine.dispose()

    asyncio.run(run())


def test_listeners_of_others_still_see_every_connection(postgres_url: str) -> None:
    engine = hardened_engine(postgres_url, poolclass=NullPool)
    seen: list[str] = []

    @event.listens_for(engine, "do_connect")
    def give_a_token(_dialect: object, _record: object, _args: object, params: dict[str, Any]) -> None:
        params["application_name"] = "token"
        seen.append("do_connect")

    with engine.connect() as connection:
        assert connection.execute(text("SHOW application_name")).scalar() == "token"
    assert seen == ["do_connect"]
    engine.dispose()


def test_zero_means_no_supervision(postgres_url: str) -> None:
    engine = hardened_engine(postgres_url, client_deadline=0)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert not hasattr(connection.connection.driver_connection, "mks_wait")
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_caller_that_is_cancelled_leaves_within_the_deadline(
    postgres_url: str, postgres_server: PostgresServer, driver: str
) -> None:
    if driver == "asyncpg" and tuple(map(int, version(driver).split(".")[:2])) < (0, 32):
        pytest.skip("asyncpg before 0.32 waits without an end for the answer to its own request to cancel")

    async def cancelled() -> float:
        engine = hardened_async_engine(
            postgres_url.replace("+psycopg", f"+{driver}"), client_deadline=DEADLINE
        )
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            postgres_server.freeze()
            started = time.monotonic()
            # With a libpq before 17 nobody can be asked to cancel: the caller leaves when the connection is ended.
            with pytest.raises((TimeoutError, DBAPIError)):
                await asyncio.wait_for(connection.execute(text("SELECT 2")), 0.05)
            await connection.invalidate()
            took = time.monotonic() - started
        await engine.dispose()
        return took

    with Lateness() as late:
        took = asyncio.run(cancelled())
    assert took < 4 + _bound(late)  # psycopg itself gives the server 5 s more


GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys, gevent, gevent.event
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from mks_hardening.db import hardened_engine
engine = hardened_engine(sys.argv[1], threads=3, client_deadline=0.6)
def use():
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        print("ready", flush=True)
        frozen.wait()
        try:
            connection.execute(text("SELECT 2"))
        except DBAPIError as error:
            return error.orig.__notes__
frozen = gevent.event.Event()
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.005)
ticking = gevent.spawn(tick)
users = [gevent.spawn(use) for _ in range(3)]
gevent.spawn(lambda: (gevent.get_hub().threadpool.apply(sys.stdin.readline), ticks.clear(), frozen.set()))
gevent.joinall(users, timeout=60)
print([user.value for user in users], len(ticks) > 10)
"""


# psycopg2 waits in C, where no other greenlet runs, a supervising one no more than the others.
@pytest.mark.parametrize(("driver", "others_go_on"), [("psycopg", True), ("psycopg2", False)])
def test_greenlets_are_let_go_too(
    postgres_url: str, postgres_server: PostgresServer, driver: str, others_go_on: bool
) -> None:
    pytest.importorskip("gevent")
    url = postgres_url.replace("+psycopg", f"+{driver}")
    command = [sys.executable, "-W", "ignore", "-c", GEVENT, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["ready\n"] * 3
        postgres_server.freeze()
        said, _ = process.communicate("frozen\n")
    answer, _, ticked = said.strip().rpartition(" ")
    assert answer == f"{[[NO_RESPONSE]] * 3}"
    assert ticked == "True" or not others_go_on


# --- the parts


def test_silence_is_a_no_and_everything_else_an_answer(postgres_server: PostgresServer) -> None:
    def asked(port: int, within: float = 10) -> bool:
        return is_responding(socket.AF_INET, ("127.0.0.1", port), within=within)

    assert asked(postgres_server.port)
    assert is_responding(
        socket.AF_UNIX, f"{postgres_server.directory}/.s.PGSQL.{postgres_server.port}", within=10
    )
    assert asked(free_port())  # refused
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        assert not asked(nobody.getsockname()[1], within=0.2)
    postgres_server.pause()
    assert not asked(postgres_server.port, within=0.2)


def test_a_reused_descriptor_is_never_hung_up() -> None:
    ours, theirs = socket.socketpair()
    wait = DriverWait(ClientDeadline(1), ours.fileno())
    number = os.dup(ours.fileno())
    one, other = socket.socketpair()
    os.dup2(one.fileno(), ours.fileno())  # the driver closed it, somebody else got the number
    wait.shut_down()
    one.sendall(b"x")
    assert other.recv(1) == b"x"
    os.dup2(number, ours.fileno())
    wait.shut_down()
    assert theirs.recv(1) == b""
    os.close(number)
    for connection in (ours, theirs, one, other):
        connection.close()


def test_a_thread_that_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    wait = DriverWait(ClientDeadline(30), ours.fileno())
    started: list[str] = []

    class NoThread:
        def __init__(self, **options: Any) -> None:
            started.append(options["name"])

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Thread", NoThread)
    for _ in range(2):
        with wait:
            pass
    assert len(started) == 2
    ours.close()
    theirs.close()
