"""All faults that the application is measured under: what fails, and what is promised meanwhile.

``fault_run.py`` runs them under load and ``fault_report.py`` compares the figures with the promises.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple, TypeAlias

import psycopg
import redis

from bench.fault_report import Promise
from bench.outages import Site
from bench.proxy_process import ProxyProcess
from bench.site import Application
from testbed.polling import wait_until


@dataclass(frozen=True, kw_only=True)
class TestedSite(Site):
    """The application with everything that can fail.

    Attributes:
        application: gunicorn.
        database: the PostgreSQL server.
        redis_proxy: proxy between the application and Redis.
        database_proxy: proxy between the application and PostgreSQL.
        behind_nginx: the same application behind the nginx of the deployment kit.
        logs: file system of the log file.
    """

    application: Application
    database: Any
    redis_proxy: ProxyProcess
    database_proxy: ProxyProcess
    behind_nginx: Site
    logs: Path


_PAGE = "explanation/failure.md"
"""Documents the promises that are smaller than usual."""
Step: TypeAlias = Callable[[TestedSite], object]
Fault: TypeAlias = Callable[[TestedSite], AbstractContextManager[None]]


class Scenario(NamedTuple):
    """One row of the table.

    Attributes:
        name: what fails, and how.
        fault: begins the fault, and ends it on exit.
        promise: what holds meanwhile.
        nginx: whether users come through nginx.
        seconds: how long the fault lasts.
    """

    name: str
    fault: Fault
    promise: Promise = Promise()
    nginx: bool = False
    seconds: float = 4


# --- ways to begin and end ------------------------------------------------------------------------------


def _from_to(begin: Step, end: Step = lambda _: None) -> Fault:
    @contextmanager
    def fault(tested: TestedSite) -> Iterator[None]:
        try:
            begin(tested)
            yield
        finally:
            end(tested)

    return fault


def _every(seconds: float, step: Step, end: Step = lambda _: None) -> Fault:
    """Repeat a step until the end."""

    @contextmanager
    def fault(tested: TestedSite) -> Iterator[None]:
        over = threading.Event()

        def repeat() -> None:
            while not over.is_set():
                with suppress(redis.RedisError, psycopg.Error, OSError):
                    step(tested)
                over.wait(seconds)

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            end(tested)

    return fault


def _proxy(name: str, **state: object) -> Fault:
    """Let a proxy do this to its connections; ``refuse`` closes its port."""

    def begin(tested: TestedSite) -> None:
        proxy: ProxyProcess = getattr(tested, name)
        if state:
            proxy.change(**state)
        else:
            proxy.refuse()

    return _from_to(begin, lambda tested: getattr(tested, name).heal())


def _flap(tested: TestedSite) -> None:
    tested.redis_proxy.refuse()
    time.sleep(1)
    tested.redis_proxy.heal()


# --- Redis ----------------------------------------------------------------------------------------------


def _redis(*commands: str, undo: str) -> Fault:
    """Send commands; ``undo`` is sent at the end."""

    def begin(tested: TestedSite) -> None:
        for command in commands:
            tested.redis.command(*command.split())

    return _from_to(begin, lambda tested: tested.redis.command(*undo.split()))


_KILL_CLIENTS = "CLIENT KILL TYPE normal SKIPME yes"


@contextmanager
def _new_password(tested: TestedSite) -> Iterator[None]:
    tested.redis.command("CONFIG", "SET", "requirepass", "another")
    tested.redis.password = "another"  # noqa: S105 - of a server of this run
    try:
        tested.redis.command(*_KILL_CLIENTS.split())
        yield
    finally:
        tested.redis.command("CONFIG", "SET", "requirepass", "")
        tested.redis.password = None


@contextmanager
def _busy(tested: TestedSite) -> Iterator[None]:
    tested.redis.command("CONFIG", "SET", "busy-reply-threshold", "10")
    with socket.create_connection((tested.redis.host, tested.redis.port)) as connection:
        connection.sendall(b'EVAL "while true do end" 0\r\n')
        try:
            yield
        finally:
            tested.redis.command("SCRIPT", "KILL")


@contextmanager
def _loading(tested: TestedSite) -> Iterator[None]:
    """Read the stored data again, so slowly that it takes as long as the fault."""
    keys = max(1, tested.redis.command("DBSIZE"))
    tested.redis.command("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
    tested.redis.command("CONFIG", "SET", "key-load-delay", str(4_000_000 // keys))
    reload = threading.Thread(target=tested.redis.command, args=("DEBUG", "RELOAD"))
    reload.start()
    try:
        yield
    finally:
        reload.join()
        tested.redis.command("CONFIG", "SET", "key-load-delay", "0")


@contextmanager
def _failed_save(tested: TestedSite) -> Iterator[None]:
    """Let a snapshot fail, as on a full disk: Redis rejects writes until one succeeds."""
    (tested.redis.directory / "folder").mkdir(exist_ok=True)
    for name, value in (("dbfilename", "folder"), ("save", "3600 1000000")):
        tested.redis.command("CONFIG", "SET", name, value)
    tested.redis.command("BGSAVE")
    try:
        yield
    finally:
        for name, value in (("dbfilename", "dump.rdb"), ("save", "")):
            tested.redis.command("CONFIG", "SET", name, value)


@contextmanager
def _no_clients(tested: TestedSite) -> Iterator[None]:
    with tested.redis.client(single_connection_client=True) as client:
        client.config_set("maxclients", 1)
        client.execute_command(*_KILL_CLIENTS.split())
        try:
            yield
        finally:
            client.config_set("maxclients", 10_000)


_REPLACE = """
for _, key in ipairs(redis.call("KEYS", "mks:[vt]:*")) do
    redis.call("DEL", key)
    if ARGV[1] == "" then redis.call("RPUSH", key, "x") else redis.call("SET", key, ARGV[1], "EX", 60) end
end"""


def _replace_cached(value: bytes) -> Step:
    """Replace all cached entries; without a value, by data of another type."""

    def step(tested: TestedSite) -> None:
        with tested.redis.client() as client:
            client.eval(_REPLACE, 0, value)

    return step


def _replace_sessions(tested: TestedSite) -> None:
    """Put the bytes of a pickle into every fourth session."""
    with tested.redis.client() as client:
        for key in list(client.scan_iter("*sessions*:s:*"))[::4]:
            for name in client.hkeys(key):
                client.hset(key, name, b"\x80\x04cposix\nsystem\n(S'true'\ntR.")


def _entry(version: int, value: bytes) -> bytes:
    """Return an unsigned entry of the cache, as ``mks_hardening.cache.backends`` stores it."""
    return pack(">BBBddH", 0xC1, version, 0, time.time() + 60, time.time() + 60, 0) + value


_SIGN_IN = Promise(rate=0, p95=1000, recovery=6, signed_out=True, page=_PAGE)
"""Users wait for the sign-ins of others: each check of a password takes 0.3 s of a processor core."""
_REDIS = (
    Scenario("Redis frozen", _from_to(lambda p: p.redis.pause(), lambda p: p.redis.resume())),
    Scenario("Redis killed", _from_to(lambda p: p.redis.kill(), lambda p: p.redis.start())),
    Scenario("Redis refuses connections", _proxy("redis_proxy")),
    Scenario("Redis: black hole", _proxy("redis_proxy", mode="black_hole")),
    Scenario("Redis: 20 ms slower", _proxy("redis_proxy", latency=0.01)),
    Scenario("Redis: 100 ms slower", _proxy("redis_proxy", latency=0.05)),
    Scenario("Redis: reset within a response", _proxy("redis_proxy", mode="cut")),
    Scenario("Redis: one byte in 5 ms", _proxy("redis_proxy", trickle=0.005)),
    Scenario("Redis: garbage", _proxy("redis_proxy", mode="corrupt")),
    Scenario("Redis up and down each second", _every(1, _flap, lambda p: p.redis_proxy.heal())),
    Scenario("Redis: no memory", _redis("CONFIG SET maxmemory 1", undo="CONFIG SET maxmemory 0")),
    Scenario("Redis: read-only replica", _redis("REPLICAOF 127.0.0.1 1", undo="REPLICAOF NO ONE")),
    Scenario("Redis: other password", _new_password),
    Scenario("Redis: busy script", _busy),
    Scenario("Redis: loading", _loading),
    Scenario(
        "Redis: clients killed each second", _every(1, lambda p: p.redis.command(*_KILL_CLIENTS.split()))
    ),
    Scenario("Redis: clients paused", _redis("CLIENT PAUSE 4000 ALL", undo="CLIENT UNPAUSE")),
    Scenario("Redis: disk full (MISCONF)", _failed_save),
    Scenario("Redis: maxclients reached", _no_clients),
    Scenario("Redis: cached data of another type", _every(0.5, _replace_cached(b""))),
    Scenario("Redis: garbage in the cache", _every(0.5, _replace_cached(b"\x80\x04garbage"))),
    Scenario("Redis: nested 100,000 deep", _every(0.5, _replace_cached(_entry(2, b"\x91" * 100_000)))),
    Scenario(
        "Redis: length of 4 GB declared", _every(0.5, _replace_cached(_entry(2, b"\xdf" + b"\xff" * 4)))
    ),
    Scenario("Redis: entries of a newer version", _every(0.5, _replace_cached(_entry(99, b"x")))),
    Scenario("Redis: pickle in sessions", _from_to(_replace_sessions), replace(_SIGN_IN, rate=0.75)),
    Scenario(
        "Redis emptied",
        _from_to(lambda p: p.redis.command("FLUSHALL")),
        _SIGN_IN,
    ),
)

# --- PostgreSQL -----------------------------------------------------------------------------------------

_NO_DATABASE = Promise(rate=0, p95=5300, page=_PAGE)
"""503 with a time to come back within 2 s, or 5 s if all connections are in use."""
_OTHERS = "FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"


def _disconnect(tested: TestedSite) -> None:
    tested.database.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}")


@contextmanager
def _no_connections(tested: TestedSite) -> Iterator[None]:
    with ExitStack() as held:
        for _ in range(2):  # those of the application too
            with suppress(psycopg.OperationalError):
                while True:
                    held.enter_context(psycopg.connect(tested.database.dsn("template1")))
            with suppress(psycopg.OperationalError):
                held.enter_context(psycopg.connect(tested.database.dsn())).execute(
                    f"SELECT pg_terminate_backend(pid) {_OTHERS}"
                )
        yield


@contextmanager
def _locked(tested: TestedSite) -> Iterator[None]:
    with psycopg.connect(tested.database.dsn()) as connection:
        connection.execute("LOCK TABLE articles IN ACCESS EXCLUSIVE MODE")
        yield


def _sql(*statements: str) -> Step:
    return lambda tested: [tested.database.execute(statement) for statement in statements]


_READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = {}"
_RELOAD = "SELECT pg_reload_conf()"
_POSTGRES = (
    Scenario(
        "PostgreSQL frozen",
        _from_to(lambda p: p.database.freeze(), lambda p: p.database.resume()),
        _NO_DATABASE,
    ),
    Scenario(
        "PostgreSQL killed", _from_to(lambda p: p.database.kill(), lambda p: p.database.start()), _NO_DATABASE
    ),
    Scenario("PostgreSQL refuses connections", _proxy("database_proxy"), _NO_DATABASE),
    Scenario("PostgreSQL: black hole", _proxy("database_proxy", mode="black_hole"), _NO_DATABASE),
    Scenario(
        "PostgreSQL: 20 ms slower",
        _proxy("database_proxy", latency=0.01),
        Promise(rate=0.5, p95=1000, recovery=3, page=_PAGE),
    ),
    Scenario(
        "PostgreSQL: 100 ms slower",
        _proxy("database_proxy", latency=0.05),
        Promise(rate=0.1, p95=5300, recovery=3, page=_PAGE),
    ),
    Scenario("PostgreSQL: reset within a result", _proxy("database_proxy", mode="cut"), _NO_DATABASE),
    Scenario("PostgreSQL: connections ended, 5 a second", _every(0.2, _disconnect), _NO_DATABASE),
    Scenario("PostgreSQL: no connection left", _no_connections, _NO_DATABASE),
    Scenario(
        "PostgreSQL: read-only",
        _from_to(_sql(_READ_ONLY.format("on"), _RELOAD), _sql(_READ_ONLY.format("off"), _RELOAD)),
        Promise(rate=0.8, page=_PAGE),  # a tenth of the requests are changes
    ),
    Scenario("PostgreSQL: table locked", _locked, _NO_DATABASE),
)

# --- mail and Slack -------------------------------------------------------------------------------------


def _mail_answers(stage: str, reply: str | None, delay: float = 0) -> Fault:
    def begin(tested: TestedSite) -> None:
        tested.smtp.answer(stage, reply, delay=delay, times=1_000_000)

    return _from_to(begin, lambda tested: tested.smtp.heal())


def _slack_answers(**answer: Any) -> Fault:
    from testbed.http_sink import Answer

    def change(tested: TestedSite, default: Answer) -> None:
        tested.slack.default = default

    return _from_to(lambda tested: change(tested, Answer(**answer)), lambda tested: change(tested, Answer()))


_RECEIVERS = (
    Scenario("SMTP hangs", _proxy("mail", mode="black_hole")),
    Scenario("SMTP stopped", _proxy("mail")),
    Scenario("SMTP answers 451", _mail_answers("RCPT", "451 4.3.0 Try again later")),
    Scenario("SMTP answers 421", _mail_answers("CONNECT", "421 4.3.2 Shutting down")),
    Scenario("SMTP: 2 s for each response", _mail_answers("RCPT", None, delay=2)),
    Scenario("Slack hangs", _proxy("chat", mode="black_hole")),
    Scenario("Slack stopped", _proxy("chat")),
    Scenario("Slack answers 500", _slack_answers(status=500)),
    Scenario("Slack answers 429", _slack_answers(status=429, headers={"Retry-After": "2"})),
    Scenario("Slack: 2 s for each response", _slack_answers(delay=2)),
)

# --- the server itself ----------------------------------------------------------------------------------

_HEAD = "GET /articles HTTP/1.1\r\n{fields}"
_BODY = "POST /sign-in HTTP/1.1\r\n{fields}Content-Length: 5000\r\n\r\nx"
_READ = "GET /articles HTTP/1.1\r\n{fields}Cookie: {cookie}\r\n\r\n"


def _slow_clients(request: str, *, number: int = 200, nginx: bool = True) -> Fault:
    """Open connections that send no more than this, and read nothing."""

    @contextmanager
    def fault(tested: TestedSite) -> Iterator[None]:
        site: Site = tested.behind_nginx if nginx else tested
        text = request.format(fields=site.fields, cookie=site.cookies[0]).encode()
        with ExitStack() as held:
            for _ in range(number):
                held.enter_context(_sent(site, text))
            yield

    return fault


def _sent(site: Site, text: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", site.port))
    if site.tls:
        client = site.tls.wrap_socket(client, server_hostname=site.tls_name)
    client.sendall(text)
    return client


def _signal(number: signal.Signals, worker: int = 0) -> Step:
    return lambda tested: os.kill(tested.application.workers()[worker], number)


@contextmanager
def _reload(tested: TestedSite) -> Iterator[None]:
    old = set(tested.application.workers())
    os.kill(tested.application.master, signal.SIGHUP)
    yield
    wait_until(lambda: old.isdisjoint(tested.application.workers()), timeout=40, what="the new workers")


@contextmanager
def _full_log(tested: TestedSite) -> Iterator[None]:
    file = tested.logs / "ballast"
    try:
        with suppress(OSError), file.open("wb", buffering=0) as disk:
            while True:
                disk.write(bytes(4096))
        yield
    finally:
        file.unlink()


_KILLED = _every(4, _signal(signal.SIGKILL, worker=-1))  # the newest, so that another one always serves
_SHARED_CORE = Promise(rate=0.8, p95=600, page=_PAGE)
"""The new workers load the application on the core that the old ones serve with."""
_FROZEN = _from_to(_signal(signal.SIGSTOP), _signal(signal.SIGCONT))
_SERVER = (
    Scenario("worker killed twice", _KILLED, Promise(unanswered=5, page=_PAGE), seconds=6),
    # nginx repeats everything but POST.
    Scenario(
        "worker killed twice, behind nginx",
        _KILLED,
        Promise(unanswered=2, page=_PAGE),
        nginx=True,
        seconds=6,
    ),
    Scenario("worker frozen", _FROZEN, Promise(rate=0, p95=4300, page=_PAGE)),
    Scenario("reload (SIGHUP)", _reload, _SHARED_CORE),
    Scenario("reload (SIGHUP), behind nginx", _reload, _SHARED_CORE, nginx=True),
    Scenario("disk of the log full", _full_log),
    Scenario(
        "200 clients that never finish their headers, without nginx",
        _slow_clients(_HEAD, nginx=False),
        Promise(rate=0, p95=5000, page=_PAGE),
    ),
    Scenario("200 clients that never finish their headers", _slow_clients(_HEAD), nginx=True),
    Scenario("200 clients that never finish their body", _slow_clients(_BODY), nginx=True),
    Scenario("40 clients that read nothing", _slow_clients(_READ, number=40), nginx=True),
)
SCENARIOS = (*_REDIS, *_POSTGRES, *_RECEIVERS, *_SERVER)
