"""The CDN purge against a real HTTP server that answers as Cloudflare does, and worse."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mks_hardening.cache import CDNManager, MemoryCache, RedisCache, TagInvalidator, TieredCache
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock
from testbed.http_sink import Answer, HttpSink, Request

ZONE = "0123456789abcdef0123456789abcdef"
TOKEN = "hunter2-hunter2-hunter2"
OK = Answer(body={"success": True, "errors": [], "result": {"id": ZONE}})


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def make(http_sink: HttpSink, waits: list[float]) -> Iterator[Callable[..., CDNManager]]:
    clock = FrozenClock()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    with ExitStack() as stack:
        http_sink.default = OK
        yield lambda **options: stack.enter_context(
            CDNManager(
                ZONE,
                **{
                    "api_token": TOKEN,
                    "base_url": f"http://localhost:{http_sink.port}/client/v4",
                    "sleep": sleep,
                    "clock": clock,
                    **options,
                },
            )
        )


def test_urls_are_sent_as_the_service_wants_them(make: Any, http_sink: HttpSink) -> None:
    urls = ["https://example.com/a", "https://example.com/b?x=1"]
    result = make().purge_cache([*urls, urls[0]])
    assert result
    assert (result.done, result.failed, result.errors) == (tuple(urls), (), ())
    (request,) = http_sink.requests
    assert (request.method, request.path) == ("POST", f"/client/v4/zones/{ZONE}/purge_cache")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.json() == {"files": urls}


@pytest.mark.parametrize(
    ("options", "bodies"),
    [
        ({"tags": ["article-1", "list"]}, [{"tags": ["article-1", "list"]}]),
        ({"prefixes": ["example.com/articles"]}, [{"prefixes": ["example.com/articles"]}]),
        ({"hosts": ["www.example.com"]}, [{"hosts": ["www.example.com"]}]),
        ({"purge_everything": True}, [{"purge_everything": True}]),
        (
            {"urls": ["https://example.com/"], "tags": iter(["a"])},
            [{"files": ["https://example.com/"]}, {"tags": ["a"]}],
        ),
    ],
)
def test_each_kind_has_its_body(make: Any, http_sink: HttpSink, options: Any, bodies: list[Any]) -> None:
    assert make().purge_cache(**options)
    assert [request.json() for request in http_sink.requests] == bodies


def test_variants_of_a_url_are_purged_by_their_header_fields(make: Any, http_sink: HttpSink) -> None:
    url = "https://example.com/"
    variants = [{"url": url, "headers": {"CF-Device-Type": kind}} for kind in ("mobile", "desktop")]
    cdn = make()
    http_sink.answer(OK, Answer(400, body={"success": False, "errors": [{"code": 1, "message": "no"}]}))
    result = cdn.purge_cache([variants[0], url, variants[1], variants[0]])
    assert [request.json() for request in http_sink.requests] == [{"files": [url]}, {"files": variants}]
    assert (result.done, result.failed) == ((url,), (url, url))
    assert cdn.purge_items(result.failed_items)
    assert http_sink.requests[-1].json() == {"files": variants}


def test_many_are_sent_in_batches(make: Any, http_sink: HttpSink) -> None:
    urls = [f"https://example.com/{number}" for number in range(250)]
    assert make().purge_cache(urls).done == tuple(urls)
    assert [len(request.json()["files"]) for request in http_sink.requests] == [100, 100, 50]


def test_a_partial_failure_names_the_rest(make: Any, http_sink: HttpSink) -> None:
    urls = [f"https://example.com/{number}" for number in range(250)]

    def answer(request: Request) -> Answer:
        if urls[150] not in request.json()["files"]:
            return OK
        return Answer(400, body={"success": False, "errors": [{"code": 1107, "message": "Invalid URL"}]})

    http_sink.default = answer
    result = make().purge_cache(urls)
    assert not result
    assert result.done == (*urls[:100], *urls[200:])
    assert result.failed == tuple(urls[100:200])
    assert result.errors == ("HTTP 400: Invalid URL (1107)",)
    assert result.retry_after is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, body={"success": False, "errors": []}),
        Answer(200, body=b"<html>maintenance</html>"),
        Answer(200, body=b""),
        Answer(200, body=[]),
        Answer(200, body={"success": "true"}),
        Answer(201, body={"success": True}),
        Answer(302, headers={"Location": "https://example.com/"}, body=b""),
        Answer(404, body={"success": False, "errors": [{"code": 7003, "message": "no zone"}]}),
    ],
    ids=lambda answer: f"{answer.status}-{answer.encoded()[:20]!r}",
)
def test_only_a_body_that_says_success_is_one(make: Any, http_sink: HttpSink, answer: Answer) -> None:
    http_sink.default = answer
    result = make().purge_cache(["https://example.com/"])
    assert (bool(result), result.failed) == (False, ("https://example.com/",))
    assert len(result.errors) == 1


def test_too_many_requests_are_waited_out(make: Any, http_sink: HttpSink, waits: list[float]) -> None:
    busy = Answer(429, headers={"Retry-After": "3"}, body={"success": False, "errors": []})
    answers = [busy, OK]
    http_sink.default = lambda _request: answers.pop(0)
    assert make().purge_cache(tags=["a"])
    assert waits == [3.0]


@pytest.mark.parametrize(
    ("headers", "asked", "again"),
    [
        ({"Retry-After": "3600"}, 1, 3600),
        ({"Retry-After": "9" * 400}, 1, 86_400),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 3, 30),
        ({}, 3, 30),
    ],
)
def test_nobody_waits_for_ever(  # noqa: PLR0917 - a row of the table
    make: Any, http_sink: HttpSink, waits: list[float], headers: dict[str, str], asked: int, again: float
) -> None:
    http_sink.default = Answer(429, headers=headers, body={"success": False, "errors": []})
    result = make().purge_cache(tags=["a"])
    assert not result
    assert result.retry_after == again
    assert len(http_sink.requests) == asked
    assert sum(waits) < 20


@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_to_be_left_alone_is_left_alone(make: Any, http_sink: HttpSink, status: int) -> None:
    http_sink.default = Answer(status, headers={"Retry-After": "120"}, body={"success": False, "errors": []})
    urls = [f"https://example.com/{number}" for number in range(300)]
    result = make(deadline=600).purge_cache(urls)
    assert (result.failed, result.retry_after) == (tuple(urls), 120)
    assert len(http_sink.requests) == 1


def test_a_server_error_is_tried_again(make: Any, http_sink: HttpSink) -> None:
    answers = [Answer(500, body=b"oops"), Answer(drop=True), OK]
    http_sink.default = lambda _request: answers.pop(0)
    assert make().purge_cache(tags=["a"])


def test_a_refused_token_ends_the_work_at_once(make: Any, http_sink: HttpSink) -> None:
    http_sink.default = Answer(
        403, body={"success": False, "errors": [{"code": 9109, "message": "Unauthorized"}]}
    )
    urls = [f"https://example.com/{number}" for number in range(300)]
    result = make().purge_cache(urls)
    assert (result.done, result.failed) == ((), tuple(urls))
    assert result.errors == ("HTTP 403: Unauthorized (9109)",)
    assert result.retry_after is None
    assert len(http_sink.requests) == 1


def test_the_deadline_holds_for_all_batches_together(
    make: Any, http_sink: HttpSink, waits: list[float]
) -> None:
    http_sink.default = Answer(429, headers={"Retry-After": "4"}, body={"success": False, "errors": []})
    urls = [f"https://example.com/{number}" for number in range(1000)]
    result = make(deadline=10).purge_cache(urls)
    assert result.failed == tuple(urls)
    assert result.retry_after == 4
    assert sum(waits) <= 10


def test_an_unreachable_service_is_a_result(waits: list[float]) -> None:
    with CDNManager(ZONE, api_token=TOKEN, base_url="http://127.0.0.1:1", sleep=waits.append) as manager:
        result = manager.purge_cache(tags=["a"])
    assert (result.ok, result.failed, result.errors) == (False, ("a",), ("not reachable (refused)",))
    assert result.retry_after == 30
    assert len(waits) == 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"urls": None},
        {"urls": []},
        {"urls": "https://example.com/"},
        {"urls": ["/relative"]},
        {"urls": ["ftp://example.com/"]},
        {"urls": ["https://user:pw@example.com/"]},
        {"urls": ["https://example.com/#x"]},
        {"urls": ["https://example.com/a b"]},
        {"urls": ["https://example.com/\r\nX: y"]},
        {"urls": ["https:///x"]},
        {"urls": ["https://[::1/"]},
        {"urls": [None]},
        {"urls": [b"https://example.com/"]},
        {"urls": {"url": "https://example.com/", "headers": {"a": "b"}}},
        {"urls": [{"url": "https://example.com/"}]},
        {"urls": [{"url": "https://example.com/", "headers": {}}]},
        {"urls": [{"url": "https://example.com/", "headers": {"a": "b"}, "method": "GET"}]},
        {"urls": [{"url": "https://example.com/", "headers": {"a": "b\r\nc"}}]},
        {"urls": [{"url": "https://example.com/", "headers": {"a b": "c"}}]},
        {"urls": [{"url": "https://example.com/", "headers": {"a": 1}}]},
        {"urls": [{"url": "/", "headers": {"a": "b"}}]},
        {"tags": ["with blank"]},
        {"tags": ["with,comma"]},
        {"tags": [""]},
        {"tags": ["日本"]},
        {"tags": "one"},
        {"prefixes": ["https://example.com/a"]},
        {"prefixes": ["/a"]},
        {"hosts": ["https://example.com"]},
        {"hosts": ["localhost"]},
        {"hosts": ["a..b"]},
        {"purge_everything": "true"},
        {"purge_everything": 1},
        {"purge_everything": True, "tags": ["a"]},
        {"purge_everything": True, "urls": []},
    ],
    ids=repr,
)
def test_what_cannot_be_purged_is_refused_before_anything_is_sent(
    make: Any, http_sink: HttpSink, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        make().purge_cache(**options)
    assert http_sink.requests == []


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("zone_id", {"zone_id": "example.com"}),
        ("zone_id", {"zone_id": ZONE.upper()}),
        ("zone_id", {"zone_id": f"{ZONE}/../x"}),
        ("zone_id", {"zone_id": None}),
        ("api_token", {"api_token": None}),
        ("api_token", {"api_token": ""}),
        ("api_token", {"api_token": "hunter2\r\nX: hunter2"}),
        ("timeout", {"timeout": 0}),
        ("deadline", {"deadline": 0}),
        ("base_url", {"base_url": "http://example.com"}),
        ("base_url", {"base_url": "https://user:hunter2@example.com"}),
    ],
)
def test_impossible_parameters_are_refused_without_the_token(parameter: str, options: dict[str, Any]) -> None:
    known = {"zone_id": ZONE, "api_token": TOKEN, **options}
    with pytest.raises(ConfigurationError) as caught:
        CDNManager(known.pop("zone_id"), **known)
    assert caught.value.parameter == parameter
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize("code", [9109, f"code {TOKEN}", None])
def test_a_token_that_the_service_repeats_is_in_no_result(make: Any, http_sink: HttpSink, code: Any) -> None:
    message = "x" * 190 + f" Invalid header 'Authorization: Bearer {TOKEN}'"
    body = {"success": False, "errors": [{"code": code, "message": message}]}
    http_sink.default = Answer(status=400, body=body)
    result = make().purge_cache(tags=["a"])
    assert not result
    assert "hunter2" not in repr(result)
    assert result.errors[0].startswith("HTTP 400: xxx")


def test_the_token_is_in_no_repr(make: Any) -> None:
    manager = make()
    assert "hunter2" not in f"{manager!r} {vars(manager)}"


# --- a tag, everywhere


@pytest.mark.parametrize("with_asyncio", [False, True], ids=["def", "async def"])
def test_one_call_invalidates_a_tag_in_the_cache_and_in_the_cdn(
    make: Any, http_sink: HttpSink, with_asyncio: bool
) -> None:
    near, far = MemoryCache(), MemoryCache(namespace="far")
    cache = TieredCache(near, far)
    cache.set("page", "old", tags=["articles"])
    pages = TagInvalidator(cache, cdn=make())
    found = asyncio.run(pages.ainvalidate(["articles"])) if with_asyncio else pages.invalidate(["articles"])
    assert (found.ok, found.done, found.failed) == (True, ("articles",), ())
    assert (near.get("page"), far.get("page")) == (None, None)
    assert [request.json() for request in http_sink.requests] == [{"tags": ["articles"]}]


def test_a_cdn_that_refuses_is_named_after_the_cache_was_invalidated(make: Any, http_sink: HttpSink) -> None:
    http_sink.default = Answer(status=403, body={"success": False, "errors": [{"code": 1, "message": "no"}]})
    cache = MemoryCache()
    cache.set("page", "old", tags=["articles"])
    found = TagInvalidator(cache, cdn=make()).invalidate(["articles"])
    assert (found.ok, found.failed, found.errors) == (False, ("articles",), ("HTTP 403: no (1)",))
    assert cache.get("page") is None


def test_a_cache_that_cannot_be_reached_is_named_and_the_cdn_is_purged(
    make: Any, http_sink: HttpSink
) -> None:
    with RedisCache("redis://127.0.0.1:1/0") as cache:
        found = TagInvalidator(cache, cdn=make()).invalidate(["articles"])
    assert (found.ok, found.done, found.failed) == (False, (), ("articles",))
    assert found.errors[0].startswith("cache: not reachable")
    assert found.retry_after
    assert len(http_sink.requests) == 1


@pytest.mark.parametrize("tags", [[], [""], ["a b"], ["a,b"], "articles", ["é"]], ids=repr)
def test_tags_that_one_of_them_refuses_change_nothing(make: Any, http_sink: HttpSink, tags: Any) -> None:
    cache = MemoryCache()
    cache.set("page", "kept", tags=["articles"])
    with pytest.raises(ConfigurationError) as caught:
        TagInvalidator(cache, cdn=make()).invalidate(tags)
    assert caught.value.parameter == "tags"
    assert (cache.get("page"), http_sink.requests) == ("kept", [])


def test_without_a_cdn_the_cache_alone_is_invalidated() -> None:
    cache = MemoryCache()
    cache.set("page", "old", tags=["\N{HIRAGANA LETTER A}"])
    assert TagInvalidator(cache).invalidate(["\N{HIRAGANA LETTER A}"])
    assert cache.get("page") is None
    for wrong in ({"cache": {}}, {"cache": cache, "cdn": object()}):
        with pytest.raises(ConfigurationError):
            TagInvalidator(**wrong)
