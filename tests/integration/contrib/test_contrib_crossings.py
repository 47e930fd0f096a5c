"""The adapters where they meet something else: a cluster, an outage that all see, two tabs, threads, greenlets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session

from contrib_django_site import project
from contrib_flask_site import settings_of
from contrib_served import SNIPPETS, Browser, served
from mks_hardening import compose
from mks_hardening.contrib.flask_app import Hardening, current_session, limit
from testbed.fault_proxy import FaultProxy
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster
from testbed.redis_server import RedisServer
from testbed.run_python import run_python

pytestmark = pytest.mark.redis
HTML = "text/html,*/*;q=0.8"


# --- on a cluster


def hardened_flask(**variables: str) -> tuple[Flask, Any]:
    """One process of an application that uses all that Redis keeps for it, and its cache."""
    app = Flask(__name__)
    settings = settings_of(**variables)
    Hardening(app, settings, groups={"few": "4 per minute"})
    cache = compose.cache_backend(settings)

    @app.post("/sign-in/<user>")
    def sign_in(user: str) -> str:
        session["user_id"] = user
        return user

    @app.get("/read")
    def read() -> dict[str, Any]:
        return {"user": current_session().user_id, "kept": cache.get_or_compute("kept", lambda: app.name)}

    @app.get("/few")
    @limit("few")
    def few() -> str:
        return ""

    return app, cache


@pytest.mark.slow
def test_both_adapters_on_a_cluster_and_through_the_loss_of_a_primary(redis_cluster: RedisCluster) -> None:
    url = redis_cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")
    variables = {"MKS_REDIS_URL": url, "MKS_STORE_BUDGET": "5s"}
    (first, cache), (second, other) = (hardened_flask(**variables) for _ in range(2))
    browser = first.test_client()
    assert browser.post("/sign-in/alice").text == "alice"
    cookie = browser.get_cookie("mks-session")
    assert cookie is not None
    elsewhere = second.test_client()
    elsewhere.set_cookie("mks-session", cookie.value)
    for client in (browser, elsewhere):
        assert client.get("/read").json == {"user": "alice", "kept": first.name}
    statuses = [client.get("/few").status_code for _ in range(3) for client in (browser, elsewhere)]
    assert statuses == [200] * 4 + [429] * 2
    assert (cache.stats().errors, other.stats().hits) == (0, 1)

    location = {"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache", "LOCATION": url}
    options = {"settings": settings_of(**variables), "store": None, "clock": None}
    with project(MKS_HARDENING=options, CACHES={"default": location}) as site:
        from django.core.cache import cache as django_cache

        site.visit(lambda request: request.session.update({"basket": ["helmet"]}))
        django_cache.set_many({f"k{number}": number for number in range(50)})
        assert django_cache.get_many([f"k{number}" for number in range(50)])["k49"] == 49
        document: list[Any] = []
        site.visit(lambda request: document.append(request.session["basket"]))

        redis_cluster.fail_over("{mks:sessions}:s:x")

        def again() -> bool:
            site.visit(lambda request: document.append(request.session.get("basket")))
            return document[-1] == ["helmet"] and elsewhere.get("/read").status_code == 200

        wait_until(again, timeout=30, what="the sessions on the new primary")
        assert elsewhere.get("/read").json["user"] == "alice"
        django_cache.set("new", 1)
        wait_until(lambda: django_cache.get_or_set("new", 1) == 1, timeout=30, what="the cache")
    for app, kept in ((first, cache), (second, other)):
        app.extensions["mks_hardening"].close()
        kept.close()


# --- one outage, seen by all

EVERYTHING = """
import logging
from flask import Flask, session
from mks_hardening import compose
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening.contrib.flask_app import Hardening, current_session, limit
from mks_hardening.db import hardened_engine
from mks_hardening.logging import setup_logging
from mks_hardening.notify import AlertPolicy, WebhookNotificationHandler
from mks_hardening.security import RateLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.tasks import Every, Tasks, TaskWorker
from mks_hardening.testing import RecordingTransport

settings = HardeningSettings.from_env()
redis = settings.core.redis_url
# Budgets that a busy machine keeps, so that the one outage is that of the test.
policy = AlertPolicy(shared_store=RedisClient(redis, store_budget=5), dedup_window=60)
alerts = WebhookNotificationHandler("https://alerts.example.com/", transport=RecordingTransport(), policy=policy)
setup_logging("everything", handlers=[alerts])
logger = logging.getLogger("everything")
app = Flask(__name__)
limiter = RateLimiter({"many": "1000000 per minute"}, storage=redis, store_budget=5)
Hardening(app, settings, limiter=limiter)
cache = compose.cache_backend(settings)
engine = hardened_engine("sqlite:///tasks.sqlite3")
tasks = Tasks(engine)
tasks.store.table.metadata.create_all(engine)

@tasks.task("read", schedule=Every(1))
def read(run):
    cache.get("from a task")

TaskWorker(tasks, poll=0.05).start()
calls = iter(range(1_000_000))

@app.get("/all")
@limit("many")
def everything():
    number = next(calls)
    cache.set(f"k{number}", number)
    logger.error("something is wrong %d", number)
    session["number"] = number
    return {"read": cache.get(f"k{number}"), "user": current_session().user_id}
"""


@pytest.mark.slow
def test_one_outage_is_one_record_going_and_one_coming(redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "everything.py").write_text(EVERYTHING)
    environment = {
        "MKS_ENV": "development", "MKS_REDIS_URL": redis_server.url, "MKS_STORE_BUDGET": "5s",
        "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    log = tmp_path / "log"

    def document(what: str) -> list[dict[str, Any]]:
        whole, _, _ = log.read_text().rpartition("\n")  # the last line may still be written
        lines = (json.loads(line) for line in whole.splitlines() if line.startswith("{"))
        return [
            line for line in lines if line["logger"] == "mks_hardening.breaker" and what in line["message"]
        ]

    with served("everything:app", log=log, environment=environment, workers=1) as browser:
        stop = threading.Event()
        seen: set[int] = set()

        def visit() -> None:
            mine = Browser(browser.port)
            while not stop.is_set():
                seen.add(mine.ask("/all").status)

        with ThreadPoolExecutor(4) as pool:
            visitors = [pool.submit(visit) for _ in range(4)]
            try:
                wait_until(lambda: 200 in seen, timeout=30, what="an answer")
                redis_server.kill()
                wait_until(lambda: document("is unavailable"), timeout=30, what="the record of the outage")
                wait_until(lambda: 503 in seen, timeout=30, what="a refusal")
                redis_server.start()
                wait_until(lambda: document("is available again"), timeout=30, what="the record of its end")
                seen.clear()
                wait_until(lambda: 200 in seen, timeout=30, what="an answer after it")
            finally:
                stop.set()
            for visitor in visitors:
                visitor.result()
    told_of = [
        line["message"].removeprefix(f"redis at 127.0.0.1:{redis_server.port} ") for line in document("")
    ]
    assert told_of == ["is unavailable (refused)", "is available again"]


# --- two tabs of one browser

PASSWORD = "long enough for all"
SET_UP = """
import django_app
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
for name in ("alice", "bob"):
    User.objects.create_superuser(name, password={password!r})
"""


def token_of(body: bytes) -> str:
    return re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', body.decode())[0]


def sign_in(browser: Browser, name: str, token: str | None = None) -> int:
    found = token or token_of(browser.ask("/admin/login/", Accept=HTML).body)
    form = {"username": name, "password": PASSWORD, "next": "/admin/", "csrfmiddlewaretoken": found}
    return browser.ask("/admin/login/", form, Accept=HTML).status


@pytest.mark.slow
@pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel")
def test_two_tabs_of_django(redis_server: RedisServer, tmp_path: Path) -> None:
    environment = {"MKS_ENV": "development", "MKS_REDIS_URL": redis_server.url, "MKS_STORE_BUDGET": "5s"}
    code = [sys.executable, "-c", SET_UP.format(password=PASSWORD)]
    variables = {"PYTHONPATH": str(SNIPPETS), **environment}
    subprocess.run(code, cwd=tmp_path, env=variables, check=True, timeout=60)
    with served("django_app:application", log=tmp_path / "log", environment=environment) as browser:
        # The form is sent twice, at the same time: both are answered, and who is signed in is who has signed in.
        token = token_of(browser.ask("/admin/login/", Accept=HTML).body)
        tabs = [browser.copy() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda tab: sign_in(tab, "alice", token), tabs)) <= {302, 403}
        signed_in = [tab for tab in tabs if tab.ask("/basket/x").json["user"] == "alice"]
        assert signed_in
        browser.cookies = dict(signed_in[-1].cookies)

        # A form of alice that is sent after bob has signed in in the other tab does nothing in his name.
        form_of_alice = {"csrfmiddlewaretoken": token_of(browser.ask("/admin/", Accept=HTML).body)}
        assert browser.ask("/admin/logout/", dict(form_of_alice), Accept=HTML).status == 200
        assert sign_in(browser, "bob") == 302
        assert browser.ask("/admin/logout/", form_of_alice, Accept=HTML).status == 403
        assert browser.ask("/basket/y").json == {"user": "bob", "basket": ["y"]}

        # One tab signs out while the other works: no answer brings the session back.
        late = browser.copy()
        form_of_bob = {"csrfmiddlewaretoken": token_of(browser.ask("/admin/", Accept=HTML).body)}
        with ThreadPoolExecutor(4) as pool:
            work = [
                pool.submit(late.copy().ask, f"/basket/{number}", None, Accept=HTML) for number in range(8)
            ]
            assert browser.ask("/admin/logout/", form_of_bob, Accept=HTML).status == 200
            answers = [each.result() for each in work]
        assert {answer.status for answer in answers} <= {200, 303, 400}
        assert (late.ask("/basket/z").status, browser.ask("/basket/z").json["user"]) == (401, "")


# --- Django's cache from threads, with a server that stalls


@pytest.mark.slow
def test_threads_of_djangos_cache_get_their_own_answers_or_none(fault_proxy: FaultProxy) -> None:
    url = f"redis://127.0.0.1:{fault_proxy.port}/0"
    location = {"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache", "LOCATION": url}
    options = {"settings": settings_of(MKS_STORE_BUDGET="30ms"), "clock": None}
    with project(MKS_HARDENING=options, CACHES={"default": location}):
        from django.core.cache import cache

        wrong: list[object] = []

        def work(mine: int) -> int:
            hits = 0
            for number in range(25):
                key = f"{mine}:{number}"
                cache.set(key, key)
                cache.add(key, "another")
                found = {cache.get(key), *cache.get_many([key, f"{key}?"]).values()}
                wrong.extend(found - {None, key, "another"})
                hits += key in found
            return hits

        def works() -> bool:
            cache.set("back", 1)
            found: object = cache.get("back")
            return found == 1

        with ThreadPoolExecutor(12) as pool:
            for latency in (0.0, 0.012, 0.02, 0.03):  # an answer takes two of them, and may take 30 ms
                fault_proxy.latency = latency
                list(pool.map(work, range(12)))
        fault_proxy.latency = 0.0
        wait_until(works, timeout=30, what="the cache")
        assert wrong == []


# --- OpenTelemetry and greenlets

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, json, logging
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from mks_hardening.contrib.otel_observer import OpenTelemetryObserver
from mks_hardening.logging import current
from mks_hardening.wsgi import RequestLoggingMiddleware

kept, logged = InMemorySpanExporter(), []
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(kept))
tracer = provider.get_tracer("test")
logging.getLogger("mks_hardening.request").addHandler(logging.NullHandler())

def app(environ, start_response):
    start_response("200 OK", [])
    for number in range(3):
        with tracer.start_as_current_span(f"{environ['PATH_INFO']} {number}") as span:
            gevent.sleep(0.001)
            logged.append((current()["trace_id"], f"{span.get_span_context().trace_id:032x}"))
        yield b"x"

traced = RequestLoggingMiddleware(app, tracer=OpenTelemetryObserver(tracer_provider=provider))

def ask(number):
    body = traced({"REQUEST_METHOD": "GET", "PATH_INFO": f"/{number}"}, lambda *_: None)
    list(body)
    body.close()

gevent.joinall([gevent.spawn(ask, number) for number in range(30)], raise_error=True)
spans = kept.get_finished_spans()
requests = {span.context.span_id: span for span in spans if span.parent is None}
inner = [span for span in spans if span.parent is not None]
print(json.dumps({
    "requests": len(requests),
    "traces": len({span.context.trace_id for span in requests.values()}),
    "inner": len(inner),
    "in their request": all(
        requests[span.parent.span_id].attributes["url.path"] == span.name.partition(" ")[0] for span in inner
    ),
    "in the log": all(of_log == of_span for of_log, of_span in logged),
}))
"""


def test_spans_of_greenlets_are_those_of_their_own_requests() -> None:
    pytest.importorskip("gevent")
    pytest.importorskip("opentelemetry.sdk")
    document = run_python(GREENLETS).json()
    assert document == {
        "requests": 30,
        "traces": 30,
        "inner": 90,
        "in their request": True,
        "in the log": True,
    }
