"""The servers as pytest fixtures, the profiles of hypothesis, and the summary of missing servers."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings

from testbed import services
from testbed.certificates import Certificates
from testbed.fault_proxy import FaultProxy
from testbed.http_sink import HttpSink
from testbed.nginx_server import NginxServer
from testbed.pgbouncer_server import PgBouncer
from testbed.postgres_server import PostgresServer, PostgresStandby
from testbed.redis_groups import RedisCluster, SentinelGroup
from testbed.redis_server import RedisServer
from testbed.smtp_server import SmtpServer

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For a suite that runs again with other versions: the first run has met all examples, and all combinations of rows.
settings.register_profile("again", parent=settings.get_profile("ci"), max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "local"))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude the collected tests from later garbage collections, which take 0.6 s otherwise."""
    gc.collect()
    # Older versions look with gc.get_referrers, which does not see what is frozen, whether their random numbers are
    # referenced, and warn.
    if hypothesis.__version_info__ >= (6, 170):
        gc.freeze()


def pytest_sessionfinish() -> None:
    """Write the measured coverage: xdist kills a worker that has not ended ten seconds after its last test."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()):
        measured.stop()
        measured.save()


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Restore the root logger, and one called ``shown``, after a test that sets up logging."""
    shown, root = logging.getLogger("shown"), logging.getLogger()
    before = root.level, [*root.handlers]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    shown.handlers.clear()
    shown.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _no_handler_left_behind() -> Iterator[None]:
    """Undo the logging setup of a test: a later test would find its lines in the output."""
    root = logging.getLogger()
    before = [*root.handlers]
    yield
    left = [
        handler
        for handler in root.handlers
        if handler not in before and not type(handler).__module__.startswith("_pytest.")
    ]
    for handler in left:
        root.removeHandler(handler)
    if left:
        pytest.fail(f"left on the root logger: {left}")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A temporary certificate authority with a certificate for localhost."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


# --- Redis


@pytest.fixture(scope="session")
def _session_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    services.program("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis_server(_session_redis: RedisServer) -> Iterator[RedisServer]:
    """A running, empty Redis; a test may kill, freeze and reconfigure it."""
    _session_redis.reset()
    yield _session_redis
    _session_redis.resume()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of ``redis_server``."""
    return redis_server.url


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start further Redis servers: ``make_redis(password=..., certificates=..., options={...})``."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> RedisServer:
            services.program("redis-server")
            server = RedisServer(tmp_path / f"redis{len(stack._exit_callbacks)}", **options)  # type: ignore[attr-defined]
            stack.callback(server.close)
            server.start()
            return server

        yield make


@pytest.fixture
def redis_sentinels(tmp_path: Path) -> Iterator[SentinelGroup]:
    """One master, one replica, three sentinels; for tests marked slow."""
    services.program("redis-server")
    group = SentinelGroup(tmp_path)
    try:
        group.start()
        yield group
    finally:
        group.close()


@pytest.fixture
def redis_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Three masters with a replica each; for tests marked slow."""
    services.program("redis-server")
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


# --- PostgreSQL


@pytest.fixture(scope="session")
def _session_postgres() -> Iterator[PostgresServer]:
    services.program("postgres")
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_server(_session_postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A running PostgreSQL; a test may stop, kill and freeze it."""
    _session_postgres.reset()
    yield _session_postgres
    _session_postgres.resume()


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Name of a fresh, empty database."""
    name = postgres_server.create_database()
    yield name
    postgres_server.reset()
    postgres_server.give_back_database(name)


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer, postgres_database: str) -> str:
    """Address of a fresh database for psycopg."""
    return postgres_server.dsn(postgres_database)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_database: str) -> str:
    """Address of a fresh database for SQLAlchemy (psycopg driver)."""
    return postgres_server.url(postgres_database)


@pytest.fixture
def make_standby(postgres_server: PostgresServer) -> Iterator[Callable[[], PostgresStandby]]:
    """Start streaming standbys of ``postgres_server``."""
    with contextlib.ExitStack() as stack:

        def make() -> PostgresStandby:
            standby = PostgresStandby(postgres_server)
            stack.callback(standby.close)
            standby.start()
            return standby

        yield make


@pytest.fixture
def make_pgbouncer(postgres_server: PostgresServer) -> Iterator[Callable[..., PgBouncer]]:
    """Start PgBouncers in front of ``postgres_server``: ``make_pgbouncer(max_prepared_statements="0")``."""
    with contextlib.ExitStack() as stack:

        def make(**settings: str) -> PgBouncer:
            services.program("pgbouncer")
            pooler = PgBouncer(postgres_server, **settings)
            stack.callback(pooler.stop)
            pooler.start()
            return pooler

        yield make


# --- nginx


@pytest.fixture
def make_nginx(tmp_path: Path, certificates: Certificates) -> Iterator[Callable[..., NginxServer]]:
    """Start nginx with a configuration: ``make_nginx(text, values={...})``."""
    with contextlib.ExitStack() as stack:

        def make(config_text: str, *, values: dict[str, str] | None = None) -> NginxServer:
            services.program("nginx")
            folder = tmp_path / f"nginx{len(stack._exit_callbacks)}"  # type: ignore[attr-defined]
            server = NginxServer(folder, config_text, certificates=certificates, values=values)
            stack.callback(server.stop)
            server.start()
            return server

        yield make


# --- mail and HTTP


@pytest.fixture
def make_smtp(certificates: Certificates) -> Iterator[Callable[..., SmtpServer]]:
    """Start SMTP servers: ``make_smtp(security="starttls", users={"mks": "secret"})``."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> SmtpServer:
            server = SmtpServer(certificates, **options)
            stack.callback(server.stop)
            server.start()
            return server

        yield make


@pytest.fixture
def smtp_server(make_smtp: Callable[..., SmtpServer]) -> SmtpServer:
    """A plain SMTP server on loopback."""
    return make_smtp()


@pytest.fixture
def make_http_sink(certificates: Certificates) -> Iterator[Callable[..., HttpSink]]:
    """Start HTTP sinks: ``make_http_sink(tls=True)``."""
    with contextlib.ExitStack() as stack:

        def make(*, tls: bool = False) -> HttpSink:
            sink = HttpSink(certificates=certificates if tls else None)
            stack.callback(sink.stop)
            sink.start()
            return sink

        yield make


@pytest.fixture
def http_sink(make_http_sink: Callable[..., HttpSink]) -> HttpSink:
    """A plain HTTP server that records requests and sends scripted responses."""
    return make_http_sink()


# --- the network between


@pytest.fixture
def make_fault_proxy() -> Iterator[Callable[[str, int], FaultProxy]]:
    """Put a proxy that can break connections in front of a server: ``make_fault_proxy(host, port)``."""
    with contextlib.ExitStack() as stack:

        def make(host: str, port: int) -> FaultProxy:
            proxy = FaultProxy(host, port)
            stack.callback(proxy.close)
            proxy.start()
            return proxy

        yield make


@pytest.fixture
def fault_proxy(redis_server: RedisServer, make_fault_proxy: Callable[[str, int], FaultProxy]) -> FaultProxy:
    """A proxy in front of ``redis_server`` that can break connections."""
    return make_fault_proxy(redis_server.host, redis_server.port)


# --- browser


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """Path of a Chromium for Playwright's ``executable_path``."""
    return services.program("chromium")


# --- what could not be had


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Report which servers were missing and which tests were skipped because of it."""
    if not services.missing:
        return
    terminalreporter.section(
        "SERVERS THAT COULD NOT BE HAD - THESE TESTS DID NOT RUN", sep="!", red=True, bold=True
    )
    for service, tests in sorted(services.missing.items()):
        terminalreporter.line(f"{service} ({len(tests)} test(s))", red=True, bold=True)
        for test in sorted(tests):
            terminalreporter.line(f"    {test}")
    verdict = (
        "failed"
        if os.environ.get(services.REQUIRE_VARIABLE) == "1"
        else f"set {services.REQUIRE_VARIABLE}=1 to fail"
    )
    terminalreporter.line(
        f"Install them, for example: apt-get install redis-server postgresql pgbouncer nginx chromium ({verdict})"
    )
