from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mks_hardening import compose, wsgi
from mks_hardening._core.resilience.budget import current_budget
from mks_hardening.cache import MemoryCache, RedisCache
from mks_hardening.exceptions import ConfigurationError, SettingsWarning
from mks_hardening.notify import EmailNotificationHandler, SlackNotificationHandler
from mks_hardening.settings import HardeningSettings, WsgiSettings
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    CustomResponse,
    MemorySessionStore,
    RateLimitRule,
    RedisSessionStore,
    Refusal,
    SessionTimeoutMiddleware,
)

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


def ask(app: WSGIApplication, path: str = "/", *, proto: str = "https", **options: Any) -> WSGIResponse:
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
    ("hosts", "asked", "origin", "status"),
    [
        ("knowledge.example.com", HOST, "https://knowledge.example.com", 200),
        ("knowledge.example.com", HOST, "https://knowledge.example.com:8443", 403),
        ("knowledge.example.com", HOST + ":8443", "https://knowledge.example.com:8443", 200),
        ("::1,knowledge.example.com", "[::1]", "https://[::1]", 200),
        ("例え.jp", "xn--r8jz45g.jp", "https://xn--r8jz45g.jp", 200),
        (".example.com", HOST, "https://knowledge.example.com", 200),
        (".example.com", HOST, "https://other.example.com", 403),
        ("other.example.com,knowledge.example.com", HOST, "https://other.example.com", 403),
    ],
)
def test_pages_may_send_to_the_host_they_come_from(hosts: str, asked: str, origin: str, status: int) -> None:
    app = compose.harden_wsgi(application, settings(MKS_ALLOWED_HOSTS=hosts))
    assert ask(app, method="POST", headers={"Host": asked, "Origin": origin}).status == status


def test_further_origins_are_listed() -> None:
    app = compose.harden_wsgi(application, settings(), allowed_origins=["https://partner.example"])
    assert ask(app, method="POST", headers={"Origin": "https://partner.example"}).status == 200


def test_settings_bind_sub_domains_and_keep_headers() -> None:
    def seen(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ.get('HTTP_X_REAL_IP')} {environ.get('HTTP_TRUE_CLIENT_IP')}".encode()]

    both = {"X-Real-IP": "1", "True-Client-IP": "2"}
    usual = ask(compose.harden_wsgi(seen, settings()), headers=both)
    assert str(usual.header("Strict-Transport-Security")).endswith("; includeSubDomains")
    assert usual.body == b"None None"
    own = settings(MKS_HSTS_INCLUDE_SUBDOMAINS="0", MKS_PROXY_KEEP_HEADERS="x-real-ip")
    answer = ask(compose.harden_wsgi(seen, own), headers=both)
    assert answer.header("Strict-Transport-Security") == "max-age=63072000"
    assert answer.body == b"1 None"
    with pytest.raises(ConfigurationError, match="MKS_PROXY_KEEP_HEADERS"):
        settings(MKS_PROXY_KEEP_HEADERS="X-Real-IP,Accept")


def test_a_setting_names_fields_that_no_proxy_sets() -> None:
    def seen(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['SCRIPT_NAME']} {environ['HTTP_HOST']}".encode()]

    injected = {"X-Forwarded-Port": "8443", "X-Forwarded-Prefix": "/evil"}
    own = settings(MKS_PROXY_IGNORE_HEADERS="x-forwarded-port, X-Forwarded-Prefix")
    assert ask(compose.harden_wsgi(seen, own), headers=injected).body == b" knowledge.example.com"
    assert (
        ask(compose.harden_wsgi(seen, settings()), headers=injected).body
        == b"/evil knowledge.example.com:8443"
    )
    with pytest.raises(ConfigurationError, match="MKS_PROXY_IGNORE_HEADERS"):
        settings(MKS_PROXY_IGNORE_HEADERS="X-Forwarded-For")


# --- on a laptop


LAPTOP = ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "app.localhost:5000"]


@pytest.mark.parametrize("host", LAPTOP)
def test_development_works_on_this_machine_as_it_stands(host: str, caplog: pytest.LogCaptureFixture) -> None:
    app = compose.harden_wsgi(application, HardeningSettings.from_env(environ={"MKS_ENV": "development"}))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    answer = call_wsgi(app, "/login", headers={"Host": host})
    assert answer.status == 200
    assert answer.header("Strict-Transport-Security") is None
    assert "upgrade-insecure-requests" not in str(answer.header("Content-Security-Policy"))
    cookie = str(answer.header("Set-Cookie"))
    assert cookie.startswith("mks-session=")
    assert "Secure" not in cookie
    headers = {"Host": host, "Origin": f"http://{host}", "Cookie": cookie.partition(";")[0]}
    posted = call_wsgi(app, method="POST", headers=headers)
    assert (posted.status, json.loads(posted.body)["user"]) == (200, "tanaka")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.test"}, 400),
        ({"Host": "localhost.evil.test"}, 400),
        ({"Host": "localhost", "Origin": "http://evil.test"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost:9000"}, 403),
        ({"Host": HOST, "Origin": f"http://{HOST}"}, 200),
    ],
)
def test_development_is_no_open_door(headers: dict[str, str], status: int) -> None:
    own = settings(MKS_ENV="development", MKS_CANONICAL_HOST=HOST)
    app = compose.harden_wsgi(application, own)
    assert call_wsgi(app, method="POST", headers=headers).status == status


@pytest.mark.parametrize("environment", ["production", "staging", "test"])
def test_other_environments_are_not_relaxed(environment: str, caplog: pytest.LogCaptureFixture) -> None:
    app = compose.harden_wsgi(application, settings(MKS_ENV=environment))
    assert caplog.records == []
    assert ask(app, headers={"Host": "localhost"}).status == 400
    assert ask(app, proto="http").status == 301
    assert "Secure" in str(ask(app, "/login").header("Set-Cookie"))
    with pytest.raises(ConfigurationError, match="MKS_ALLOWED_HOSTS, or MKS_ENV=development"):
        compose.harden_wsgi(application, HardeningSettings.from_env(environ={"MKS_ENV": environment}))


# --- options of the wrappers


def test_every_option_of_every_wrapper_can_be_reached(records: list[logging.LogRecord]) -> None:
    app = compose.harden_wsgi(
        application,
        settings(),
        permanent=False,
        skip_paths=["/quiet"],
        max_form_bytes=1,
        livez="/alive",
        https_exempt_paths=["/plain"],
        csrf_exempt_paths=["/hook"],
        idle_timeout=60,
        record_clock=FrozenClock(1000.0),
        clock=FrozenClock(1000.0),
    )
    assert ask(app, proto="http").status == 302
    assert ask(app, "/plain", proto="http").status == 200
    assert ask(app, "/alive").status == 200
    assert ask(app, "/quiet").status == 200
    evil = {"Origin": "https://evil.test"}
    assert ask(app, "/hook", method="POST", headers=evil).status == 200
    assert ask(app, method="POST", headers=evil).status == 403
    assert "/quiet" not in [vars(record)["path"] for record in records]
    assert {vars(record)["duration_ms"] for record in records} == {0.0}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("idle_timeot", "did you mean idle_timeout, of SessionTimeoutMiddleware?"),
        ("https_prt", "did you mean https_port, of HTTPSRedirectMiddleware?"),
        ("skip_path", "did you mean skip_paths, of RequestLoggingMiddleware?"),
        ("exempt_paths", "write https_exempt_paths or csrf_exempt_paths"),
        ("csrf_idle_timeout", "no wrapper takes csrf_idle_timeout"),
        ("zzz", "^no wrapper takes zzz$"),
        ("header_style", "of RateLimitMiddleware requires rate_limits"),
    ],
)
def test_an_option_nobody_takes_is_explained(option: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compose.harden_wsgi(application, settings(), **{option: 1})


def test_one_hook_words_the_refusals_of_all_wrappers(records: list[logging.LogRecord]) -> None:
    heard: list[Refusal] = []

    def words(_environ: dict[str, Any], refusal: Refusal) -> CustomResponse:
        heard.append(refusal)
        return CustomResponse(body="ours")

    limiter = compose.rate_limiter(settings(), {"tight": "1 per minute"})
    rule = RateLimitRule("tight", path="/slow")
    app = compose.harden_wsgi(
        application, settings(), on_refusal=words, limiter=limiter, rate_limits=[rule], api_paths=["/api/"]
    )
    refused: list[tuple[str, dict[str, Any]]] = [
        ("/", {"headers": {"Host": "evil.example"}}),
        ("/api/x", {"proto": "http"}),
        ("/", {"method": "POST", "headers": {"Origin": "https://evil.example"}}),
        ("/", {"headers": {"Cookie": "__Host-mks-session=dead"}}),
        ("/livez", {"method": "POST"}),
        ("/error", {}),
    ]
    ask(app, "/slow")
    answers = [ask(app, path, **how) for path, how in [*refused, ("/slow", {})]]
    assert [answer.body for answer in answers] == [b"ours"] * 7
    assert [answer.status for answer in answers] == [400, 403, 403, 401, 405, 500, 429]
    assert [refusal.wrapper for refusal in heard] == [
        *("https", "https", "csrf", "session", "health", "record", "rate_limit"),
    ]
    said = [getattr(record, "refused_rule", None) for record in records[1:]]
    assert said == ["host", "plain", "origin", "revoked", "method", None, "tight"]


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
    from mks_hardening.logging.setup.process_setup import remove_logging

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


def test_several_workers_with_sessions_of_their_own_are_warned_about() -> None:
    settings = HardeningSettings.from_env(
        environ={"MKS_GUNICORN_WORKERS": "4", "MKS_ALLOWED_HOSTS": "a.example.com"}
    )
    with pytest.warns(SettingsWarning, match="4 workers without MKS_REDIS_URL"):
        compose.session_store(settings)


@pytest.mark.parametrize(("several", "said"), [(True, 1), (False, 0)])
def test_sessions_in_memory_under_a_server_of_several_processes_are_warned_about(
    several: bool, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = compose.harden_wsgi(application, settings())
    for _ in range(2):
        call_wsgi(app, scheme="https", headers={"Host": HOST}, environ={"wsgi.multiprocess": several})
    assert caplog.text.count("set MKS_REDIS_URL") == said


def test_what_is_no_application_settings_or_store_is_refused_by_name() -> None:
    anything: Any = None
    fine = settings(MKS_ALLOWED_HOSTS="a.example.com")
    table: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((anything, fine), {}, "app must be callable, not NoneType"),
        ((application, anything), {}, "settings must be a HardeningSettings, not NoneType"),
        ((application, fine), {"store": "redis://localhost"}, "store must be a SessionStore, not str"),
        ((application, fine), {"store": MemorySessionStore}, "store must be a SessionStore, not the class M"),
    ]
    for arguments, options, message in table:
        with pytest.raises(ConfigurationError, match=message):
            compose.harden_wsgi(*arguments, **options)


@pytest.mark.parametrize(
    ("option", "setting"),
    [
        ("idle_timeout", "session_idle_timeout"),
        ("absolute_timeout", "session_absolute_timeout"),
        ("warn_before", "session_warn_before"),
        ("max_sessions", "session_max"),
    ],
)
def test_settings_and_wrapper_have_one_default(option: str, setting: str) -> None:
    parameters = inspect.signature(SessionTimeoutMiddleware).parameters
    assert parameters[option].default == getattr(WsgiSettings(), setting)


# --- bad use


def doubled(name: str) -> Any:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    stacks: dict[str, Callable[[], Any]] = {
        "two sessions": lambda: wsgi.SessionTimeoutMiddleware(application, store=wsgi.MemorySessionStore()),
        "two sources of security headers": lambda: wsgi.SecurityHeadersMiddleware(
            application, policy=wsgi.HeaderPolicy.web()
        ),
        "two CSRF checks": lambda: DispatcherMiddleware(
            application, {"/api": wsgi.CSRFMiddleware(application)}
        ),
        "two sources of the client's address": lambda: compose.harden_wsgi(application, settings()),
    }
    return stacks[name]()


@pytest.mark.parametrize(
    "name",
    [
        "two sessions",
        "two sources of security headers",
        "two CSRF checks",
        "two sources of the client's address",
    ],
)
def test_what_is_there_already_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}.*without it"):
        compose.harden_wsgi(doubled(name), settings())
