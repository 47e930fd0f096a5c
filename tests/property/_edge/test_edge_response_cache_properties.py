"""Properties of the decisions of the response cache."""

from __future__ import annotations

from math import inf
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from mks_hardening._edge.response_cache.cacheable_request import (
    RequestHead,
    bypass_reason,
    cacheable_request,
    variant_of,
)
from mks_hardening._edge.response_cache.http_caching import (
    RequestDirectives,
    directives,
    is_not_modified,
    lifetime,
    request_directives,
    stale_windows,
)
from mks_hardening._edge.response_cache.response_choice import StoredResponse, choose_response
from mks_hardening.wsgi import CacheRule

FIELDS = st.text(alphabet="abmaxges-=,;\"' 0123456789\\*", max_size=40)


def request(path: str = "/", query: str = "", **fields: str) -> RequestHead:
    return RequestHead("GET", "http", "h", "", path, query, fields)


@given(control=FIELDS, age=FIELDS, expires=FIELDS, ttl=st.floats(0.1, 1e5))
def test_any_field_is_read_and_a_lifetime_stays_within_the_rule(
    control: str, age: str, expires: str, ttl: float
) -> None:
    headers = [("Cache-Control", control), ("Age", age), ("Expires", expires)]
    assert 0 <= lifetime(headers, ttl=ttl, now=1_700_000_000.0) <= ttl
    assert all(name == name.lower() for name in directives(control))
    assert all(0 <= each <= ttl for each in stale_windows(headers, while_revalidate=ttl, if_error=ttl))


@given(control=FIELDS, pragma=FIELDS)
def test_any_directives_of_a_request_are_read(control: str, pragma: str) -> None:
    found = request_directives(control, pragma)
    assert found.max_stale >= 0 <= found.min_fresh
    assert found.no_cache == ("no-cache" in directives(control))


@given(tag=FIELDS, own=FIELDS)
def test_any_condition_gets_a_decision(tag: str, own: str) -> None:
    variables = {"HTTP_IF_NONE_MATCH": tag, "HTTP_IF_MODIFIED_SINCE": own}
    assert is_not_modified(variables, [("ETag", own), ("Last-Modified", tag)]) in {True, False}


@given(
    one=st.dictionaries(st.sampled_from("abc"), FIELDS), other=st.dictionaries(st.sampled_from("abc"), FIELDS)
)
def test_variants_differ_exactly_when_a_named_field_does(one: dict[str, str], other: dict[str, str]) -> None:
    def variables(fields: dict[str, str]) -> dict[str, Any]:
        return {f"HTTP_{name.upper()}": value for name, value in fields.items()}

    same = all(one.get(name) == other.get(name) for name in "ab")
    assert (variant_of(variables(one), ["a", "b"]) == variant_of(variables(other), ["a", "b"])) == same


@given(one=st.tuples(FIELDS, FIELDS), other=st.tuples(FIELDS, FIELDS))
def test_path_and_query_cannot_shift_into_each_other(one: tuple[str, str], other: tuple[str, str]) -> None:
    rule = CacheRule("/*", ttl=1)
    keys = [cacheable_request(request(*place), rule, None).key for place in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


NAMES = st.sampled_from(["_ga", "_ga_X1", "_gid", "session", "sid", "_g", "_gab", "ga", ""])


@given(names=st.lists(NAMES, max_size=4), value=st.text(alphabet="abc=.", max_size=5))
def test_a_request_shares_responses_only_if_all_its_cookies_are_harmless(
    names: list[str], value: str
) -> None:
    rule = CacheRule("/*", ttl=1, ignore_cookies=["_ga", "_ga_*", "_gid"])
    cookies = "; ".join(f"{name}={value}" for name in names)
    harmless = all(name in {"_ga", "_ga_X1", "_gid"} for name in names if name)
    assert rule.ignores(cookies) == (harmless and "" not in names) or "" in names
    assert not rule.ignores("session=1; " + cookies)
    assert bypass_reason(request(HTTP_COOKIE=cookies), rule) == ("cookie" if cookies else None)


SECONDS = st.integers(0, 100).map(float)


@given(
    lifetime=SECONDS,
    windows=st.tuples(SECONDS, SECONDS),
    may_be_stale=st.booleans(),
    elapsed=SECONDS,
    wanted=st.builds(
        RequestDirectives,
        no_cache=st.booleans(),
        only_if_cached=st.booleans(),
        max_age=st.none() | SECONDS,
        min_fresh=SECONDS,
        max_stale=SECONDS | st.just(inf),
        stale_if_error=SECONDS,
    ),
)
def test_no_client_gets_an_older_response_than_it_accepts(
    lifetime: float,
    windows: tuple[float, float],
    may_be_stale: bool,
    elapsed: float,
    wanted: RequestDirectives,
) -> None:
    end = lifetime
    stored = StoredResponse(
        (), b"", 0.0, end, end + windows[0], end + windows[1], may_be_stale, can_validate=True
    )
    assume(may_be_stale or windows == (0.0, 0.0))
    choice = choose_response(stored, wanted, elapsed)
    is_stale = elapsed >= end
    if choice.response is None:
        assert choice.unavailable == wanted.only_if_cached
        if choice.fallback is not None:
            assert may_be_stale
            assert not wanted.no_cache
        return
    assert not choice.unavailable
    assert not wanted.no_cache
    assert may_be_stale or not is_stale
    if choice.refresh:
        assert is_stale
        assert elapsed < end + windows[0]
        assert wanted.max_age is None
        assert wanted.min_fresh == 0
        return
    allowed = wanted.max_stale if may_be_stale else 0.0
    assert elapsed - end <= allowed
    assert wanted.max_age is None or elapsed <= wanted.max_age + allowed
    assert not wanted.min_fresh or end - elapsed >= wanted.min_fresh
