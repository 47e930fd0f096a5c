"""Cost of the ASGI middleware, compared with hand-written minimal versions and, served by uvicorn, with peers.

    python benchmarks/asgi.py [rounds] [--served] [--profile GROUP]

All contenders of a group run in turn on one event loop, round after round; the figure is the median CPU time of one
request minus that of the bare application. The minimal versions ("floors") do only what is unavoidable: they check
nothing, and are no alternative. Peers that are not installed are skipped; ``make bench`` installs them.

With ``--served``, each whole stack runs in its own uvicorn process and is requested over loopback in turn: the
figure is the number of requests per second of the server's CPU time. uvicorn checks each header field of a response
with two regular expressions, so the fields alone cost as much as some of the middleware: compare our stack with the
floors as well.
"""

# ruff: noqa: ARG001, D101, D102, PLW0108 - floors are read rather than documented

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import logging
import os
import pstats
import socket
import statistics
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from figures import keep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

App = Callable[..., Any]

CALLS = 400
HOST = "www.example.com"
ORIGIN = f"https://{HOST}"
SESSION_ID = "A" * 43
HEADERS = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"5")]


async def bare(scope, receive, send):
    # A new list each time: some peers write into it.
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS.copy()})
    await send({"type": "http.response.body", "body": b"hello"})


def starlette_cookie() -> str:
    """Return a valid session cookie of Starlette, so that its middleware has something to check."""
    try:
        import itsdangerous
    except ImportError:
        return ""
    return (
        "; session=" + itsdangerous.TimestampSigner("x" * 40).sign(b64encode(b'{"user": "alice"}')).decode()
    )


STARLETTE = starlette_cookie()


def request(*more: tuple[bytes, bytes], **changes: Any) -> dict[str, Any]:
    """Return the scope that uvicorn passes on behind a proxy, with the header fields of a browser."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("10.0.0.1", 40312),
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": "/articles/17",
        "raw_path": b"/articles/17",
        "query_string": b"",
        "headers": [
            (b"host", HOST.encode()),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
            (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
            (b"accept-language", b"ja,en;q=0.5"),
            (b"accept-encoding", b"gzip, deflate, br"),
            (b"cookie", f"theme=dark; __Host-mks-session={SESSION_ID}; lang=ja{STARLETTE}".encode()),
            *more,
        ],
        "state": {},
    }
    return {**scope, **changes}


FORWARDED = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
BEHIND_PROXY = request(*FORWARDED)
PLAIN = request(client=("203.0.113.9", 40312))
SECURE = request(scheme="https")
NOBODY = request()
NOBODY["headers"] = [field for field in NOBODY["headers"] if field[0] != b"cookie"]
POST = request((b"origin", ORIGIN.encode()), scheme="https", method="POST")


# --- floors


def floor_trust(app: App) -> App:
    """One look-up of the peer, one pass over the header fields, one look-up of the host, one copy of the scope."""
    peers, hosts = {"10.0.0.1": True, "127.0.0.1": True}, {HOST.encode(): True}

    async def floor(scope, receive, send):
        host = client = proto = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"x-forwarded-for":
                client = value
            elif name == b"x-forwarded-proto":
                proto = value
        if scope["client"][0] in peers and proto == b"https":
            scope = {**scope, "scheme": "https", "client": (client.decode(), 0)}
        if host not in hosts or scope["scheme"] != "https":
            raise AssertionError
        await app(scope, receive, send)

    return floor


def floor_redirect(_app: App) -> App:
    """One pass for the host, one look-up, quoting of path and query, two messages."""
    from urllib.parse import quote

    hosts = {HOST.encode(): ORIGIN}

    async def floor(scope, receive, send):
        host = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
        location = hosts[host] + quote(scope["path"], safe="/:@!$&'()*+,;=~")
        if scope["query_string"]:
            location += "?" + scope["query_string"].decode("latin-1")
        headers = [
            (b"location", location.encode()),
            (b"content-type", b"text/plain"),
            (b"content-length", b"0"),
        ]
        await send({"type": "http.response.start", "status": 301, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return floor


def floor_headers(app: App) -> App:
    """The header list extended by prepared pairs, except for existing names."""
    from mks_hardening.asgi import HeaderPolicy

    policy = HeaderPolicy.web()
    assert policy.hsts is not None
    assert policy.csp is not None
    fields = [
        ("Strict-Transport-Security", policy.hsts.value),
        (policy.csp.header_name, policy.csp.header_value()),
        *policy.fields,
    ]
    ready = [(name.lower().encode(), value.encode()) for name, value in fields]

    async def floor(scope, receive, send):
        async def send_more(message):
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [field for field in ready if field[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await app(scope, receive, send_more)

    return floor


def floor_record(app: App) -> App:
    """One id, two clock readings, one log record; bytes counted, the id in the response."""
    logger = quiet_logger("floor")

    async def floor(scope, receive, send):
        started = time.monotonic()
        request_id = uuid.uuid4().hex
        status = sent = 0

        async def send_counted(message):
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            else:
                sent += len(message["body"])
            await send(message)

        await app(scope, receive, send_counted)
        logger.info(
            "request",
            extra={
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "bytes": sent,
                "duration_ms": (time.monotonic() - started) * 1000,
                "client_ip": scope["client"][0],
                "request_id": request_id,
            },
        )

    return floor


def floor_session(app: App) -> App:
    """Find the cookie, hash it, one look-up, one comparison; the session in a copy of the scope."""
    key = sha256(SESSION_ID.encode()).hexdigest()
    sessions = {key: time.time() + 10_000}

    async def floor(scope, receive, send):
        cookie = b""
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookie = value
        at = cookie.find(b"__Host-mks-session=")
        found = sha256(cookie[at + 19 : at + 62]).hexdigest()
        if sessions[found] < time.time():
            raise AssertionError
        await app({**scope, "session": found}, receive, send)

    return floor


def floor_limit(app: App) -> App:
    """One count by address in a dictionary, and one comparison; three rate limit fields in the response."""
    counts: dict[str, list[float]] = {}

    async def floor(scope, receive, send):
        entry = counts.setdefault(scope["client"][0], [0, time.monotonic() + 60])
        entry[0] += 1
        left, reset = 1_000_000 - entry[0], entry[1] - time.monotonic()
        if left < 0:
            raise AssertionError

        async def send_more(message):
            if message["type"] == "http.response.start":
                state = [
                    (b"x-ratelimit-limit", b"1000000"),
                    (b"x-ratelimit-remaining", b"%d" % left),
                    (b"x-ratelimit-reset", b"%d" % reset),
                ]
                message = {**message, "headers": [*message["headers"], *state]}
            await send(message)

        await app(scope, receive, send_more)

    return floor


def floor_csrf(app: App) -> App:
    """One pass for origin and host, which must be equal."""

    async def floor(scope, receive, send):
        origin = host = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"host":
                host = value
        if scope["method"] not in ("GET", "HEAD") and origin != b"%s://%s" % (scope["scheme"].encode(), host):
            raise AssertionError
        await app(scope, receive, send)

    return floor


def floor_cache(_app: App) -> App:
    """One pass over the header fields, one look-up by host, path and query, the age in a new header list."""
    kept = {(HOST.encode(), "/articles/17", b""): (HEADERS, b"hello", time.time(), time.time() + 10_000)}

    async def floor(scope, receive, send):
        host = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name in (b"cookie", b"if-none-match", b"cache-control"):
                raise AssertionError
        headers, body, made, until = kept[host, scope["path"], scope["query_string"]]
        now = time.time()
        if now > until or scope["method"] != "GET":
            raise AssertionError
        headers = [*headers, (b"age", b"%d" % (now - made))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return floor


# --- ours


def ours_trust(app: App) -> App:
    from mks_hardening.asgi import HTTPSRedirectMiddleware, ProxyTrust, TrustedProxyMiddleware

    trust = ProxyTrust(["10.0.0.0/8", "fd00::/8"])
    return TrustedProxyMiddleware(HTTPSRedirectMiddleware(app, allowed_hosts=[HOST]), trust=trust)


def ours_in_one(app: App) -> App:
    from mks_hardening.asgi import HTTPSRedirectMiddleware, ProxyTrust

    return HTTPSRedirectMiddleware(app, allowed_hosts=[HOST], trust=ProxyTrust(["10.0.0.0/8", "fd00::/8"]))


def ours_headers(app: App, preset: str = "web") -> App:
    from mks_hardening.asgi import HeaderPolicy, SecurityHeadersMiddleware

    return SecurityHeadersMiddleware(app, policy=getattr(HeaderPolicy, preset)())


def ours_record(app: App) -> App:
    from mks_hardening.asgi import RequestLoggingMiddleware

    return RequestLoggingMiddleware(app, logger=quiet_logger("ours"))


def ours_session(app: App) -> App:
    from mks_hardening._edge.session.session_ids import key_of
    from mks_hardening.asgi import MemorySessionStore, SessionTimeoutMiddleware
    from mks_hardening.protocols import SessionRecord

    store, now = MemorySessionStore(), time.time()
    store.create(SessionRecord(key_of(SESSION_ID), "alice", now, now, now + 1800), now=now)
    return SessionTimeoutMiddleware(app, store=store)


def ours_limit(app: App) -> App:
    from mks_hardening.asgi import RateLimitMiddleware, RateLimitRule
    from mks_hardening.security import RateLimiter

    limiter = RateLimiter({"all": "1000000 per minute"})
    return RateLimitMiddleware(app, limiter=limiter, rules=[RateLimitRule("all")])


def ours_csrf(app: App) -> App:
    from mks_hardening.asgi import CSRFMiddleware

    return CSRFMiddleware(app)


def ours_cache(app: App) -> App:
    from mks_hardening.asgi import CacheRule, ResponseCacheMiddleware
    from mks_hardening.cache import MemoryCache

    return ResponseCacheMiddleware(app, cache=MemoryCache(), rules=[CacheRule("/articles/", ttl=10_000)])


def ours_together(app: App) -> App:
    """All wrappers, in the order of ``harden_asgi``."""
    from mks_hardening.asgi import HealthMiddleware

    app = ours_csrf(app)
    app = ours_session(app)
    app = ours_limit(app)
    app = HealthMiddleware(app, required={})
    app = _served_https(app)
    app = ours_record(app)
    app = ours_headers(app)
    return _served_trust(app)


def floors_together(app: App) -> App:
    """The minimal versions in the same order: no stack with these tasks can serve more requests."""
    for floor in (floor_csrf, floor_session, floor_limit, floor_record, floor_headers, floor_trust):
        app = floor(app)
    return app


def _served_https(app: App) -> App:
    from mks_hardening.asgi import HTTPSRedirectMiddleware

    return HTTPSRedirectMiddleware(app, allowed_hosts=[HOST])


def _served_trust(app: App) -> App:
    from mks_hardening.asgi import ProxyTrust, TrustedProxyMiddleware

    return TrustedProxyMiddleware(app, trust=ProxyTrust(["10.0.0.0/8", "127.0.0.1"]))


# --- peers


def proxy_headers(app: App) -> App:
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    return ProxyHeadersMiddleware(app, trusted_hosts=["10.0.0.0/8", "127.0.0.1"])


def trusted_host(app: App) -> App:
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(app, allowed_hosts=[HOST])


def https_redirect(app: App) -> App:
    from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware

    return HTTPSRedirectMiddleware(app)


def hypercorn_proxy_fix(app: App) -> App:
    from hypercorn.middleware import ProxyFixMiddleware

    return ProxyFixMiddleware(app, mode="legacy", trusted_hops=1)


def secure_py(app: App) -> App:
    from secure import Secure
    from secure.middleware.asgi import SecureASGIMiddleware

    return SecureASGIMiddleware(app, secure=Secure.with_default_headers())


def correlation_id(app: App) -> App:
    from asgi_correlation_id import CorrelationIdMiddleware

    return CorrelationIdMiddleware(app)


def starlette_sessions(app: App) -> App:
    from starlette.middleware.sessions import SessionMiddleware

    return SessionMiddleware(app, secret_key="x" * 40)


def starlette_csrf(app: App) -> App:
    from starlette_csrf import CSRFMiddleware

    return CSRFMiddleware(app, secret="x" * 40)


def six_peers(app: App) -> App:
    """The usual peers, in their usual order."""
    for peer in (starlette_csrf, starlette_sessions, trusted_host, correlation_id, secure_py, proxy_headers):
        app = peer(app)
    return app


def fastapi_guard(app: App) -> App:
    """fastapi-guard with the same checks as ours; its detection of attack patterns is off."""
    from guard import PureASGISecurityMiddleware, SecurityConfig

    config = SecurityConfig(
        trusted_proxies=["10.0.0.0/8", "127.0.0.1"],
        trust_x_forwarded_proto=True,
        enforce_https=True,
        enable_redis=False,
        enable_penetration_detection=False,
        rate_limit=1_000_000,
        rate_limit_window=60,
        log_request_level="INFO",
    )
    app = PureASGISecurityMiddleware(app, config=config)
    quiet_logger("", "guard_core")
    return app


def base_http(app: App) -> App:
    from starlette.middleware.base import BaseHTTPMiddleware

    async def dispatch(request, call_next):
        return await call_next(request)

    return BaseHTTPMiddleware(app, dispatch=dispatch)


# --- measuring in one process


class Quiet(logging.Handler):
    def handle(self, record):
        return record


def quiet_logger(name: str, parent: str = "bench") -> logging.Logger:
    logger = logging.getLogger(f"{parent}.{name}".rstrip("."))
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = [Quiet()]
    return logger


Builders = list[tuple[str, Callable[[App], App], float | None]]
"""Name, builder, and the most that it may cost in floors."""
GROUPS: dict[str, tuple[str, dict[str, Any], Builders]] = {
    "trust": (
        "https behind a proxy: trust, host, pass",
        BEHIND_PROXY,
        [
            ("floor", floor_trust, None),
            ("ours (two wrappers)", ours_trust, 2),
            ("ours (redirect with trust)", ours_in_one, 2),
            ("uvicorn ProxyHeaders", proxy_headers, None),
            (
                "uvicorn ProxyHeaders, Starlette TrustedHost, HTTPSRedirect",
                lambda app: proxy_headers(trusted_host(https_redirect(app))),
                None,
            ),
            ("Hypercorn ProxyFix", hypercorn_proxy_fix, None),
        ],
    ),
    "redirect": (
        "plain http: redirect",
        PLAIN,
        [
            ("floor", floor_redirect, None),
            ("ours", ours_trust, 4),
            ("ours (one wrapper)", ours_in_one, 4),
            ("Starlette HTTPSRedirect", https_redirect, None),
        ],
    ),
    "headers": (
        "header fields over https",
        SECURE,
        [
            ("floor", floor_headers, None),
            ("ours, web", ours_headers, 1.5),
            ("ours, strict with nonce", lambda app: ours_headers(app, "strict"), 2.5),
            ("secure.py", secure_py, None),
            ("BaseHTTPMiddleware that does nothing", base_http, None),
        ],
    ),
    "record": (
        "request record, without a query",
        SECURE,
        [
            ("floor", floor_record, None),
            ("ours", ours_record, 2.2),
            ("asgi-correlation-id (an id alone)", correlation_id, None),
        ],
    ),
    "session": (
        "session check, in memory",
        SECURE,
        [
            ("floor", floor_session, None),
            ("ours", ours_session, 3.5),
            ("Starlette sessions", starlette_sessions, None),
        ],
    ),
    "limit": (
        "rate limit, in memory",
        SECURE,
        [
            ("floor", floor_limit, None),
            ("ours", ours_limit, 8),
        ],
    ),
    "csrf": (
        "CSRF, an unsafe method",
        POST,
        [
            ("floor", floor_csrf, None),
            ("ours", ours_csrf, 6),
            ("starlette-csrf", starlette_csrf, None),
        ],
    ),
    "cache": (
        "response cache in memory: a hit",
        NOBODY,
        [
            ("floor", floor_cache, None),
            ("ours", ours_cache, None),
        ],
    ),
}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: dict[str, Any]) -> None:
    return None


async def microseconds(app: App, scope: dict[str, Any]) -> float:
    requests = [scope.copy() for _ in range(CALLS)]
    started = time.thread_time_ns()  # the time of this thread alone, so that neighbours count less
    for each in requests:
        await app(each, receive, send)
    return (time.thread_time_ns() - started) / CALLS / 1e3


async def measure(scope: dict[str, Any], contenders: dict[str, App], rounds: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for app in contenders.values():
        await microseconds(app, scope)
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, app in contenders.items():
            samples[name].append(await microseconds(app, scope))
    gc.enable()
    return {name: statistics.median(values) for name, values in samples.items()}


def built(builders: Builders, app: App = bare) -> dict[str, App]:
    contenders: dict[str, App] = {}
    for name, build, _ in builders:
        try:
            contenders[name] = build(app)
        except ImportError as error:
            print(f"  not here: {name} ({error})")
    return contenders


def in_process(rounds: int) -> None:
    for title, scope, builders in GROUPS.values():
        medians = asyncio.run(measure(scope, {"bare": bare, **built(builders)}, rounds))
        floor = medians["floor"] - medians["bare"]
        goals = {name: goal for name, _, goal in builders}
        added_by = {name: median - medians["bare"] for name, median in medians.items() if name != "bare"}
        keep(f"ASGI, {title}", added_by)
        print(f"\n{title} (bare application {medians['bare']:.2f} µs)")
        for name, median in medians.items():
            if name != "bare":
                added, goal = median - medians["bare"], goals[name]
                said = "" if goal is None else f"  (goal: {goal})"
                print(f"  {name:60} {added:8.2f} µs  {added / floor:7.2f} x floor{said}", flush=True)


def profiled(group: str) -> None:
    """Profile our contenders."""
    _, scope, builders = GROUPS[group]
    for name, app in built([each for each in builders if each[2] is not None]).items():
        with cProfile.Profile() as profile:
            asyncio.run(microseconds(app, scope))
        print(f"\n{group}: {name}")
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)


# --- served by uvicorn


def fastapi_app() -> App:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    app = FastAPI(openapi_url=None)

    @app.get("/articles/{number}", response_class=HTMLResponse)
    async def article(number: int) -> str:
        return "hello"

    return app


STACKS: dict[str, Callable[[], App]] = {
    "bare": lambda: bare,
    "floors": lambda: floors_together(bare),
    "ours": lambda: ours_together(bare),
    "six peers": lambda: six_peers(bare),
    "fastapi-guard": lambda: fastapi_guard(bare),
    "FastAPI": lambda: fastapi_app(),
    "FastAPI, floors": lambda: floors_together(fastapi_app()),
    "FastAPI, ours": lambda: ours_together(fastapi_app()),
    "FastAPI, six peers": lambda: six_peers(fastapi_app()),
    "FastAPI, fastapi-guard": lambda: fastapi_guard(fastapi_app()),
}
"""What uvicorn serves, by the name in STACK."""
SERVED_SECONDS = 1.0
CONNECTIONS = 32
REQUEST = b"\r\n".join([
    b"GET /articles/17 HTTP/1.1",
    *(name + b": " + value for name, value in BEHIND_PROXY["headers"]),
    b"\r\n",
])  # fmt: skip


def __getattr__(name: str) -> App:
    if name == "application":  # what uvicorn imports
        logging.getLogger().addHandler(logging.NullHandler())
        return STACKS[os.environ["STACK"]]()
    raise AttributeError(name)


class Server:
    """One uvicorn process with a stack, on a free loopback port."""

    def __init__(self, stack: str) -> None:
        from testbed.polling import accepts_connections, free_port, wait_until

        self.port = free_port()
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "asgi:application",
            "--port",
            str(self.port),
            "--no-access-log",
        ]
        command += [
            "--no-proxy-headers",
            "--timeout-keep-alive",
            "600",
            "--log-level",
            "error",
            "--lifespan",
            "off",
        ]
        self.process = subprocess.Popen(
            command, cwd=Path(__file__).parent, env={**os.environ, "STACK": stack, "PYTHONWARNINGS": "ignore"}
        )
        wait_until(
            lambda: accepts_connections(self.port) or self.process.poll() is not None, what=f"uvicorn {stack}"
        )
        if self.process.poll() is not None:
            raise RuntimeError(stack)
        self.connections = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(CONNECTIONS)]
        self.round()

    def round(self) -> None:
        """Send one request on each connection."""
        for connection in self.connections:
            connection.sendall(REQUEST)
        for connection in self.connections:
            received = b""
            while not received.endswith(b"hello"):
                part = connection.recv(65536)
                received += part
                if not part or not received.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(received.decode("latin-1"))

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def turn(self) -> tuple[int, float]:
        """Return the number of requests in one turn, and the server's CPU time for them."""
        asked, before = 0, self._processor_seconds()
        end = time.monotonic() + SERVED_SECONDS
        while time.monotonic() < end:
            self.round()
            asked += CONNECTIONS
        return asked, self._processor_seconds() - before

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def served(rounds: int) -> None:
    servers: dict[str, Server] = {}
    try:
        for stack, build in STACKS.items():
            try:
                build()
            except ImportError as error:
                print(f"  not here: {stack} ({error})")
                continue
            servers[stack] = Server(stack)
        turns: dict[str, list[tuple[int, float]]] = {stack: [] for stack in servers}
        for _ in range(rounds):
            for stack, server in servers.items():
                turns[stack].append(server.turn())
        rates = {
            stack: statistics.median(asked / used for asked, used in each) for stack, each in turns.items()
        }
    finally:
        for server in servers.values():
            server.stop()
    keep("requests per second through uvicorn", rates)
    print("\nuvicorn, one process: requests in a second of its processor time")
    for stack, rate in rates.items():
        base = "FastAPI" if stack.startswith("FastAPI") else "bare"
        print(f"  {stack:40} {rate:9.0f}   {rate / rates[base]:5.2f} of {base}")
    for peer in ("six peers", "fastapi-guard"):
        for ahead in ("", "FastAPI, "):
            for stack in ("ours", "floors"):
                if ahead + peer in rates:
                    ratio = rates[ahead + stack] / rates[ahead + peer]
                    print(f"  {ahead + stack:>15} : {peer:15} {ratio:5.2f}")


def arguments() -> Iterator[Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", nargs="?", type=int, default=101)
    parser.add_argument("--served", action="store_true")
    parser.add_argument("--profile", choices=GROUPS)
    yield parser.parse_args()


def main() -> None:
    for options in arguments():
        if options.profile:
            profiled(options.profile)
        elif options.served:
            served(min(options.rounds, 9))
        else:
            in_process(options.rounds)
            served(min(options.rounds, 5))


if __name__ == "__main__":
    main()
