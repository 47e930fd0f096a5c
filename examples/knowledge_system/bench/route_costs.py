"""What a request costs by route, behind a rendered nginx: processor time of each program, SQL, Redis, log, network.

Everything is read from outside of the application: processor time of the processes from ``/proc``, statements and
rows from ``pg_stat_statements``, commands and bytes from Redis itself, log bytes from the files. Other load on the
machine makes a request slower, but hardly adds to these figures.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

PROGRAMS = ("application", "nginx", "postgresql", "redis")
ROUTES = {
    "GET /articles": ("/articles", 5),
    "GET /articles?q=": (f"/articles?q={quote('養生')}", 2),
    "GET /articles/<id>": ("/articles/7", 8),
    "GET /": ("/", 1),
    "GET /notices": ("/notices", 1),
    "GET /api/auth/session": ("/api/auth/session", 2),
}
"""The measured routes of the example: a path of each, and its weight among the requests of a reader."""
LIST, TRIVIAL, SIGN_IN = "GET /articles", "trivial", "POST /sign-in"
"""The list; a page of three lines of WSGI, through the same nginx and gunicorn; form and password together."""
SIZES = (1, 4, 12)
"""Readers at the same time, without pauses, with whom the model is compared."""
_PASSWORD = "load-2026-load"  # noqa: S105 - of accounts that live as long as this run
_ROUNDS = 3
_WARM_UP = 15
"""Seconds until each connection to PostgreSQL has prepared the statements of all routes, by which they differ."""
_CACHED = re.compile("list:|page:|related:")
_EDGE = """proxies_in_front = ["127.0.0.0/8"]
requests_per_second = 10000
burst = 100000
connections_per_address = 5000
sign_in_per_minute = 600
"""
# Readers who never pause are far beyond the limits of people, and a busy machine is slow, not broken.
_VARIABLES = {
    "MKS_RATE_LIMITS": "search=1000000 per minute | api_poll=1000000 per minute",
    "MKS_STORE_BUDGET": "5s",
}


@dataclass(frozen=True, slots=True)
class RouteCost:
    """Cost of one request.

    Attributes:
        application_ms: processor time of the application, in milliseconds; so are the next three.
        nginx_ms: of nginx.
        postgresql_ms: of PostgreSQL.
        redis_ms: of Redis.
        statements: SQL statements.
        rows: rows that they returned or changed.
        redis_commands: commands, those of scripts included.
        redis_bytes: bytes to and from Redis.
        log_bytes: bytes of the logs of the application and of nginx.
        response_bytes: bytes of the body as sent.
    """

    application_ms: float
    nginx_ms: float
    postgresql_ms: float
    redis_ms: float
    statements: float
    rows: float
    redis_commands: float
    redis_bytes: float
    log_bytes: float
    response_bytes: float


class Stack:
    """One application behind nginx, with the programs that it uses.

    Args:
        host: rendered deployment whose application and nginx run.
        database: PostgreSQL with ``pg_stat_statements``.
        redis: the Redis server.
    """

    def __init__(self, host: Any, database: Any, redis: Any) -> None:
        self.host, self._database, self._redis = host, database, redis
        self._roots = {
            "application": [host.servers[0].pid],
            "nginx": [host.servers[1].pid],
            "postgresql": [database.process.pid],
            "redis": [redis.process.pid],
        }

    def processor_seconds(self) -> dict[str, float]:
        """Return the processor time of each program and its children so far."""
        return {name: sum(map(_tree_seconds, roots)) for name, roots in self._roots.items()}

    def counters(self) -> dict[str, float]:
        """Return what the servers have counted so far."""
        (statements, rows), *_ = self._database.execute(
            "SELECT coalesce(sum(calls), 0)::float, coalesce(sum(rows), 0)::float FROM pg_stat_statements"
            " WHERE query NOT LIKE '%pg_stat_statements%'"
        )
        seen = self._redis.client().info("stats")
        logs = [*self.host.folder.glob("nginx_logs/*.access.log"), *self.host.folder.glob("gunicorn-*.out")]
        return {
            "statements": statements,
            "rows": rows,
            "redis_commands": seen["total_commands_processed"],
            "redis_bytes": seen["total_net_input_bytes"] + seen["total_net_output_bytes"],
            "log_bytes": sum(log.stat().st_size for log in logs),
        }

    def cost(self, path: str, cookies: str = "", *, number: int = 120, kept: bool = True) -> RouteCost:
        """Measure one route, after some requests that warm it up.

        Args:
            path: path with query.
            cookies: header field of a signed-in reader.
            number: requests that are measured.
            kept: whether they share one TLS connection; otherwise each has its own, with a full handshake.
        """
        with _requests(self.host.https, path, cookies, kept=kept) as ask:
            for _ in range(40):
                ask()
            return self.cost_of(lambda: [ask() for _ in range(number)])

    def cost_of(self, run: Callable[[], Sequence[int]]) -> RouteCost:
        """Return the mean cost of the requests that ``run`` sends; it returns the size of each response."""
        before, busy = self.counters(), self.processor_seconds()
        sizes = run()
        spent, after = self.processor_seconds(), self.counters()
        counted = {name: (after[name] - before[name]) / len(sizes) for name in after}
        cpu = {f"{name}_ms": 1000 * (spent[name] - busy[name]) / len(sizes) for name in spent}
        return RouteCost(**{**cpu, **counted}, response_bytes=sum(sizes) / len(sizes))


def trivial() -> Callable[..., Any]:
    """Return a WSGI application whose page costs as little as a page can."""

    def page(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "6")])
        return [b"hello\n"]

    return page


def _tree_seconds(pid: int) -> float:
    """Return the processor time of a process and its children, from the scheduler (nanoseconds)."""
    total = 0.0
    with suppress(FileNotFoundError, ProcessLookupError):  # a process of PostgreSQL that ends meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
            total += sum(_tree_seconds(int(child)) for child in (task / "children").read_text().split())
    return total


@contextmanager
def _requests(port: int, path: str, cookies: str, *, kept: bool) -> Iterator[Callable[[], int]]:
    """Yield a function that sends one request and returns the size of the response's body."""
    from deploy_host import HOST

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    fields = {
        "Host": HOST,
        "Accept": "text/html",
        "Accept-Encoding": "gzip",
        "X-Forwarded-For": "198.51.100.1",
    }
    fields |= {"Cookie": cookies} if cookies else {}
    connection = http.client.HTTPConnection("127.0.0.1", timeout=60)

    def ask() -> int:
        if connection.sock is None:
            plain = socket.create_connection(("127.0.0.1", port), timeout=60)
            connection.sock = context.wrap_socket(plain, server_hostname=HOST)
        connection.request("GET", path, headers=fields)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered with {answer.status}")
        if not kept:
            connection.close()
        return len(body)

    try:
        yield ask
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that one run has measured.

    Attributes:
        routes: cost of each route; of the trivial page too.
        new_connection: the trivial page and the list, each request on a TLS connection of its own.
        session_bytes: memory of Redis for one signed-in user.
        cached_bytes: memory of Redis for one entry of the cache.
        errors: by number of readers, measured ÷ predicted figures of a request.
    """

    routes: dict[str, RouteCost]
    new_connection: dict[str, RouteCost]
    session_bytes: float
    cached_bytes: float
    errors: dict[int, dict[str, float]]


def measure(articles: int, say: Callable[[str], None]) -> Measured:
    """Start the servers, measure every route, and compare the sum of the costs with readers at the same time."""
    from deploy_load import sign_in

    with ExitStack() as opened:
        example, trivial_page, redis, names = _stacks(opened, articles, say)
        for name in names:  # the first time, each password gets the hash of production
            sign_in(example.host, name, _PASSWORD, _address(name))
        client = redis.client()
        before = set(client.scan_iter())
        cookies: list[str] = []

        def sign_all_in() -> list[int]:
            cookies.extend(sign_in(example.host, name, _PASSWORD, _address(name)) for name in names)
            return [0] * len(names)

        sign_in_cost = example.cost_of(sign_all_in)
        # By key: the memory of the whole server varies with the buffers of its clients.
        session = sum(client.memory_usage(key) or 0 for key in {*client.scan_iter()} - before) / len(names)
        for cookie in cookies[:8]:  # each thread of the application warms up
            example.cost("/articles", cookie, number=1)
        rounds: dict[str, list[RouteCost]] = {}
        alone: dict[str, list[RouteCost]] = {}
        for _ in range(_ROUNDS):  # in turn, so that other load on the machine meets all of them
            say("measuring each route ...")
            rounds.setdefault(TRIVIAL, []).append(trivial_page.cost("/", number=400))
            for name, (path, _) in ROUTES.items():
                rounds.setdefault(name, []).append(example.cost(path, cookies[0]))
            alone.setdefault(TRIVIAL, []).append(trivial_page.cost("/", kept=False))
            alone.setdefault(LIST, []).append(example.cost("/articles", cookies[0], kept=False))
        costs = {SIGN_IN: sign_in_cost, **{name: _middle(found) for name, found in rounds.items()}}
        say("readers at the same time ...")
        errors = {size: _error(example, cookies[:size], costs) for size in SIZES}
        cached = [client.memory_usage(key) or 0 for key in client.scan_iter() if _CACHED.search(str(key))]
    return Measured(
        costs,
        {name: _middle(found) for name, found in alone.items()},
        session,
        sum(cached) / max(1, len(cached)),
        errors,
    )


def _middle(found: Sequence[RouteCost]) -> RouteCost:
    """Return the median of each figure."""
    rows = [asdict(cost) for cost in found]
    return RouteCost(**{name: max(0.0, median(row[name] for row in rows)) for name in rows[0]})


def _stacks(
    opened: ExitStack, articles: int, say: Callable[[str], None]
) -> tuple[Stack, Stack, Any, list[str]]:
    from verify_deploy import fill

    from deploy_host import Host
    from testbed.certificates import Certificates
    from testbed.postgres_server import PostgresServer
    from testbed.redis_server import RedisServer

    folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
    database = PostgresServer(
        max_connections="120", shared_buffers="128MB", shared_preload_libraries="pg_stat_statements"
    )
    redis = RedisServer(folder / "redis")
    for server in (database, redis):
        server.start()
        opened.callback(server.stop)
    database.execute("CREATE EXTENSION pg_stat_statements")
    stacks, names = [], list[str]()
    for target in ("knowledge_system.app:from_env()", "bench.route_costs:trivial()"):
        host = Host(Certificates(folder), application=target, edge=_EDGE, workers="1", threads="16")
        host.patience = 60
        opened.callback(host.stop)
        host.render()
        variables = host.application_variables(redis_url=redis.url, postgres_url=database.url("postgres"))
        variables |= {**_VARIABLES, "PYTHONPATH": str(Path(__file__).parent.parent)}
        if not stacks:
            say(f"filling {articles} articles ...")
            names = fill(variables, articles, max(SIZES))
            database.execute("VACUUM (ANALYZE)")  # as autovacuum does within a minute
        host.start_application(**variables)
        host.start_nginx()
        stacks.append(Stack(host, database, redis))
    return stacks[0], stacks[1], redis, names


def _address(name: str) -> str:
    return f"198.51.100.{int(name[6:]) % 250 + 1}"


def _error(stack: Stack, cookies: Sequence[str], costs: dict[str, RouteCost]) -> dict[str, float]:
    """Let readers read for five seconds, after a warm-up; return measured ÷ predicted figures of a request."""
    mix = [name for name, (_, weight) in ROUTES.items() for _ in range(weight)]
    sent: list[str] = []
    refused: list[str] = []
    deadline = 0.0

    def read(own: str, number: int) -> None:
        with ExitStack() as opened:
            ask = {
                name: opened.enter_context(_requests(stack.host.https, path, own, kept=True))
                for name, (path, _) in ROUTES.items()
            }
            while time.monotonic() < deadline:
                name = mix[number % len(mix)]
                try:
                    ask[name]()
                except RuntimeError as error:
                    refused.append(str(error))
                    return
                sent.append(name)
                number += 1

    def run() -> list[int]:
        threads = [threading.Thread(target=read, args=(own, n)) for n, own in enumerate(cookies)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if refused:
            raise RuntimeError(f"the machine is too busy for a measurement: {refused[0]}")
        return [0] * len(sent)

    deadline = time.monotonic() + _WARM_UP
    run()
    sent.clear()
    deadline = time.monotonic() + 5
    found = asdict(stack.cost_of(run))
    means = {field: sum(asdict(costs[name])[field] for name in sent) / len(sent) for field in found}
    compared = (*(f"{name}_ms" for name in PROGRAMS), "statements", "redis_commands", "log_bytes")
    return {field: found[field] / means[field] for field in compared}
