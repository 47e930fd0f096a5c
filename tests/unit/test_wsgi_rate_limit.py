"""A limiter in front of an application."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import WSGIAnswer, call_wsgi
from mks_hardening.wsgi import ProxyTrust, RateLimitMiddleware, RateLimitRule, TrustedProxyMiddleware


class Limit(NamedTuple):
    name: str
    quota: int
    window: float


class Decided(NamedTuple):
    allowed: bool
    limits: list[Limit]
    remaining: list[int]
    reset_after: list[float]
    retry_after: float | None

    def __bool__(self) -> bool:
        return self.allowed


class Limiter:
    """Allows ``quota`` hits for each group and key, and remembers what it was asked."""

    def __init__(self, quota: int = 2) -> None:
        self.quota = quota
        self.hits: list[tuple[str, str]] = []

    def hit(self, group: str, key: str, *, cost: int = 1) -> Decided:
        used = self.hits.count((group, key))
        allowed = used + cost <= self.quota
        if allowed:
            self.hits.append((group, key))
        left = self.quota - used - allowed
        return Decided(allowed, [Limit(group, self.quota, 60)], [left], [30.0], None if allowed else 12.3)


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application"]


def ask(
    limiter: Limiter, *rules: RateLimitRule, path: str = "/", app: Any = application, **how: Any
) -> WSGIAnswer:
    options = how.pop("options", {})
    return call_wsgi(
        app, path, wrap=lambda app: RateLimitMiddleware(app, limiter=limiter, rules=rules, **options), **how
    )


def test_the_first_limit_refuses_and_says_when_to_come_back() -> None:
    limiter, rule = Limiter(2), RateLimitRule("all")
    answers = [ask(limiter, rule) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert [answer.header("X-RateLimit-Remaining") for answer in answers] == ["1", "0", "0"]
    refusal = answers[2]
    assert refusal.header("Retry-After") == "13"
    assert refusal.header("RateLimit-Policy") == '"all";q=2;w=60'
    assert refusal.header("Cache-Control") == "no-store"
    assert refusal.header("Content-Type") == "application/problem+json"
    assert json.loads(refusal.body)["status"] == 429
    assert answers[0].header("Retry-After") is None


def test_a_refused_request_does_not_reach_the_application_and_is_counted() -> None:
    seen: list[Any] = []
    asked: list[Any] = []

    def counting(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        asked.append(1)
        return application(environ, start_response)

    add_observer(seen.append)
    try:
        ask(Limiter(0), RateLimitRule("sign-in"), app=counting)
    finally:
        remove_observer(seen.append)
    assert asked == []
    assert seen == [RequestRefused("rate_limit", "sign-in", "127.0.0.1")]


@pytest.mark.parametrize(
    ("options", "method", "path", "counts"),
    [
        ({}, "GET", "/any", True),
        ({"path": "/login"}, "POST", "/login", True),
        ({"path": "/login"}, "POST", "/login/", True),
        ({"path": "/login"}, "POST", "//login", True),
        ({"path": "/login"}, "POST", "/x/../login", True),
        ({"path": "/login"}, "POST", "/./login", True),
        ({"path": "/login"}, "POST", "\\login", True),
        ({"path": "/login"}, "POST", "/../../login", True),
        ({"path": "/login"}, "POST", "/loginx", False),
        ({"path": "/login"}, "POST", "/login/x", False),
        ({"path": "/login"}, "POST", "/Login", False),
        ({"path": "/api/"}, "GET", "/api/x", True),
        ({"path": "/api/"}, "GET", "/api/", True),
        ({"path": "/api/"}, "GET", "/api", True),
        ({"path": "/api/"}, "GET", "//api//x", True),
        ({"path": "/api/"}, "GET", "/apix", False),
        ({"path": ["/a", "/b/"]}, "GET", "/b/c", True),
        ({"path": ["/a", "/b/"]}, "GET", "/c", False),
        ({"path": "/"}, "GET", "/any", True),
        ({"methods": ["POST"]}, "POST", "/", True),
        ({"methods": ["post"]}, "POST", "/", True),
        ({"methods": ["POST"]}, "GET", "/", False),
        ({"methods": ["GET"]}, "HEAD", "/", True),
        ({"methods": ["POST", "PUT"], "path": "/a"}, "PUT", "/a", True),
        ({"methods": ["POST", "PUT"], "path": "/a"}, "PUT", "/b", False),
    ],
)
def test_what_a_rule_applies_to(options: dict[str, Any], method: str, path: str, counts: bool) -> None:
    assert RateLimitRule("group", **options).applies(method, path) is counts


def test_only_what_a_rule_applies_to_is_counted() -> None:
    limiter = Limiter()
    rule = RateLimitRule("sign-in", path="/login", methods=["POST"])
    answers = [
        ask(limiter, rule, path=path, method=method) for path in ("/", "/login") for method in ("GET", "POST")
    ]
    assert [answer.header("X-RateLimit-Limit") for answer in answers] == [None, None, None, "2"]
    assert limiter.hits == [("sign-in", "127.0.0.1")]


def test_rules_are_asked_in_order_until_one_refuses() -> None:
    limiter = Limiter(1)
    rules = [RateLimitRule("a"), RateLimitRule("b"), RateLimitRule("c")]
    limiter.hits.append(("b", "127.0.0.1"))
    assert ask(limiter, *rules).status == 429
    assert limiter.hits == [("b", "127.0.0.1"), ("a", "127.0.0.1")]


def test_the_tightest_of_several_limits_is_told() -> None:
    limiter = Limiter(5)
    limiter.hits += [("b", "127.0.0.1")] * 3
    answer = ask(limiter, RateLimitRule("a"), RateLimitRule("b"))
    assert answer.header("X-RateLimit-Remaining") == "1"


def test_the_key_is_the_client_as_trust_has_it() -> None:
    limiter = Limiter()
    spoofed = {"X-Forwarded-For": "6.6.6.6, 2001:db8:1:2:3::4"}
    trust = ProxyTrust(["10.0.0.0/8"])
    peer = {"REMOTE_ADDR": "10.0.0.1"}
    ask(limiter, RateLimitRule("g"), headers=spoofed, environ=peer)
    ask(limiter, RateLimitRule("g"), headers=spoofed, environ=peer, options={"trust": trust})
    inside = RateLimitMiddleware(application, limiter=limiter, rules=[RateLimitRule("g")])
    call_wsgi(TrustedProxyMiddleware(inside, trust=trust), headers=spoofed, environ=peer)
    assert [key for _, key in limiter.hits] == ["10.0.0.1", "2001:db8:1:2::/64", "2001:db8:1:2::/64"]


def test_an_own_key_and_one_that_does_not_apply() -> None:
    limiter = Limiter()
    rule = RateLimitRule("g", key=lambda environ: environ.get("HTTP_X_USER"))
    assert ask(limiter, rule).header("X-RateLimit-Limit") is None
    ask(limiter, rule, headers={"X-User": "taro"})
    assert limiter.hits == [("g", "taro")]


def test_fields_of_the_application_are_kept() -> None:
    def own(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("x-ratelimit-limit", "7")])
        return []

    answer = ask(Limiter(), RateLimitRule("g"), app=own)
    assert answer.header("X-RateLimit-Limit") == "7"
    assert answer.header("X-RateLimit-Remaining") == "1"


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("x", {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}),
        ("ietf", {"ratelimit-policy", "ratelimit"}),
    ],
)
def test_header_styles(style: str, names: set[str]) -> None:
    answer = ask(Limiter(), RateLimitRule("g"), options={"header_style": style})
    assert {name.lower() for name, _ in answer.headers} == names | {"content-type"}


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"group": ""}, "group"),
        ({"group": None}, "group"),
        ({"methods": "POST"}, "methods"),
        ({"path": "login"}, "path"),
        ({"path": ["/a/../b"]}, "path"),
        ({"key": "ip"}, "key"),
    ],
)
def test_impossible_rules_are_refused(arguments: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimitRule(arguments.pop("group", "g"), **arguments)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("rules", [[], ["sign-in"], [RateLimitRule("a"), None]])
def test_rules_are_rules(rules: Any) -> None:
    with pytest.raises(ConfigurationError, match="rules"):
        RateLimitMiddleware(application, limiter=Limiter(), rules=rules)


def test_a_rule_shows_itself() -> None:
    assert repr(RateLimitRule("sign-in", path="/login")) == "RateLimitRule('sign-in')"
