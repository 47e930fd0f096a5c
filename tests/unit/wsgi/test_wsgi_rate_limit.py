"""A limiter in front of an application."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from mks_hardening._core import function_errors
from mks_hardening._core.web.request_header import request_header
from mks_hardening.compose import harden_wsgi
from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import RateLimiter, rate_limit_headers
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import WSGIResponse, call_wsgi
from mks_hardening.wsgi import (
    MemorySessionStore,
    ProxyTrust,
    RateLimitMiddleware,
    RateLimitRule,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
    limit_by_address,
    limit_by_all,
    limit_by_header,
    limit_by_user,
)

WSGI_ONLY: set[str] = set()


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
) -> WSGIResponse:
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


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        ("en-US,en;q=0.9,ja;q=0.8", "en"),
        ("en;q=0.5, ja;q=0.75", "ja"),
        ("fr, de;q=0.9", "en"),
        ("ja;q=0, en;q=0.1", "en"),
        ("*, ja;q=0.5", "ja"),
        ("ja;q=2", "en"),
        ("ja;q=1e9", "en"),
        ("\udc80,,;;=", "en"),
        ("x" * 100_000, "en"),
    ],
)
def test_refusals_speak_the_language_of_the_client(accept: str, language: str) -> None:
    limiter = RateLimiter({"g": "1 per minute"})
    for _ in range(2):
        answer = ask(limiter, RateLimitRule("g"), headers={"Accept-Language": accept})  # type: ignore[arg-type]
    assert answer.status == 429
    document = json.loads(answer.body)
    assert document["title"] == {"en": "Too many requests", "ja": "回数の上限に達しました"}[language]
    assert document["violated-policies"] == ["minute"]
    assert document["type"].endswith("#quota-exceeded")
    assert answer.header("Content-Language") == language
    assert answer.header("Vary") == "Accept, Accept-Language"
    text = ask(limiter, RateLimitRule("g"), headers={"Accept-Language": accept, "Accept": "text/html"})  # type: ignore[arg-type]
    assert text.body.decode().startswith(document["title"])


def test_a_rule_for_a_group_that_is_not_there_is_refused_at_once() -> None:
    limiter = RateLimiter({"g": "1 per minute"})
    assert list(limiter.groups) == ["g"]
    RateLimitRule("g", limiter=limiter)
    with pytest.raises(ConfigurationError, match="it has g"):
        RateLimitRule("nope", limiter=limiter)
    with pytest.raises(ConfigurationError, match="unknown"):
        RateLimitMiddleware(application, limiter=limiter, rules=[RateLimitRule("g"), RateLimitRule("nope")])
    RateLimitMiddleware(application, limiter=Limiter(), rules=[RateLimitRule("nope")])  # it does not say


class Session:
    def __init__(self, user_id: str | None) -> None:
        self.user_id = user_id


@pytest.mark.parametrize(
    ("key", "environ", "expected"),
    [
        (limit_by_address, {}, "127.0.0.1"),
        (limit_by_user, {}, "127.0.0.1"),
        (limit_by_user, {"mks_hardening.session": Session(None)}, "127.0.0.1"),
        (limit_by_user, {"mks_hardening.session": Session("taro")}, "user:taro"),
        (limit_by_user, {"REMOTE_USER": "taro"}, "user:taro"),
        (limit_by_header("X-API-Key"), {}, "127.0.0.1"),
        (limit_by_header("Content-Type"), {"CONTENT_TYPE": ""}, "127.0.0.1"),
        (limit_by_all(limit_by_address, limit_by_user), {"REMOTE_USER": "taro"}, "9:127.0.0.1,9:user:taro"),
        (limit_by_all(limit_by_address, lambda environ: None), {}, None),
    ],
)
def test_ready_keys(key: Any, environ: dict[str, Any], expected: str | None) -> None:
    assert key({"REMOTE_ADDR": "127.0.0.1", **environ}) == expected


def test_a_header_counts_by_its_digest() -> None:
    by_key = limit_by_header("x-api-key")
    one, other = (by_key({"HTTP_X_API_KEY": value}) for value in ("secret", "another"))
    assert one is not None
    assert one != other
    assert "secret" not in one
    assert by_key({"HTTP_X_API_KEY": "\udc80"}) != one


def wrapped(*rules: RateLimitRule, app: Any = application) -> RateLimitMiddleware:
    return RateLimitMiddleware(app, limiter=Limiter(), rules=rules)


BY_HEADER = limit_by_header("X-API-Key")


@pytest.mark.parametrize(
    "rules",
    [
        [RateLimitRule("g", key=BY_HEADER)],
        [RateLimitRule("g", key=limit_by_all(limit_by_address, BY_HEADER))],
        [RateLimitRule("g", key=BY_HEADER), RateLimitRule("g", path="/other")],
        [RateLimitRule("g", key=BY_HEADER), RateLimitRule("g", methods=["POST"])],
        [RateLimitRule("g", key=BY_HEADER, path="/a"), RateLimitRule("g", key=BY_HEADER)],
    ],
)
def test_a_key_that_the_client_chooses_needs_one_that_it_cannot_choose(rules: list[RateLimitRule]) -> None:
    with pytest.raises(ConfigurationError, match="limit_by_address"):
        wrapped(*rules)


@pytest.mark.parametrize(
    "rules",
    [
        [RateLimitRule("g", key=limit_by_header("X-API-Key", verified=True))],
        [RateLimitRule("g", key=BY_HEADER), RateLimitRule("h")],
        [
            RateLimitRule("g", key=BY_HEADER, path="/a", methods=["POST"]),
            RateLimitRule("h", path=["/a", "/b"]),
        ],
        [RateLimitRule("g", key=BY_HEADER, methods=["POST"]), RateLimitRule("h", methods=["GET", "POST"])],
    ],
)
def test_a_key_that_is_checked_or_stands_beside_an_address_is_taken(rules: list[RateLimitRule]) -> None:
    wrapped(*rules)


@pytest.mark.parametrize("key", [limit_by_user, limit_by_all(limit_by_address, limit_by_user)])
def test_limits_by_user_outside_of_the_session_are_refused(key: Any) -> None:
    """Nobody has signed in there, so it would count by address."""
    inside = SessionTimeoutMiddleware(application, store=MemorySessionStore())
    with pytest.raises(ConfigurationError, match="limit_by_user"):
        wrapped(RateLimitRule("g", key=key), app=inside)
    settings = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "localhost"})
    with pytest.raises(ConfigurationError, match="limit_by_user"):
        harden_wsgi(application, settings, limiter=Limiter(), rate_limits=[RateLimitRule("g", key=key)])
    wrapped(RateLimitRule("g", key=key))


def test_a_refusal_further_in_does_not_carry_the_state_of_this_limit() -> None:
    def refusing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("429 Too Many Requests", [("Content-Type", "text/plain"), ("Retry-After", "7")])
        return [b""]

    names = {name for name, _ in ask(Limiter(9), RateLimitRule("g"), app=refusing).headers}
    assert names == {"Content-Type", "Retry-After"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('a "b" \\c', '"a \\"b\\" \\\\c"'),
        ("100 % ~", '"100 % ~"'),
        ('分\n%"\udc80', '%"%e5%88%86%0a%25%22?"'),
    ],
)
def test_names_in_fields_are_strings_of_rfc_9651(name: str, shown: str) -> None:
    decision = Decided(True, [Limit(name, 2, 60)], [1], [30.0], None)
    assert dict(rate_limit_headers(decision))["RateLimit-Policy"] == f"{shown};q=2;w=60"


def test_no_two_combinations_read_alike() -> None:
    key = limit_by_all(lambda environ: environ["a"], lambda environ: environ["b"])
    assert key({"a": "1,1:2", "b": "3"}) != key({"a": "1", "b": "2,1:3"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: limit_by_header(""),
        lambda: limit_by_header("X Key"),
        lambda: limit_by_header("X-キー"),
        lambda: limit_by_header(None),  # type: ignore[arg-type]
        lambda: limit_by_all(limit_by_address),
        lambda: limit_by_all(limit_by_address, "user"),  # type: ignore[arg-type]
    ],
)
def test_impossible_keys_are_refused(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


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
    rule = RateLimitRule("g", key=lambda request: request_header(request, "X-User"))
    assert ask(limiter, rule).header("X-RateLimit-Limit") is None
    ask(limiter, rule, headers={"X-User": "taro"})
    assert limiter.hits == [("g", "taro")]


def test_fields_of_the_application_are_kept() -> None:
    def own(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("x-ratelimit-limit", "7")])
        return []

    answer = ask(Limiter(), RateLimitRule("g"), app=own)
    assert [name for name, _ in answer.headers if "ratelimit" in name.lower()] == ["x-ratelimit-limit"]


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


async def asynchronous(_request: Any) -> str:
    return "key"


@pytest.mark.parametrize("wrong", [b"key", ["key"], LookupError("taro@example.com")])
def test_a_key_that_is_none_counts_by_client_address(
    wrong: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(function_errors, "_silent_until", {})

    def key(_request: Any) -> Any:
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    limiter = Limiter()
    for _ in range(2):
        ask(limiter, RateLimitRule("g", key=key))
    assert [hit[1] for hit in limiter.hits] == ["127.0.0.1"] * 2
    (record,) = [record for record in caplog.records if record.name == "mks_hardening.rate_limits"]
    assert "requests are counted by client address" in record.getMessage()
    assert "taro" not in record.getMessage()


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"group": ""}, "group"),
        ({"group": None}, "group"),
        ({"methods": "POST"}, "methods"),
        ({"path": "login"}, "path"),
        ({"path": ["/a/../b"]}, "path"),
        ({"key": "ip"}, "key"),
        ({"key": asynchronous}, "key"),
        ({"methods": []}, "methods"),
        ({"path": []}, "path"),
    ],
)
def test_impossible_rules_are_refused(arguments: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RateLimitRule(**{"group": "g", **arguments})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("rules", [[], ["sign-in"], [RateLimitRule("a"), None]])
def test_rules_are_rules(rules: Any) -> None:
    with pytest.raises(ConfigurationError, match="rules"):
        RateLimitMiddleware(application, limiter=Limiter(), rules=rules)


def test_a_style_is_a_style() -> None:
    with pytest.raises(ConfigurationError, match="must be one of x, ietf, both") as caught:
        ask(Limiter(), RateLimitRule("g"), options={"header_style": "loud"})
    assert caught.value.parameter == "header_style"


def test_a_rule_shows_itself() -> None:
    assert repr(RateLimitRule("sign-in", path="/login")) == "RateLimitRule('sign-in')"


@pytest.mark.parametrize("method", ["post", "Post", "POST"])
@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")
def test_another_spelling_of_the_method_counts_too(method: str) -> None:
    limiter = RateLimiter({"sign-in": "1 per minute"})
    rule = RateLimitRule("sign-in", methods=["POST"])
    assert [ask(limiter, rule, method=spelling).status for spelling in ("POST", method)] == [200, 429]


@pytest.mark.parametrize("key", ["", "x" * 257, "x" * 1025, "x" * 100_000, "\udcff" * 300])
def test_a_key_that_a_client_writes_never_breaks_the_request(key: str) -> None:
    limiter = RateLimiter({"api": "1 per minute"})
    rule = RateLimitRule("api", key=lambda request: request_header(request, "X-API-Key"))
    statuses = [
        call_wsgi(
            RateLimitMiddleware(application, limiter=limiter, rules=[rule]), environ={"HTTP_X_API_KEY": text}
        ).status
        for text in (key, key, key + "y")
    ]
    assert statuses == [200, 429, 200]
