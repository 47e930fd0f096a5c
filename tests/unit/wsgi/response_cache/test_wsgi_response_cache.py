"""The response cache: what is shared, what never is, and what HTTP asks of a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache, TieredCache
from mks_hardening.events import CacheRead, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware

IN_THREAD = True
WSGI_ONLY: set[str] = {
    # What a WSGI server says about its client.
    "test_nobody_in_particular_shares",
    "test_users_known_to_the_server_bypass_the_cache",
    # PEP 3333.
    "test_fields_of_a_subclass_of_str_are_kept_as_text",
    "test_a_client_that_goes_away_leaves_nothing_behind",
    "test_the_old_write_is_kept_too",
    # Of the rules alone.
    "test_a_rule_speaks_of_a_page_or_of_a_folder",
    "test_impossible_parameters_are_refused",
    "test_tags_of_paths_are_bounded",
    "test_the_names_in_the_cache_package_are_those_of_wsgi",
}


class Site:
    """An application that counts its answers, behind a response cache on a clock that stands still."""

    def __init__(
        self, *headers: tuple[str, str], status: str = "200 OK", body: Any = None, **rule: Any
    ) -> None:
        self.headers: list[tuple[str, str]] = [("Content-Type", "text/plain"), *headers]
        self.status = status
        self.body = body
        self.calls = 0
        self.environ: dict[str, Any] = {}
        self.inner: Any = self.app
        self.clock = FrozenClock()
        self.cache = MemoryCache(clock=self.clock, jitter=0)
        self.rule = {"path": "/*", "ttl": 60, **rule}
        self.middleware = self.cached(self.cache)

    def cached(self, cache: Any) -> Any:
        return ResponseCacheMiddleware(
            self.call_inner,
            cache=cache,
            rules=[CacheRule(**self.rule)],
            clock=self.clock,
            max_body=1000,
        )

    def call_inner(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self.inner(environ, start_response)

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.calls += 1
        self.environ = environ
        start_response(self.status, list(self.headers))
        if callable(self.body):
            return self.body()
        return [f"answer {self.calls}".encode() if self.body is None else self.body]

    def get(self, path: str = "/page", **options: Any) -> WSGIResponse:
        return call_wsgi(self.app, path, wrap=self._wrapped, **options)

    def _wrapped(self, app: Any) -> Any:
        self.inner = app
        return self.middleware


@contextmanager
def bypass_reasons() -> Iterator[list[str]]:
    """The reasons of the bypasses inside the block."""
    reasons: list[str] = []

    def observe(event: object) -> None:
        if isinstance(event, CacheRead) and event.outcome == "bypass":
            reasons.append(event.reason)

    add_observer(observe)
    try:
        yield reasons
    finally:
        remove_observer(observe)


def cookie(request: Any) -> str | None:
    """The cookies of an environ or a scope."""
    fields = {name.lower(): value for name, value in request.get("headers", ())}
    return request.get("HTTP_COOKIE") or fields.get(b"cookie", b"").decode() or None


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_page_is_answered_from_the_cache(site: Site) -> None:
    first, second = site.get(), site.get()
    assert (first.status, first.body) == (second.status, second.body) == (200, b"answer 1")
    assert site.calls == 1
    assert first.header("Age") is None
    assert second.header("Age") == "0"
    assert second.header("Content-Type") == "text/plain"
    assert second.header("Content-Length") == "8"


def test_it_ends_and_tells_its_age(site: Site) -> None:
    site.get()
    site.clock.advance(59)
    assert site.get().header("Age") == "59"
    site.clock.advance(2)
    assert site.get().body == b"answer 2"


SHARED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"query": "a=1"}, {"query": "a=1"}),
    ({"headers": {"User-Agent": "x"}}, {"headers": {"User-Agent": "y"}}),
    ({"headers": {"Host": "EXAMPLE.com"}}, {"headers": {"Host": "example.com"}}),
]
APART: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"path": "/a"}, {"path": "/b"}),
    ({"path": "/a"}, {"path": "/A"}),
    ({"path": "/a"}, {"path": "/a/"}),
    ({"query": "a=1"}, {"query": "a=2"}),
    ({"query": "a=1"}, {}),
    ({"query": "a=1&b=2"}, {"query": "b=2&a=1"}),
    ({"query": "a"}, {"path": "/page?a"}),
    ({"headers": {"Host": "a.example"}}, {"headers": {"Host": "b.example"}}),
    ({"scheme": "http"}, {"scheme": "https"}),
    (
        {"environ": {"SCRIPT_NAME": "/page"}, "path": "/x"},
        {"environ": {"SCRIPT_NAME": ""}, "path": "/page/x"},
    ),
]


@pytest.mark.parametrize(("one", "other"), SHARED, ids=repr)
def test_what_is_the_same_shares(site: Site, one: dict[str, Any], other: dict[str, Any]) -> None:
    site.get(**one)
    site.get(**other)
    assert site.calls == 1


@pytest.mark.parametrize(("one", "other"), APART, ids=repr)
def test_what_is_not_does_not(site: Site, one: dict[str, Any], other: dict[str, Any]) -> None:
    site.get(**one)
    site.get(**other)
    assert site.calls == 2


PAST: list[tuple[str, dict[str, Any]]] = [
    ("method", {"method": "OPTIONS"}),
    ("cookie", {"headers": {"Cookie": "session=1"}}),
    ("authorization", {"headers": {"Authorization": "Bearer x"}}),
    ("no-store", {"headers": {"Cache-Control": "no-store"}}),
    ("no-store", {"headers": {"Cache-Control": 'max-age=0, NO-STORE="x"'}}),
    ("conditional", {"headers": {"Range": "bytes=0-1"}}),
    ("conditional", {"headers": {"If-Match": '"x"'}}),
    ("conditional", {"headers": {"If-Unmodified-Since": "x"}}),
]


@pytest.mark.parametrize(("reason", "request_"), PAST, ids=repr)
def test_requests_that_go_past_the_cache(site: Site, reason: str, request_: dict[str, Any]) -> None:
    site.get()
    with bypass_reasons() as reasons:
        assert site.get(**request_).body == b"answer 2"
        assert site.get(**request_).body == b"answer 3"
    assert site.get().body == b"answer 1"
    assert site.cache.stats().bypasses == 2
    assert reasons == [reason, reason]


SOMEBODY: list[dict[str, Any]] = [
    {"environ": {"REMOTE_USER": "tanaka"}},
    {"headers": {"X-Forwarded-User": "tanaka"}},
    {"headers": {"X-Forwarded-Client-Cert": "Subject=tanaka"}},
    {"headers": {"X-SSL-Client-S-DN": "CN=tanaka"}},
    {"headers": {"X-Auth-Request-Email": "tanaka@example.com"}},
    {"headers": {"X-Goog-Authenticated-User-Email": "tanaka@example.com"}},
    {"headers": {"Cf-Access-Jwt-Assertion": "e30"}},
    {"headers": {"X-API-Key": "k"}},
    *(
        {"headers": {name: "tanaka"}}
        for name in (
            *(
                "Remote-Email",
                "Tailscale-User-Login",
                "X-Access-Token",
                "X-Authentik-Username",
                "X-Client-Dn",
            ),
            *("X-Consumer-Username", "X-Credential-Identifier", "X-Id-Token", "X-Pomerium-Jwt-Assertion"),
            *("X-Session-Id", "X-Tenant-Id", "X-User-Id", "X-Vouch-User", "DPoP"),
        )
    ),
]
SOMEBODY_OF_THE_SERVER: list[dict[str, Any]] = [
    {"environ": {"SSL_CLIENT_S_DN": "CN=tanaka"}},
    {"environ": {"SSL_CLIENT_VERIFY": "SUCCESS"}},
    {"environ": {"OIDC_CLAIM_sub": "tanaka"}},
    {"environ": {"HTTPS_DN": "CN=tanaka"}},
]


@pytest.mark.parametrize("person", SOMEBODY_OF_THE_SERVER, ids=repr)
def test_users_known_to_the_server_bypass_the_cache(person: dict[str, Any]) -> None:
    site = Site()
    assert [site.get(**each).body for each in (person, {}, person)] == [b"answer 1", b"answer 2", b"answer 3"]


@pytest.mark.parametrize("person", SOMEBODY, ids=repr)
def test_who_was_told_apart_by_a_server_or_proxy_goes_past_the_cache(person: dict[str, Any]) -> None:
    site = Site()
    assert site.get(**person).body == b"answer 1"
    assert site.get(**person).body == b"answer 2"
    assert site.get().body == b"answer 3"
    assert site.get(**person).body == b"answer 4"
    assert site.cache.stats().bypasses == 3


def test_an_identity_of_the_rule_replaces_the_bypass() -> None:
    site = Site(identity=lambda environ: environ.get("REMOTE_USER"))
    for name, body in (("a", b"answer 1"), ("b", b"answer 2"), ("a", b"answer 1")):
        assert site.get(environ={"REMOTE_USER": name}).body == body


@pytest.mark.parametrize(
    "environ", [{"SSL_CLIENT_VERIFY": "NONE"}, {"SSL_CLIENT_S_DN": ""}, {"REMOTE_USER": ""}], ids=repr
)
def test_nobody_in_particular_shares(environ: dict[str, str]) -> None:
    site = Site()
    assert [site.get(environ=environ).body for _ in range(2)] == [b"answer 1"] * 2


@pytest.mark.parametrize(
    "name",
    ["User-Agent", "X-Original-User-Agent", "Sec-Fetch-User", "X-Request-Id", "X-Forwarded-For", "CDN-Loop"],
)
def test_fields_of_everybody_do_not_go_past_the_cache(name: str) -> None:
    site = Site()
    assert [site.get(headers={name: value}).body for value in ("a", "b")] == [b"answer 1"] * 2


FORGED: list[dict[str, str]] = [
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Prefix": "/evil"},
    {"X-Original-URL": "/admin"},
    {"X-HTTP-Method-Override": "DELETE"},
    {"Forwarded": "for=192.0.2.1;host=evil.example"},
    {"Forwarded": 'proto=https;host="evil.example"'},
]


@pytest.mark.parametrize("headers", FORGED, ids=repr)
def test_a_place_that_nobody_resolved_never_reaches_others(headers: dict[str, str]) -> None:
    site = Site()
    assert site.get(headers=headers).body == b"answer 1"
    assert site.get().body == b"answer 2"
    assert site.get(headers=headers).body == b"answer 1"


def test_addresses_of_clients_do_not_part_entries() -> None:
    site = Site()
    for number in range(3):
        address = f"192.0.2.{number}"
        headers = {"X-Forwarded-For": address, "Forwarded": f"for={address}"}
        assert site.get(headers=headers).body == b"answer 1"


NEVER_KEPT: list[tuple[str, list[tuple[str, str]], str]] = [
    ("set-cookie", [("Set-Cookie", "a=1")], "200 OK"),
    ("set-cookie", [("set-cookie", "a=1")], "200 OK"),
    ("no-store", [("Cache-Control", "no-store")], "200 OK"),
    ("private", [("Cache-Control", "private")], "200 OK"),
    ("private", [("Cache-Control", 'private="X-A"')], "200 OK"),
    ("no-store", [("Cache-Control", "public"), ("Cache-Control", "no-cache")], "200 OK"),
    ("stale", [("Cache-Control", "max-age=0")], "200 OK"),
    ("stale", [("Cache-Control", "s-maxage=0, max-age=60")], "200 OK"),
    ("stale", [("Cache-Control", "max-age=0, max-age=60")], "200 OK"),
    ("stale", [("Cache-Control", "max-age=60"), ("Cache-Control", "MAX-AGE=0")], "200 OK"),
    ("stale", [("Cache-Control", "max-age=60, max-age=30")], "200 OK"),
    ("stale", [("Cache-Control", "max-age=soon")], "200 OK"),
    ("stale", [("Cache-Control", "max-age=10"), ("Age", "10")], "200 OK"),
    ("stale", [("Expires", "0")], "200 OK"),
    ("stale", [("Expires", "Tue, 14 Nov 2023 22:13:20 GMT")], "200 OK"),
    ("vary", [("Vary", "*")], "200 OK"),
    ("vary", [("Vary", "Accept"), ("Vary", "*")], "200 OK"),
    ("size", [("Content-Length", "99999")], "200 OK"),
    ("status", [], "404 Not Found"),
    ("status", [], "302 Found"),
    ("status", [], "500 Internal Server Error"),
    ("status", [("Content-Range", "bytes 0-1/5")], "206 Partial Content"),
]


@pytest.mark.parametrize(("reason", "headers", "status"), NEVER_KEPT, ids=repr)
def test_answers_that_are_never_kept(reason: str, headers: list[tuple[str, str]], status: str) -> None:
    site = Site(
        *headers, status=status, body=b"x" * 99999 if ("Content-Length", "99999") in headers else None
    )
    with bypass_reasons() as reasons:
        site.get()
        site.get()
    assert site.calls == 2
    assert reasons == [reason, reason]


@pytest.mark.parametrize(
    ("headers", "fresh"),
    [
        ([("Cache-Control", "max-age=10")], 10),
        ([("Cache-Control", "max-age=10, s-maxage=20")], 20),
        ([("Cache-Control", "MAX-AGE=10")], 10),
        ([("Cache-Control", 'max-age="10"')], 10),
        ([("Cache-Control", "max-age=3600")], 60),
        ([("Cache-Control", "max-age=30"), ("Age", "10")], 20),
        ([("Expires", "Tue, 14 Nov 2023 22:13:40 GMT"), ("Date", "Tue, 14 Nov 2023 22:13:30 GMT")], 10),
        ([("Expires", "Tue, 14 Nov 2023 22:13:40 GMT"), ("Cache-Control", "max-age=5")], 5),
        ([("Cache-Control", "public")], 60),
    ],
    ids=repr,
)
def test_an_answer_can_only_shorten_its_time(headers: list[tuple[str, str]], fresh: int) -> None:
    site = Site(*headers)
    site.get()
    site.clock.advance(fresh - 1)
    site.get()
    assert site.calls == 1
    site.clock.advance(1.5)
    site.get()
    assert site.calls == 2


def test_an_answer_that_was_old_already_tells_so() -> None:
    site = Site(("Age", "7"))
    site.get()
    site.clock.advance(3)
    answer = site.get()
    assert answer.header("Age") == "10"


def test_variants_are_kept_apart() -> None:
    site = Site(("Vary", "Accept-Language, Accept"))
    languages = [{"Accept-Language": "ja"}, {"Accept-Language": "en"}, {}, {"Accept": "ja"}, {"Accept": ""}]
    bodies = [site.get(headers=headers).body for headers in languages]
    assert len(set(bodies)) == len(languages)
    assert [site.get(headers=headers).body for headers in languages] == bodies


def test_invented_variants_do_not_fill_the_cache() -> None:
    site = Site(("Vary", "Accept-Language"))
    for number in range(100):
        site.get(headers={"Accept-Language": f"x-{number}"})
    assert len(site.cache.store._slots) <= 9  # type: ignore[attr-defined]
    assert site.get(headers={"Accept-Language": "x-99"}).body == b"answer 100"


def test_an_answer_that_stops_to_vary_is_not_mixed_up() -> None:
    site = Site(("Vary", "Accept-Language"))
    site.get(headers={"Accept-Language": "ja"})
    site.headers = [("Content-Type", "text/plain"), ("Vary", "Accept")]
    assert site.get(headers={"Accept-Language": "en", "Accept": "a"}).body == b"answer 2"
    assert site.get(headers={"Accept-Language": "ja", "Accept": "b"}).body == b"answer 3"
    assert site.get(headers={"Accept-Language": "ja", "Accept": "a"}).body == b"answer 2"


def test_named_query_parameters() -> None:
    site = Site(query=("page", "q"))
    assert site.get(query="page=1&q=x").body == b"answer 1"
    assert site.get(query="q=x&page=1").body == b"answer 1"
    assert site.get(query="page=1&page=2").body == b"answer 2"
    assert site.get(query="page=2&page=1").body == b"answer 3"
    assert site.get(query="page=1&q=").body == b"answer 4"
    assert site.get(query="page=1").body == b"answer 5"
    assert site.get(query="page=1&utm_source=x").body == b"answer 6"
    assert site.get(query="page=1&utm_source=x").body == b"answer 7"


def test_an_identity_makes_private_answers_possible() -> None:
    site = Site(("Cache-Control", "private"), identity=cookie)
    one, other = {"Cookie": "session=1"}, {"Cookie": "session=2"}
    bodies = [site.get(headers=headers).body for headers in (one, other, one, other, {}, {})]
    assert bodies == [b"answer 1", b"answer 2", b"answer 1", b"answer 2", b"answer 3", b"answer 4"]


def test_head_is_answered_from_a_get_and_never_fills(site: Site) -> None:
    assert site.get(method="HEAD").status == 200
    assert site.calls == 1
    site.get()
    assert site.calls == 2
    head = site.get(method="HEAD")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", "8")
    assert site.calls == 2


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"If-None-Match": '"v1"'}, 304),
        ({"If-None-Match": 'W/"v1"'}, 304),
        ({"If-None-Match": '"v0", "v1"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"v2"'}, 200),
        ({"If-None-Match": "v1"}, 200),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 304),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-None-Match": '"v2"', "If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, 200),
    ],
    ids=repr,
)
def test_conditional_requests(condition: dict[str, str], status: int) -> None:
    site = Site(("ETag", '"v1"'), ("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"))
    for calls in (1, 1):
        answer = site.get(headers=condition)
        assert (answer.status, site.calls) == (status, calls)
        assert answer.body == (b"" if status == 304 else b"answer 1")
        assert answer.header("ETag") == '"v1"'
        assert (answer.header("Content-Type") is None) == (status == 304)
    assert site.get().body == b"answer 1"
    assert "HTTP_IF_NONE_MATCH" not in site.environ


def test_an_answer_without_a_tag_is_given_one(site: Site) -> None:
    site.get()
    tag = site.get().header("ETag")
    assert tag is not None
    assert site.get(headers={"If-None-Match": tag}).status == 304


@pytest.mark.parametrize(
    ("control", "body"),
    [
        ({"Cache-Control": "no-cache"}, b"answer 2"),
        ({"Pragma": "no-cache"}, b"answer 2"),
        ({"Pragma": "no-cache", "Cache-Control": "max-age=100"}, b"answer 1"),
        ({"Cache-Control": "max-age=10"}, b"answer 2"),
        ({"Cache-Control": "max-age=30"}, b"answer 1"),
        ({"Cache-Control": "only-if-cached"}, b"answer 1"),
    ],
    ids=repr,
)
def test_a_client_may_ask_for_fresher_answers(site: Site, control: dict[str, str], body: bytes) -> None:
    site.get()
    site.clock.advance(20)
    assert site.get(headers=control).body == body
    assert site.get().body == body


def test_only_if_cached_never_asks_the_application(site: Site) -> None:
    assert site.get(headers={"Cache-Control": "only-if-cached"}).status == 504
    assert site.calls == 0


def test_an_invalidation_forgets_all_variants_and_wins_over_answers_being_made() -> None:
    site = Site(("Vary", "Accept-Language"), tags=("articles",))
    for language in ("ja", "en"):
        site.get(headers={"Accept-Language": language})
    site.cache.invalidate_tags("articles")
    assert site.get(headers={"Accept-Language": "ja"}).body == b"answer 3"

    def body() -> Iterable[bytes]:
        yield b"old"
        site.cache.invalidate_tags("articles")

    site.cache.clear()
    site.body = body
    assert site.get().body == b"old"
    site.body = None
    assert site.get().body == b"answer 5"


def test_what_was_invalidated_does_not_come_back_beside_another_variant() -> None:
    site = Site(("Vary", "Accept-Language"))
    tiers = TieredCache(MemoryCache(clock=site.clock), site.cache)
    site.middleware = site.cached(tiers)
    site.get(headers={"Accept-Language": "ja"})
    site.cache.clear()  # as another process does, which leaves the copy in this one
    site.get(headers={"Accept-Language": "en"})
    site.clock.advance(5)
    assert site.get(headers={"Accept-Language": "en"}).body == b"answer 2"
    assert site.get(headers={"Accept-Language": "ja"}).body == b"answer 3"


def test_a_body_that_breaks_or_is_cut_is_not_kept() -> None:
    def broken() -> Iterable[bytes]:
        yield b"half"
        raise OSError("disk")

    site = Site(body=broken)
    with pytest.raises(OSError, match="disk"):
        site.get()
    site.body = None
    assert site.get().body == b"answer 2"

    site = Site(("Content-Length", "9"), body=lambda: iter([b"answer"]))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
    site.inner = site.app
    result: Any = site.middleware(environ, lambda *_: lambda _data: None)
    assert b"".join(result) == b"answer"
    getattr(result, "close", list)()
    assert len(site.cache.store._slots) == 0  # type: ignore[attr-defined]


def test_a_client_that_goes_away_leaves_nothing_behind(site: Site) -> None:
    closed: list[int] = []

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x"

        def close(self) -> None:
            closed.append(1)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Endless()

    site.inner = app
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
    result: Any = site.middleware(environ, lambda *_: lambda _data: None)
    next(iter(result))
    result.close()
    result.close()
    assert closed == [1]
    assert len(site.cache.store._slots) == 0  # type: ignore[attr-defined]
    assert site.cache.store._leases == {}  # type: ignore[attr-defined]


def test_the_old_write_is_kept_too(site: Site) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        site.calls += 1
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written ")
        return [b"returned"]

    bodies = [call_wsgi(app, "/w", wrap=site._wrapped).body for _ in range(2)]
    assert bodies == [b"written returned"] * 2
    assert site.calls == 1


def test_fields_of_a_subclass_of_str_are_kept_as_text() -> None:
    class Marked(str):
        __slots__ = ()

    site = Site(("X-Marked", Marked("yes")))
    site.inner = site.app  # without the validator, which wants exact types
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "x", "SERVER_PORT": "80"}
    heads: list[Any] = []
    for _ in range(2):
        result: Any = site.middleware(environ, lambda *head: heads.append(head) or bytes)
        assert b"".join(result) == b"answer 1"
    assert [dict(head[1])["X-Marked"] for head in heads] == ["yes", "yes"]
    assert site.calls == 1


def test_large_bodies_pass_and_are_not_kept(site: Site) -> None:
    site.body = lambda: iter([b"x" * 600, b"y" * 600])
    assert len(site.get().body) == 1200
    site.get()
    assert site.calls == 2


def test_a_page_with_the_nonce_of_its_request_is_not_kept(site: Site) -> None:
    site.body = b"<script nonce=abc123>"
    for _ in range(2):
        site.get(environ={"mks_hardening.csp_nonce": "abc123"})
    assert site.calls == 2
    site.body = b"<p>"
    for _ in range(2):
        site.get(environ={"mks_hardening.csp_nonce": "abc124"})
    assert site.calls == 3


def test_fields_of_one_connection_are_not_kept() -> None:
    site = Site(("X-Request-ID", "1"), ("X-Hop", "1"), ("X-Kept", "1"))
    site.get()
    site.headers = []
    answer = site.get()
    assert answer.header("X-Request-ID") is None
    assert answer.header("X-Kept") == "1"


def test_paths_without_a_rule_are_left_alone() -> None:
    site = Site(path="/articles/*")
    for path, calls in (("/articles/1", 1), ("/articles/1", 1), ("/article", 2), ("/article", 3), ("/", 4)):
        site.get(path)
        assert site.calls == calls


def test_an_unavailable_cache_is_no_obstacle() -> None:
    from mks_hardening.cache import RedisCache

    site = Site()
    with RedisCache("redis://127.0.0.1:1/0") as cache:
        site.middleware = site.cached(cache)
        assert [site.get().body, site.get().body] == [b"answer 1", b"answer 2"]


@pytest.mark.parametrize(
    ("parameter", "make"),
    [
        ("path", lambda: CacheRule("articles", ttl=1)),
        ("path", lambda: CacheRule("/*/x", ttl=1)),
        ("path", lambda: CacheRule("/", ttl=1)),
        ("path", lambda: CacheRule("/news*", ttl=1)),
        ("ttl", lambda: CacheRule("/a", ttl=0)),
        ("query", lambda: CacheRule("/a", ttl=1, query="page")),
        ("tags", lambda: CacheRule("/a", ttl=1, tags="one")),
        ("cache", lambda: ResponseCacheMiddleware(lambda *_: [], cache={}, rules=[])),  # type: ignore[arg-type]
        ("rules", lambda: ResponseCacheMiddleware(lambda *_: [], cache=MemoryCache(), rules=["/"])),  # type: ignore[list-item]
        (
            "max_body",
            lambda: ResponseCacheMiddleware(lambda *_: [], cache=MemoryCache(), rules=[], max_body=-1),
        ),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("rule", "matched", "other"),
    [
        ("/news", ["/news"], ["/news/", "/news/1", "/newspaper", "/"]),
        ("/news/", ["/news/", "/news/1"], ["/news", "/newspaper"]),
        ("/news/*", ["/news/", "/news/1"], ["/news", "/newspaper", "/news/../admin"]),
        ("=/", ["/"], ["/news"]),
        ("/*", ["/", "/news/1"], ["//news"]),
    ],
)
def test_a_rule_speaks_of_a_page_or_of_a_folder(rule: str, matched: list[str], other: list[str]) -> None:
    found = CacheRule(rule, ttl=1)
    assert [path for path in matched if not found.matches(path)] == []
    assert [path for path in other if found.matches(path)] == []


# --- what a successful change forgets (RFC 9111, 4.4)


NOT_CHANGING = ("PROPFIND", "REPORT", "SEARCH", "QUERY")


class Shop:
    """Pages that are cached, and requests that change them."""

    def __init__(self) -> None:
        self.calls = 0
        self.status = "200 OK"
        self.fields: list[tuple[str, str]] = []
        self.late = False
        self.closing: Callable[[], None] = lambda: None
        self.cache = MemoryCache()
        self.middleware = ResponseCacheMiddleware(
            self.app, cache=self.cache, rules=[CacheRule("/a/", ttl=60), CacheRule("/é", ttl=60)]
        )

    def app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.calls += 1
        changes = environ["REQUEST_METHOD"] not in ("GET", "HEAD", "OPTIONS", "TRACE", *NOT_CHANGING)
        if self.late:
            return self.late_body(changes, start_response)
        start_response(
            self.status if changes else "200 OK",
            [("Content-Type", "text/plain"), *(self.fields if changes else ())],
        )
        return Closing([str(self.calls).encode()], self.closing)

    def late_body(self, changes: bool, start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response(self.status if changes else "200 OK", [("Content-Type", "text/plain")])
        yield str(self.calls).encode()

    def ask(self, path: str, **how: Any) -> bytes:
        return call_wsgi(self.middleware, path, **how).body


class Closing(list[bytes]):
    def __init__(self, pieces: list[bytes], close: Callable[[], None]) -> None:
        super().__init__(pieces)
        self.close = close


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "303 See Other"])
@pytest.mark.parametrize("late", [False, True])
def test_a_successful_change_forgets_the_page_whatever_its_query(
    method: str, status: str, late: bool
) -> None:
    shop = Shop()
    shop.late = late
    shop.status = status
    before = [shop.ask("/a/1"), shop.ask("/a/1", query="x=1"), shop.ask("/a/2")]
    _raw(shop.middleware, method, "/a/1")
    after = [shop.ask("/a/1"), shop.ask("/a/1", query="x=1"), shop.ask("/a/2")]
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert before[2] == after[2]


def _raw(app: Any, method: str, path: str) -> None:
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
    }
    body = app(environ, lambda *_: lambda _: None)
    list(body)
    close = getattr(body, "close", None)
    if close is not None:
        close()


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 Internal Server Error"])
def test_a_change_that_failed_forgets_nothing(status: str) -> None:
    shop = Shop()
    shop.status = status
    before = shop.ask("/a/1")
    _raw(shop.middleware, "POST", "/a/1")
    assert shop.ask("/a/1") == before


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", *NOT_CHANGING])
def test_a_safe_method_forgets_nothing(method: str) -> None:
    shop = Shop()
    before = shop.ask("/a/1")
    _raw(shop.middleware, method, "/a/1")
    assert shop.ask("/a/1") == before


@pytest.mark.parametrize("field", ["Location", "content-location"])
@pytest.mark.parametrize(
    ("value", "path", "forgotten"),
    [
        ("/a/1", "/a/1", True),
        ("http://localhost/a/1?x=1#y", "/a/1", True),
        ("https://LOCALHOST/a/1", "/a/1", True),
        ("../a/1", "/a/1", True),
        ("/%C3%A9", "/é", True),
        ("https://elsewhere.example/a/1", "/a/1", False),
        ("//elsewhere.example/a/1", "/a/1", False),
        ("http://[/a/1", "/a/1", False),
        ("/b/1", "/a/1", False),
    ],
)
def test_a_successful_change_forgets_where_it_points(
    field: str, value: str, path: str, forgotten: bool
) -> None:
    shop = Shop()
    shop.status = "303 See Other"
    shop.fields = [(field, value)]
    before = shop.ask(path)
    _raw(shop.middleware, "POST", "/new/form")
    assert (shop.ask(path) != before) is forgotten


def test_what_is_read_before_a_change_is_committed_at_the_end_of_the_body_is_forgotten_too() -> None:
    shop = Shop()
    shop.closing = lambda: None
    seen: list[bytes] = []

    def commit_late() -> None:
        shop.closing = lambda: None
        seen.append(shop.ask("/a/1"))  # a reader, before the transaction ends

    shop.closing = commit_late
    _raw(shop.middleware, "POST", "/a/1")
    assert seen != [shop.ask("/a/1")]


def test_tags_of_paths_are_bounded() -> None:
    from mks_hardening._edge.response_cache.cacheable_request import path_tag

    assert len({path_tag(f"/{n}") for n in range(40_000)}) <= 1 << 14


def test_a_variant_whose_entry_was_not_written_is_a_miss() -> None:
    """Its body is written first; until the entry of the URL names it, it may be one that was invalidated."""
    site = Site(("Vary", "Accept-Language"))

    class Unlucky(MemoryCache):
        loses = False

        def finish(self, key: str, lease: Any, value: object, *, ttl: float) -> bool:
            return False if self.loses else super().finish(key, lease, value, ttl=ttl)

        async def afinish(self, key: str, lease: Any, value: object, *, ttl: float) -> bool:
            return False if self.loses else await super().afinish(key, lease, value, ttl=ttl)

    cache = Unlucky(clock=site.clock, jitter=0)
    site.middleware = site.cached(cache)
    japanese = {"Accept-Language": "ja"}
    assert site.get(headers=japanese).body == b"answer 1"
    cache.loses = True
    assert site.get(headers={**japanese, "Cache-Control": "no-cache"}).body == b"answer 2"
    assert site.get(headers=japanese).body == b"answer 3"


def test_a_change_of_a_page_that_is_never_cached_invalidates_nothing() -> None:
    site = Site(path="/cached/")
    tags: list[str] = []

    class Noting(MemoryCache):
        def invalidate_tags(self, *given: str) -> bool:
            tags.extend(given)
            return True

        async def ainvalidate_tags(self, *given: str) -> bool:
            return self.invalidate_tags(*given)

    site.middleware = site.cached(Noting())
    assert site.get("/other", method="POST").status == 200
    assert tags == []
    assert site.get("/cached/1", method="POST").status == 200
    assert len({*tags}) == 1
