"""Cost of the request record and of the session check, compared with minimal versions and peers.

    python benchmarks/wsgi_record_session.py [rounds]
    python benchmarks/wsgi_record_session.py --corpus

All contenders answer the same request in one process; rounds are interleaved. Output: median CPU time in
microseconds minus that of the bare application, and ratios to the floor. The floors do only what is unavoidable and
are listed here. Peers that are not installed are skipped.

With ``--corpus``, the peers run over ``tests/corpus/wsgi/record.jsonl`` instead.
"""

# ruff: noqa: ARG001, D101, D102 - signatures of WSGI, and floors that are read rather than documented

from __future__ import annotations

import io
import logging
import statistics
import sys
import time
import uuid
from hashlib import sha256
from pathlib import Path

from figures import keep

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

CALLS = 200  # short turns, so that what else runs on the machine hits all contenders alike


def environ(**more):
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/projects/42",
        "QUERY_STRING": "",
        "SERVER_NAME": "server.internal",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_HOST": "www.example.com",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
        "HTTP_USER_AGENT": "bench",
        "HTTP_TRACEPARENT": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **more,
    }


HEADERS = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "12")]
BODY = [b"<p>hello</p>"]


def bare(environ, start_response):
    start_response("200 OK", list(HEADERS))
    return BODY


def start_response(status, headers, exc_info=None):
    return None


def request(app, base):
    body = app(dict(base), start_response)
    for _ in body:
        pass
    close = getattr(body, "close", None)
    if close is not None:
        close()


# --- floors ---


class FloorRecord:
    """One id, two clock readings, one log record; bytes counted, the id in the response."""

    def __init__(self, app, logger):
        self.app = app
        self.logger = logger

    def __call__(self, environ, start_response):
        started = time.monotonic()
        request_id = uuid.uuid4().hex
        seen = {}

        def start(status, headers, exc_info=None):
            seen["status"] = int(status[:3])
            return start_response(status, [*headers, ("X-Request-ID", request_id)])

        return FloorBody(self.app(environ, start), self.logger, environ, seen, started, request_id)


class FloorBody:
    def __init__(self, body, *facts):
        self.body = body
        self.next = iter(body).__next__
        self.facts = facts
        self.bytes = 0

    def __iter__(self):
        return self

    def __next__(self):
        chunk = self.next()
        self.bytes += len(chunk)
        return chunk

    def close(self):
        logger, environ, seen, started, request_id = self.facts
        if hasattr(self.body, "close"):
            self.body.close()
        logger.info(
            "request",
            extra={
                "method": environ["REQUEST_METHOD"],
                "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
                "status": seen["status"],
                "bytes": self.bytes,
                "duration_ms": (time.monotonic() - started) * 1000,
                "client_ip": environ["REMOTE_ADDR"],
                "request_id": request_id,
            },
        )


class FloorSession:
    """The hash of the id, one look-up, one comparison."""

    def __init__(self, app, sessions):
        self.app = app
        self.sessions = sessions

    def __call__(self, environ, start_response):
        cookie = environ.get("HTTP_COOKIE", "")
        at = cookie.find("__Host-mks-session=")
        if at >= 0:
            key = sha256(cookie[at + 19 : at + 62].encode()).hexdigest()
            if self.sessions[key] < time.time():
                start_response("401 Unauthorized", [("Content-Type", "text/plain")])
                return [b""]
        return self.app(environ, start_response)


# --- contenders ---


class Quiet(logging.Handler):
    def handle(self, record):
        return record


def quiet_logger(name):
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = [Quiet()]
    return logger


def record_contenders():
    from mks_hardening.wsgi import RequestLoggingMiddleware

    logger = quiet_logger("bench")
    yield "floor", FloorRecord(bare, logger)
    yield "RequestLoggingMiddleware", RequestLoggingMiddleware(bare, logger=logger)
    if translogger := paste():
        yield "Paste TransLogger", translogger(bare, quiet_logger("wsgi"))
    if traced := opentelemetry():
        yield "OpenTelemetry WSGI, no provider", traced(bare)
    if traced := opentelemetry(sdk=True):
        yield "OpenTelemetry WSGI, SDK", traced(bare)


def paste():
    try:
        from paste.translogger import TransLogger
    except ImportError:
        return print("  Paste is not installed: no TransLogger")
    return lambda app, logger: TransLogger(app, logger=logger, setup_console_handler=False)


def opentelemetry(*, sdk=False):
    try:
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

        if sdk:
            from opentelemetry.sdk.trace import TracerProvider
    except ImportError:
        return print("  opentelemetry-instrumentation-wsgi is not installed: no OpenTelemetry")
    return lambda app: OpenTelemetryMiddleware(app, tracer_provider=TracerProvider() if sdk else None)


def session_contenders():
    from mks_hardening._edge.session.session_ids import key_of
    from mks_hardening.protocols import SessionRecord
    from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

    session_id, now = "A" * 43, time.time()
    cookie = {"HTTP_COOKIE": f"theme=dark; __Host-mks-session={session_id}; lang=ja"}
    yield "floor", FloorSession(bare, {key_of(session_id): now + 10_000}), cookie
    store = MemorySessionStore()
    store.create(SessionRecord(key_of(session_id), "alice", now, now, now + 1800), now=now)
    yield "SessionTimeoutMiddleware, memory", SessionTimeoutMiddleware(bare, store=store), cookie
    yield from django_sessions()


def django_sessions():
    try:
        from django.conf import settings
        from django.contrib.sessions.backends.cache import SessionStore
        from django.contrib.sessions.middleware import SessionMiddleware
        from django.http import HttpRequest, HttpResponse
    except ImportError:
        print("  Django is not installed: no Django sessions")
        return
    if not settings.configured:
        import django

        settings.configure(
            SECRET_KEY="bench",
            CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
            SESSION_ENGINE="django.contrib.sessions.backends.cache",
        )
        django.setup()

    def view(request):
        request.session.get("user")
        return HttpResponse(b"")

    middleware = SessionMiddleware(view)
    stored = SessionStore()
    stored["user"] = "alice"
    stored.save()

    def app(environ, start_response):
        request = HttpRequest()
        request.COOKIES = {"sessionid": stored.session_key}
        middleware(request)
        return bare(environ, start_response)

    def empty(environ, start_response):
        request = HttpRequest()
        request.COOKIES = {"sessionid": stored.session_key}
        HttpResponse(b"")
        return bare(environ, start_response)

    yield "Django sessions (locmem), no time-out", app, {}
    yield "(building Django's request and response alone)", empty, {}


def measure(title, contenders, rounds):
    print(title)
    contenders = [("bare", bare, {}), *contenders]
    bases = [environ(**more) for _, _, more in contenders]
    times = [[] for _ in contenders]
    for _ in range(rounds):
        for number, (_, app, _) in enumerate(contenders):
            base = bases[number]
            started = time.thread_time()
            for _ in range(CALLS):
                request(app, base)
            times[number].append((time.thread_time() - started) / CALLS * 1e6)
    medians = [statistics.median(values) for values in times]
    floor = medians[1] - medians[0]
    keep(title, {name: middle - medians[0] for (name, _, _), middle in zip(contenders, medians, strict=True)})
    print(f"  {'bare':48s} {medians[0]:8.2f} us")
    for (name, _, _), median in zip(contenders[1:], medians[1:], strict=True):
        added = median - medians[0]
        print(f"  {name:48s} {added:8.2f} us added  {added / floor:6.2f} x floor")


def run_corpus():
    from wsgi_record_corpus import faults_of, load_cases

    cases = load_cases()
    print(f"{len(cases)} cases: whole, and without what is said in the record")
    for name, recorder in corpus_recorders():
        whole = sum(not faults_of(case, recorder) for case in cases)
        answer = sum(not faults_of(case, recorder, record=False) for case in cases)
        print(f"  {name:32s} {whole:4d} {answer:4d}")


def corpus_recorders():
    from mks_hardening.wsgi import ProxyTrust, RequestLoggingMiddleware

    def ours(app, logger, clock, options):
        options = dict(options)
        proxies = options.pop("trusted_proxies", None)
        trust = ProxyTrust(proxies) if proxies else None
        return RequestLoggingMiddleware(app, logger=logger, trust=trust, clock=clock, **options)

    yield "RequestLoggingMiddleware", ours
    if translogger := paste():
        yield "Paste TransLogger", lambda app, logger, *_: translogger(app, logger)
    if traced := opentelemetry():
        yield "OpenTelemetry WSGI", lambda app, *_: traced(app)


def main():
    if "--corpus" in sys.argv:
        run_corpus()
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    measure("request record", [(name, app, {}) for name, app in record_contenders()], rounds)
    measure("session check", list(session_contenders()), rounds)


if __name__ == "__main__":
    main()
