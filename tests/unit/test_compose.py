from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mks_hardening import compose
from mks_hardening._core.deadline import current_budget
from mks_hardening.cache import MemoryCache, RedisCache
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify import EmailNotificationHandler, SlackNotificationHandler
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import WSGIAnswer, call_wsgi
from mks_hardening.wsgi import MemorySessionStore, RateLimitRule, RedisSessionStore

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "knowledge.example.com"
BASE = {"MKS_ALLOWED_HOSTS": HOST, "MKS_TRUSTED_PROXIES": "127.0.0.1"}


def settings(**extra: str) -> HardeningSettings:
    return HardeningSettings.from_env(environ={**BASE, **extra})


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/error":
        raise RuntimeError("broken")
    if path == "/login":
        environ["mks_hardening.session"].start("tanaka")
    budget = current_budget()
    facts = {
        "scheme": environ["wsgi.url_scheme"],
        "client": environ["REMOTE_ADDR"],
        "user": environ["mks_hardening.session"].user_id,
        "budget": None if budget is None else budget.remaining,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]


def ask(app: WSGIApplication, path: str = "/", *, proto: str = "https", **options: Any) -> WSGIAnswer:
    headers = {"Host": HOST, "X-Forwarded-Proto": proto, "X-Forwarded-For": "203.0.113.9"}
    headers |= options.pop("headers", {})
    return call_wsgi(app, path, headers=headers, environ={"REMOTE_ADDR": "127.0.0.1"}, **options)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    seen: list[logging.LogRecord] = []
    logger = logging.getLogger("mks_hardening.request")
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]  # a handler that keeps what it gets
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_the_whole_stack_serves_a_page(records: list[logging.LogRecord]) -> None:
    answer = ask(compose.harden_wsgi(application, settings()))
    facts = json.loads(answer.body)
    assert answer.status == 200
    assert (facts["scheme"], facts["client"], facts["user"]) == ("https", "203.0.113.9", None)
    assert facts["budget"] == pytest.approx(0.1)
    headers = dict(answer.headers)
    assert headers["Strict-Transport-Security"].startswith("max-age=63072000")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Request-ID"] == vars(records[-1])["request_id"]
    assert vars(records[-1])["client_ip"] == "203.0.113.9"


REFUSALS = [
    ("/", {"proto": "http"}, 301),
    ("/", {"headers": {"Host": "evil.example"}}, 400),
    ("/", {"method": "POST", "headers": {"Origin": "https://evil.example"}}, 403),
    ("/", {"headers": {"Cookie": "__Host-mks-session=dead", "Accept": "application/json"}}, 401),
    ("/error", {}, 500),
]


@pytest.mark.parametrize(("path", "request_", "status"), REFUSALS)
def test_refusals_are_recorded_and_carry_id_and_headers(
    records: list[logging.LogRecord], path: str, request_: dict[str, Any], status: int
) -> None:
    answer = ask(compose.harden_wsgi(application, settings()), path, **request_)
    headers = dict(answer.headers)
    assert answer.status == status
    assert "X-Request-ID" in headers
    assert [vars(record)["status"] for record in records] == [status]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_limits_count_by_the_real_client() -> None:
    app = compose.harden_wsgi(
        application,
        settings(),
        limiter=compose.rate_limiter(settings(), {"tight": "2 per minute"}),
        rate_limits=[RateLimitRule("tight", path="/login")],
    )
    statuses = [ask(app, "/login").status for _ in range(3)]
    other = ask(app, "/login", headers={"X-Forwarded-For": "203.0.113.10"}).status
    assert (statuses, other) == ([200, 200, 429], 200)


def test_probes_need_no_host_no_https_and_no_session() -> None:
    app = compose.harden_wsgi(application, settings(), required={"database": lambda: True})
    for path in ("/livez", "/readyz"):
        assert ask(app, path, proto="http", headers={"Host": "10.0.0.7:8000"}).status == 200


def test_the_budget_ends_with_the_request() -> None:
    ask(compose.harden_wsgi(application, settings()))
    assert current_budget() is None


@pytest.mark.parametrize("wrong", [{"rate_limits": [RateLimitRule("x")]}, {"sign_in_url": "https://evil"}])
def test_wrong_compositions(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        compose.harden_wsgi(application, settings(), **wrong)


def test_hosts_are_required() -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        compose.harden_wsgi(application, HardeningSettings())


@pytest.mark.parametrize(
    ("hosts", "origin", "status"),
    [
        ("knowledge.example.com", "https://knowledge.example.com", 200),
        ("knowledge.example.com", "https://knowledge.example.com:8443", 403),
        ("knowledge.example.com:8443,knowledge.example.com", "https://knowledge.example.com:8443", 200),
        ("::1,knowledge.example.com", "https://[::1]", 200),
        (".example.com,knowledge.example.com", "https://other.example.com", 403),
    ],
)
def test_allowed_hosts_are_the_origins_of_forms(hosts: str, origin: str, status: int) -> None:
    app = compose.harden_wsgi(application, settings(MKS_ALLOWED_HOSTS=hosts))
    assert ask(app, method="POST", headers={"Origin": origin}).status == status


def test_wildcards_alone_need_origins_spelled_out() -> None:
    wild = settings(MKS_ALLOWED_HOSTS=".example.com")
    with pytest.raises(ConfigurationError, match="allowed_origins"):
        compose.harden_wsgi(application, wild)
    app = compose.harden_wsgi(application, wild, allowed_origins=["https://knowledge.example.com"])
    assert ask(app, method="POST", headers={"Origin": "https://knowledge.example.com"}).status == 200


def test_stores_follow_the_settings() -> None:
    near, far = settings(), settings(MKS_REDIS_URL="redis://localhost:1/0")
    assert isinstance(compose.session_store(near), MemorySessionStore)
    assert isinstance(compose.cache_backend(near), MemoryCache)
    with compose.cache_backend(far) as cache:
        assert isinstance(cache, RedisCache)
    store = compose.session_store(far)
    assert isinstance(store, RedisSessionStore)
    store.close()


def test_clear_text_to_redis_must_be_allowed_everywhere_at_once() -> None:
    remote = {"MKS_REDIS_URL": "redis://redis.example.com/0"}
    for build in (compose.session_store, compose.cache_backend, compose.rate_limiter):
        with pytest.raises(ConfigurationError, match="clear text"):
            build(settings(**remote))
        build(settings(**remote, MKS_ALLOW_PLAINTEXT="1")).close()


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    from mks_hardening.logging.config import remove_logging

    remove_logging()
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("quiet_logging")
def test_logging_with_notifications(tmp_path: Path) -> None:
    logger = compose.setup_logging_with_notifications(
        settings(
            MKS_APP_NAME="knowledge",
            MKS_LOG_FILE=str(tmp_path / "app.log"),
            MKS_SMTP_HOST="localhost",
            MKS_ALERT_FROM="alerts@example.com",
            MKS_ALERT_TO="ops@example.com",
            MKS_ALERT_SPOOL=str(tmp_path / "spool"),
            MKS_SLACK_WEBHOOK_URL="https://hooks.example.com/services/secret",
        )
    )
    kinds = {type(handler) for handler in logging.getLogger().handlers}
    assert {EmailNotificationHandler, SlackNotificationHandler} <= kinds
    logger.info("started")
    line = json.loads((tmp_path / "app.log").read_text("utf-8").splitlines()[-1])
    assert (line["logger"], line["environment"]) == ("knowledge", "production")
