"""Error reports of the real SDK to an HTTP receiver of Sentry's protocol: what arrives, how often, who waits."""

from __future__ import annotations

import gzip
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mks_hardening import asgi
from mks_hardening.contrib.sentry_redaction import init_sentry
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError
from mks_hardening.testing import call_asgi, call_wsgi
from mks_hardening.wsgi import RequestLoggingMiddleware
from testbed.http_sink import Answer, HttpSink
from testbed.polling import wait_until

sentry_sdk = pytest.importorskip("sentry_sdk")

SECRET, MAIL, ADDRESS = "hunter2", "tanaka@example.jp", "203.0.113.9"


@pytest.fixture(autouse=True)
def ended_transports() -> Iterator[None]:
    """Wait for the threads of the SDK, which log their last attempts after the receiver has ended."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("sentry"):
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def reports(
    http_sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Start reporting to the receiver; return its events, none of which may hold a secret or name a person."""
    from sentry_sdk import integrations

    # The SDK wraps functions of the process once and for good: put back, and wrapped again by the next test.
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    for name in ("start", "run"):
        monkeypatch.setattr(threading.Thread, name, getattr(threading.Thread, name))
    monkeypatch.setattr("sentry_sdk.scope.global_event_processors", [])
    for name in ("_processed_integrations", "_installed_integrations"):
        monkeypatch.setattr(integrations, name, set())
    init_sentry(f"http://abc123@127.0.0.1:{http_sink.port}/7", environment="test", release="1.2.3")
    client = sentry_sdk.get_client()

    def received() -> list[dict[str, Any]]:
        client.flush(timeout=10)
        events = list[dict[str, Any]]()
        for request in http_sink.requests:
            assert request.path == "/api/7/envelope/"
            body = gzip.decompress(request.body).decode()
            for part in (SECRET, "tanaka", ADDRESS, "mobile browser"):
                assert part not in body
            events += [json.loads(line) for line in body.splitlines()[2::2]]
        return events

    yield received
    waiting: Any = client.transport._worker._queue  # nothing public gives up what waits
    with waiting.mutex:
        waiting.queue.clear()
    client.close(timeout=0)
    sentry_sdk.get_global_scope().set_client(None)


def failing(environ: dict[str, Any], start_response: Any) -> Any:
    """An application that knows everything about a person, and fails."""
    user, form = MAIL, {"password": SECRET}
    raise LookupError(f"no article for {user} at {ADDRESS} with password={form['password']}")


def ask(app: Any) -> str:
    response = call_wsgi(
        app,
        "/articles",
        query=f"mail={MAIL}&token={SECRET}",
        headers={"Cookie": f"session={SECRET}", "User-Agent": "mobile browser", "X-Forwarded-For": ADDRESS},
    )
    assert response.status == 500
    return dict(response.headers)["X-Request-ID"]


def test_an_error_is_one_event_that_leads_to_the_log(
    reports: Callable[[], list[dict[str, Any]]],
) -> None:
    app = RequestLoggingMiddleware(failing)
    ids = [ask(app), ask(app)]
    events = reports()
    assert [event["tags"]["request_id"] for event in events] == ids
    event = events[0]
    assert (event["environment"], event["release"], event["level"]) == ("test", "1.2.3", "error")
    (error,) = event["exception"]["values"]
    assert error["type"] == "LookupError"
    assert error["value"] == "no article for [REDACTED] at [REDACTED] with password=[REDACTED]"
    frame = error["stacktrace"]["frames"][-1]
    assert (frame["function"], "vars" in frame) == ("failing", False)
    assert not {"user", "request", "extra", "breadcrumbs"} & event.keys()
    assert "params" not in event["logentry"]


def test_an_error_of_an_asgi_application_is_one_event(
    reports: Callable[[], list[dict[str, Any]]],
) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError(MAIL)

    response = call_asgi(asgi.RequestLoggingMiddleware(failing), "/articles", query=f"mail={MAIL}")
    (event,) = reports()
    assert event["tags"]["request_id"] == dict(response.headers)["x-request-id"]
    assert event["exception"]["values"][0]["value"] == "[REDACTED]"


def flask_app() -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask("failing")

    @app.get("/articles")
    def articles() -> str:
        raise LookupError(MAIL)

    app.wsgi_app = RequestLoggingMiddleware(app.wsgi_app)
    return app


def handled_and_raised(environ: dict[str, Any], start_response: Any) -> Any:
    """Logs its exception, and leaves it to others as well."""
    try:
        return failing(environ, start_response)
    except LookupError:
        logging.getLogger("app").exception("no article for %s", MAIL)
        raise


@pytest.mark.parametrize(
    "make",
    [flask_app, lambda: RequestLoggingMiddleware(handled_and_raised)],
    ids=["a framework that logs and answers", "logged and raised"],
)
def test_what_is_logged_twice_is_sent_once(
    reports: Callable[[], list[dict[str, Any]]], make: Callable[[], Any]
) -> None:
    request_id = ask(make())
    (event,) = reports()
    assert event["tags"]["request_id"] == request_id
    assert event["exception"]["values"][0]["type"] == "LookupError"


def test_an_error_without_an_exception_is_an_event_and_a_warning_is_none(
    reports: Callable[[], list[dict[str, Any]]],
) -> None:
    logger = logging.getLogger("app")
    logger.warning("slow")
    logger.error("mail for %s was refused, password=%s", MAIL, SECRET, extra={"client": ADDRESS})
    (event,) = reports()
    assert event["logentry"]["formatted"] == "mail for [REDACTED] was refused, password=[REDACTED]"
    assert "tags" not in event


@pytest.mark.parametrize(
    "answer", [Answer(delay=30), Answer(drop=True), Answer(500)], ids=["silent", "reset", "500"]
)
def test_a_server_that_does_not_work_makes_no_request_wait(
    reports: Callable[[], list[dict[str, Any]]], http_sink: HttpSink, answer: Answer
) -> None:
    http_sink.default = answer
    app = RequestLoggingMiddleware(failing)
    ask(app)
    wait_until(lambda: http_sink.requests, timeout=10, what="the first report")
    started = time.monotonic()
    for _ in range(300):  # more than the queue holds
        ask(app)
    # A third of a second on an idle machine; one request that waits for the receiver takes 30 s.
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "hunter2",
        "https://sentry.example.jp/7",
        "https://hunter2:hunter2@sentry.example.jp/7",
        "https://hunter2@sentry.example.jp/",
        "http://hunter2@sentry.example.jp/7",
        "ftp://hunter2@sentry.example.jp/7",
    ],
)
def test_a_dsn_that_cannot_be_meant_is_refused_without_showing_it(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^dsn") as refused:
        init_sentry(dsn)
    assert "hunter2" not in str(refused.value)
    assert not sentry_sdk.get_client().is_active()


def test_without_the_sdk_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    with pytest.raises(MissingDependencyError, match=r"mks-hardening\[sentry\]"):
        init_sentry("https://abc@sentry.example.jp/7")
