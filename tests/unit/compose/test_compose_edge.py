"""CORS, blocked clients, request sizes and maintenance mode as ``harden_wsgi`` and ``harden_asgi`` compose them."""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge import SHELLS
from edge_shells import hardened, over
from mks_hardening import compose, wsgi
from mks_hardening._core import hooks
from mks_hardening.cache import MemoryCache
from mks_hardening.events import SignInEvent, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import ConcurrencyLimiter, RateLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    DEFAULT_BAN_RULES,
    BanList,
    BanRule,
    CacheRule,
    ClientRules,
    ConcurrencyRule,
    CookiePolicy,
    CORSPolicy,
    CORSRule,
    MaintenanceSwitch,
    MemorySessionStore,
    RateLimitRule,
    RequestLimitRule,
    RequestLimits,
    RequestTimeoutRule,
    ResponseCacheMiddleware,
    request_deadline,
)

HOST = {"Host": "example.com"}
CLIENT = "203.0.113.7"
SETTINGS = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "example.com"})


@pytest.fixture(autouse=True, params=SHELLS)
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    chosen: str = request.param
    monkeypatch.setattr(sys.modules[__name__], "harden", hardened(chosen))
    before = list(hooks.observers)
    yield chosen
    hooks.observers[:] = before  # lists that no test has closed


harden: Any = None


def application(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(100)
    found = not environ["PATH_INFO"].startswith("/missing")
    start_response("200 OK" if found else "404 Not Found", [("Content-Type", "text/plain")])
    return [b"fine"]


def ask(
    settings: HardeningSettings = SETTINGS, *, options: dict[str, Any] | None = None, **request: Any
) -> WSGIResponse:
    return call(harden(application, settings, **(options or {})), **request)


def call(app: Any, *, client: str = CLIENT, **request: Any) -> WSGIResponse:
    headers = HOST | request.pop("headers", {})
    environ = {"wsgi.url_scheme": "https", "REMOTE_ADDR": client}
    return call_wsgi(app, headers=headers, environ=environ, **request)


def settings_with(**changes: Any) -> HardeningSettings:
    return replace(SETTINGS, wsgi=replace(SETTINGS.wsgi, **changes))


def test_without_options_nothing_changes() -> None:
    answer = ask(headers={"Origin": "https://app.test"})
    assert answer.header("Access-Control-Allow-Origin") is None
    assert answer.header("Vary") is None


def test_settings_turn_them_on(tmp_path: Path) -> None:
    file = tmp_path / "maintenance"
    settings = settings_with(cors_origins=("https://app.test",), max_body=10, maintenance_file=str(file))
    origin = {"Origin": "https://app.test"}
    assert ask(settings, headers=origin).header("Access-Control-Allow-Origin") == "https://app.test"
    assert ask(settings, headers=origin).header("Access-Control-Allow-Credentials") is None
    assert ask(settings, method="POST", body=b"x" * 11).status == 413
    file.touch()
    assert ask(settings).status == 503
    assert ask(settings, path="/livez").status == 200


def test_refusals_and_errors_are_readable_by_allowed_origins() -> None:
    options = {"cors_policy": CORSPolicy("https://app.test"), "request_limits": RequestLimits(body=10)}
    answer = ask(options=options, method="POST", body=b"x" * 11, headers={"Origin": "https://app.test"})
    assert answer.status == 413
    assert answer.header("Access-Control-Allow-Origin") == "https://app.test"
    assert answer.header("X-Request-ID")


def test_one_list_of_origins_feeds_cors_and_csrf() -> None:
    origin = {"Origin": "https://app.test"}
    with_cookies = {"cors_policy": CORSPolicy("https://app.test", credentials=True)}
    assert ask(options=with_cookies, method="POST", headers=origin).status == 200
    by_rule = {"cors_rules": [CORSRule("/api/", CORSPolicy("https://app.test", credentials=True))]}
    assert ask(options=by_rule, method="POST", headers=origin).status == 200
    without = {"cors_policy": CORSPolicy("https://app.test")}
    assert ask(options=without, method="POST", headers=origin).status == 403


def test_patterns_of_a_policy_count_for_both_too() -> None:
    policy = CORSPolicy((), patterns=[r"https://[a-z]+\.app\.test"], credentials=True)
    origin = {"Origin": "https://eu.app.test"}
    foreign = {"Origin": "https://eu.app.test.evil.test"}
    preflight = {"Access-Control-Request-Method": "POST"}
    for options in ({"cors_policy": policy}, {"cors_policy": policy, "allowed_origins": ["https://x.test"]}):
        assert ask(options=options, method="OPTIONS", headers=origin | preflight).status == 204
        assert ask(options=options, method="POST", headers=origin).status == 200
        assert ask(options=options, method="OPTIONS", headers=foreign | preflight).status == 403
        assert ask(options=options, method="POST", headers=foreign).status == 403
    assert ask(options={"allowed_origins": [policy]}, method="POST", headers=origin).status == 200
    assert ask(options={"allowed_origins": [policy]}, method="POST", headers=foreign).status == 403


@pytest.mark.parametrize(
    "wrong", ["https://app.test", [1], 1, [CORSPolicy("*")], [CORSPolicy("https://app.test")]]
)
def test_only_origins_and_policies_with_credentials_can_be_allowed(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ask(options={"allowed_origins": wrong})
    assert refused.value.parameter == "allowed_origins"


def test_without_credentials_only_a_token_makes_a_request_pass() -> None:
    """What browsers send by themselves, cookies, does not; see the how-to page."""
    options = {"cors_policy": CORSPolicy("https://app.test", headers=["Authorization"])}
    origin = {"Origin": "https://app.test"}
    token = {"Authorization": "Bearer x"}
    assert ask(options=options, method="POST", headers=origin | token).status == 200
    assert ask(options=options, method="POST", headers=origin | token | {"Cookie": "a=b"}).status == 403
    assert ask(options=options, method="POST", headers=origin).status == 403
    exempt = options | {"csrf_exempt_paths": ["/api/"]}
    assert ask(options=exempt, method="POST", path="/api/x", headers=origin).status == 200


def test_the_options_of_each_are_passed_on(tmp_path: Path) -> None:
    switch = MaintenanceSwitch(tmp_path / "on", check_interval=0)
    switch.turn_on()
    options = {
        "maintenance_switch": switch,
        "maintenance_page": "<h1>later</h1>",
        "request_rules": [RequestLimitRule("/up/", RequestLimits(body=5))],
    }
    answer = ask(options=options, headers={"Accept": "text/html"})
    assert (answer.status, answer.body) == (503, b"<h1>later</h1>")
    switch.turn_off()
    assert ask(options=options, method="POST", path="/up/x", body=b"123456").status == 413
    with pytest.raises(ConfigurationError, match="cors_rules"):
        ask(options={"policy": None, "rules": ()})


# --- overload, deadlines and cookies


def test_settings_limit_concurrent_requests() -> None:
    inside: list[int] = []

    def nested(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"].startswith("/outer"):
            other = call_wsgi_again(environ)
            inside.append(other)
        return application(environ, start_response)

    def call_wsgi_again(environ: Any) -> int:
        answers: list[int] = []
        client = "203.0.113.9" if environ["PATH_INFO"] == "/outer/2" else CLIENT
        thread = threading.Thread(
            target=lambda: answers.extend(
                call(app, path=path, client=client).status for path in ("/", "/livez")
            )
        )
        thread.start()
        thread.join()
        assert answers[1] == 200  # health
        return answers[0]

    settings = settings_with(max_requests=1)
    app = harden(nested, settings, **at_once())
    assert call(app, path="/outer").status == 200
    app = harden(nested, settings_with(max_requests_per_client=1), **at_once())
    assert call(app, path="/outer").status == 200
    assert call(app, path="/outer/2").status == 200
    app = harden(nested, SETTINGS)
    assert call(app, path="/outer").status == 200
    assert inside == [503, 503, 200, 200]


def at_once() -> dict[str, Any]:
    """Without waiting, which only the ASGI middleware does."""
    return {} if harden is compose.harden_wsgi else {"concurrency_wait": 0}


def test_the_limiter_of_concurrent_requests_may_be_given() -> None:
    limiter = ConcurrencyLimiter({"reports": 1})
    rules = [ConcurrencyRule("reports", path="/reports/")]
    options = {"concurrency_limiter": limiter, "concurrency_rules": rules, **at_once()}
    app = harden(application, settings_with(max_requests=1000), **options)
    with limiter.acquire("reports", "all"):
        assert call(app, path="/reports/1").status == 503
        assert call(app).status == 200
    assert call(app, path="/reports/1").status == 200
    with pytest.raises(ConfigurationError, match="concurrency_limiter and concurrency_rules"):
        ask(options={"concurrency_rules": rules})


def test_a_setting_gives_requests_a_deadline() -> None:
    seen: list[Any] = []

    def look(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(request_deadline(environ))
        return application(environ, start_response)

    rules = [RequestTimeoutRule("/reports/", 90)]
    app = harden(look, settings_with(request_timeout=20.0), timeout_rules=rules)
    assert [call(app, path=path).status for path in ("/", "/reports/1")] == [200, 200]
    only_rules = harden(look, SETTINGS, timeout_rules=rules)
    assert [call(only_rules, path=path).status for path in ("/", "/reports/1")] == [200, 200]
    assert call(harden(look, SETTINGS)).status == 200
    assert [deadline and deadline.seconds for deadline in seen] == [20, 90, None, 90, None]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("off", "a=1"), ("report", "a=1"), ("enforce", "a=1; Secure; HttpOnly; SameSite=Lax")],
)
def test_a_setting_hardens_cookies(mode: Any, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    def bakes(environ: Any, start_response: Any) -> list[bytes]:
        environ["mks_hardening.session"].start("u")
        start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1")])
        return [b""]

    app = harden(bakes, settings_with(cookie_policy=mode), store=MemorySessionStore())
    cookies = [value for name, value in call(app).headers if name == "Set-Cookie"]
    assert cookies[0] == expected
    assert cookies[1].endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    assert ("would add" in caplog.text) == (mode == "report")


def test_development_adds_no_secure() -> None:
    def bakes(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1")])
        return [b""]

    settings = replace(
        settings_with(cookie_policy="enforce"), core=replace(SETTINGS.core, environment="development")
    )
    assert call(harden(bakes, settings)).header("Set-Cookie") == "a=1; HttpOnly; SameSite=Lax"
    given = harden(bakes, settings, cookie_policy=CookiePolicy(same_site=None))
    assert call(given).header("Set-Cookie") == "a=1; Secure; HttpOnly"


# --- blocked clients


def detail_of(answer: WSGIResponse) -> str:
    return str(json.loads(answer.body)["detail"])


def banning(*rules: BanRule, **options: Any) -> dict[str, Any]:
    return {"bans": BanList(rules, clock=FrozenClock()), **options}


def test_settings_deny_networks(tmp_path: Path) -> None:
    file = tmp_path / "clients"
    file.write_text("deny 198.51.100.0/24\n")
    settings = settings_with(
        deny_networks=("203.0.113.0/24",), allow_networks=("192.0.2.1",), client_rules_file=str(file)
    )
    app = harden(application, settings)
    statuses = {client: call(app, client=client).status for client in (CLIENT, "198.51.100.9", "192.0.2.1")}
    assert statuses == {CLIENT: 403, "198.51.100.9": 403, "192.0.2.1": 200}
    assert call(app, path="/livez").status == 200
    assert ask(replace_dry_run(settings)).status == 200


def replace_dry_run(settings: HardeningSettings) -> HardeningSettings:
    return replace(settings, wsgi=replace(settings.wsgi, client_rules_dry_run=True))


def test_a_setting_bans_with_the_default_rules(caplog: pytest.LogCaptureFixture) -> None:
    app = harden(application, settings_with(bans=True))
    strikes = {rule.name: rule.strikes for rule in DEFAULT_BAN_RULES}["not-found"]
    statuses = [call(app, path=f"/missing/{number}").status for number in range(strikes + 1)]
    assert statuses == [404] * strikes + [403]
    assert call(app, client="203.0.113.8").status == 200
    assert "is banned for 900 s: not-found" in caplog.text


def test_dry_run_bans_without_refusing(caplog: pytest.LogCaptureFixture) -> None:
    options = banning(BanRule("probing", strikes=2, when={404}), client_dry_run=True)
    app = harden(application, SETTINGS, **options)
    assert {call(app, path="/missing").status for _ in range(4)} == {404}
    assert [ban.reason for ban in options["bans"].bans()] == ["probing"]
    assert "is banned" in caplog.text


def test_refusals_of_the_stack_are_offences() -> None:
    rules = [
        BanRule("forged", strikes=2, when={"RequestRefused.csrf"}),
        BanRule("pressing", strikes=2, when={"RequestRefused.rate_limit"}),
    ]
    options = banning(
        *rules,
        limiter=RateLimiter({"all": "1 per hour"}, clock=FrozenClock()),
        rate_limits=[RateLimitRule("all", path="/limited")],
    )
    app = harden(application, SETTINGS, **options)
    forged: dict[str, Any] = {
        "method": "POST",
        "headers": {"Origin": "https://evil.test"},
        "client": "203.0.113.8",
    }
    problems = [detail_of(call(app, **forged)) for _ in range(3)]
    assert ["for a while" in problem for problem in problems] == [False, False, True]
    assert [call(app, path="/limited").status for _ in range(4)] == [200, 429, 429, 403]


def test_exempt_paths_of_the_settings_and_of_the_option_are_both_exempt() -> None:
    app = harden(
        application,
        settings_with(limit_exempt_paths=("/assets/",)),
        limiter=RateLimiter({"all": "1 per hour"}, clock=FrozenClock()),
        rate_limits=[RateLimitRule("all")],
        limit_exempt_paths=["/polled"],
    )
    paths = ["/", "/", "/assets/a.css", "/assets/b.css", "/polled", "/polled"]
    assert [call(app, path=path).status for path in paths] == [200, 429, 200, 200, 200, 200]


def test_failed_sign_ins_are_offences() -> None:
    options = banning(BanRule("guessing", strikes=2, when={"SignInEvent.refused"}))
    app = harden(application, SETTINGS, **options)
    for _ in range(2):
        assert call(app).status == 200
        hooks.emit(SignInEvent("refused", client=CLIENT))
    assert call(app).status == 403


def test_an_event_counts_once_however_often_a_list_is_used() -> None:
    options = banning(BanRule("guessing", strikes=3, when={"SignInEvent.refused"}))
    add_observer(options["bans"].observe)
    try:
        app = harden(harden_nothing, SETTINGS, **options)
        harden(application, SETTINGS, **options)
        add_observer(options["bans"].observe)
        for _ in range(2):
            hooks.emit(SignInEvent("refused", client=CLIENT))
        assert options["bans"].bans() == []
        assert callable(app)
    finally:
        remove_observer(options["bans"].observe)


def harden_nothing(_: Any, start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


def test_a_list_that_nobody_uses_any_more_is_not_kept_by_the_events() -> None:
    before = len(hooks.observers)
    harden(application, SETTINGS, **banning(BanRule("guessing", when={"SignInEvent.refused"})))
    assert len(hooks.observers) == before + 1
    gc.collect()
    hooks.emit(SignInEvent("refused", client=CLIENT))
    assert len(hooks.observers) == before


def test_a_blocked_client_of_an_allowed_origin_can_read_why() -> None:
    options = {
        "client_rules": ClientRules(deny=["203.0.113.0/24"]),
        "cors_policy": CORSPolicy("https://app.test"),
    }
    answer = ask(options=options, headers={"Origin": "https://app.test"})
    assert (answer.status, detail_of(answer)) == (403, "Requests from this network are not accepted.")
    assert answer.header("Access-Control-Allow-Origin") == "https://app.test"
    assert answer.header("X-Request-ID")
    assert answer.header("Strict-Transport-Security")


def test_the_order_of_the_stack(tmp_path: Path) -> None:
    """Health before maintenance before blocked clients before sizes before limits."""
    switch = MaintenanceSwitch(tmp_path / "on", check_interval=0)
    bans = BanList(clock=FrozenClock())
    bans.ban(CLIENT, 60)
    app = harden(
        application,
        SETTINGS,
        bans=bans,
        maintenance_switch=switch,
        request_limits=RequestLimits(body=5),
        limiter=RateLimiter({"all": "1 per hour"}, clock=FrozenClock()),
        rate_limits=[RateLimitRule("all")],
    )
    large: dict[str, Any] = {"method": "POST", "body": b"123456", "headers": {"Origin": "https://evil.test"}}
    switch.turn_on()
    assert call(app, path="/livez").status == 200
    assert call(app, **large).status == 503
    switch.turn_off()
    assert call(app, **large).status == 403
    bans.lift(CLIENT)
    assert [call(app, **large).status for _ in range(2)] == [413, 413]  # refused before they count
    del large["body"]
    assert [call(app, **large).status for _ in range(2)] == [403, 429]  # CSRF, innermost


def test_a_trusted_proxy_is_never_banned(caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_with(bans=True, trusted_proxies=("203.0.113.0/24",))
    with compose.ban_list(settings, [BanRule("probing", strikes=1, when={404})]) as bans:
        app = harden(application, settings, bans=bans)
        headers = {"X-Forwarded-Proto": "https"}
        assert {call(app, path="/missing", headers=headers).status for _ in range(3)} == {404}
        assert "is never banned" in caplog.text
        with pytest.raises(ConfigurationError, match="never banned"):
            bans.ban(CLIENT, 60)


def test_blocking_needs_a_list() -> None:
    with pytest.raises(ConfigurationError, match="rules or bans must be given"):
        ask(options={"client_dry_run": True})
    with pytest.raises(ConfigurationError, match="bans"):
        ask(options={"bans": "on"})


def test_a_closed_list_observes_nothing() -> None:
    options = banning(BanRule("guessing", strikes=1, when={"SignInEvent.refused"}))
    before = len(hooks.observers)
    app = harden(application, SETTINGS, **options)
    options["bans"].close()
    assert len(hooks.observers) == before
    assert call(app).status == 200


def test_the_response_cache_stands_inside_session_and_csrf() -> None:
    calls: list[str] = []

    def pages(environ: Any, start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/private":
            str(environ["mks_hardening.session"].user_id)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]

    app = harden(pages, SETTINGS, cache_rules=[CacheRule("/*", ttl=60)])
    for path in ("/public", "/public", "/private", "/private"):
        assert call(app, path=path).status == 200
    assert call(app, path="/public", headers={"Cookie": "session=1"}).body == b"page"
    assert calls == ["/public", "/private", "/private", "/public"]
    found = call(app, path="/public")
    assert found.header("Age") == "0"
    assert found.header("X-Request-ID")
    assert found.header("Strict-Transport-Security")
    assert call(app, path="/public", headers={"Host": "evil.test"}).status == 400


def test_the_response_cache_needs_rules_and_stands_once() -> None:
    for options in ({"cache": MemoryCache()}, {"compute_wait": 1}, {"cache_max_body": 1}):
        with pytest.raises(ConfigurationError, match="requires cache_rules"):
            ask(options=options)
    inner = ResponseCacheMiddleware(application, cache=MemoryCache(), rules=[])
    with pytest.raises(ConfigurationError, match="already wrapped by ResponseCacheMiddleware"):
        compose.harden_wsgi(inner, SETTINGS, cache_rules=[CacheRule("/*", ttl=1)])


@pytest.mark.parametrize(
    ("name", "options", "wrapped"),
    [
        ("ClientRulesMiddleware", {"client_rules": ClientRules(deny=["192.0.2.1"])}, {"bans": BanList()}),
        ("CORSMiddleware", {"cors_policy": CORSPolicy("https://app.test")}, {"policy": CORSPolicy("*")}),
        ("RequestTimeoutMiddleware", {"timeout_seconds": 5}, {"seconds": 9}),
        ("RequestLimitsMiddleware", {"request_limits": RequestLimits()}, {}),
        ("CookiePolicyMiddleware", {"cookie_policy": CookiePolicy()}, {"policy": CookiePolicy()}),
        (
            "ConcurrencyMiddleware",
            {
                "concurrency_limiter": ConcurrencyLimiter({"a": 1}),
                "concurrency_rules": [ConcurrencyRule("a")],
            },
            {"limiter": ConcurrencyLimiter({"a": 1}), "rules": [ConcurrencyRule("a")]},
        ),
    ],
)
def test_a_second_one_is_refused_only_if_it_is_asked_for(
    shell: str, name: str, options: dict[str, Any], wrapped: dict[str, Any]
) -> None:
    inner = over(shell, getattr(wsgi, name))(application, **wrapped)
    with pytest.raises(ConfigurationError, match=f"already wrapped by {name}"):
        harden(inner, SETTINGS, **options)
    assert call(harden(inner, SETTINGS)).status == 200


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("RequestTimeoutMiddleware", "MKS_REQUEST_TIMEOUT", "5s"),
        ("RequestLimitsMiddleware", "MKS_MAX_BODY", "1MB"),
        ("CookiePolicyMiddleware", "MKS_COOKIE_POLICY", "report"),
        ("ConcurrencyMiddleware", "MKS_MAX_REQUESTS", "5"),
    ],
)
def test_a_second_one_of_the_settings_is_refused(shell: str, name: str, variable: str, value: str) -> None:
    wrapped: dict[str, Any] = {
        "CookiePolicyMiddleware": {"policy": CookiePolicy()},
        "ConcurrencyMiddleware": {
            "limiter": ConcurrencyLimiter({"a": 1}),
            "rules": [ConcurrencyRule("a")],
        },
    }
    inner = over(shell, getattr(wsgi, name))(application, **wrapped.get(name, {}))
    settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "example.com", variable: value})
    with pytest.raises(ConfigurationError, match=f"already wrapped by {name}") as refused:
        harden(inner, settings)
    assert refused.value.parameter == "app"


@pytest.mark.parametrize(
    "name", ["concurrency_wait", "most_waiting", "concurrency_count_sockets", "session_recheck_sockets"]
)
def test_options_of_asgi_say_so_under_wsgi(name: str) -> None:
    options: dict[str, Any] = {name: 1}
    with pytest.raises(ConfigurationError, match=f"^{name} is an option of harden_asgi only: ") as refused:
        compose.harden_wsgi(application, SETTINGS, **options)
    assert refused.value.parameter == name


def test_a_planned_maintenance_is_not_logged_as_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    switch = MaintenanceSwitch(tmp_path / "on", check_interval=0)
    app = harden(application, SETTINGS, maintenance_switch=switch)
    switch.turn_on()
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        assert call(app).status == 503
    (record,) = [found for found in caplog.records if found.name == "mks_hardening.request"]
    assert (record.levelno, record.__dict__["refused_by"]) == (logging.INFO, "maintenance")
