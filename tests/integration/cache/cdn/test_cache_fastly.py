"""Fastly's purge against a local HTTP server that behaves as the documentation of its API says.

No account was used: URLs, limits, header fields and response bodies are those of the published reference.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mks_hardening.cache import FastlyCDN, MemoryCache, TagInvalidator
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock
from testbed.http_sink import Answer, HttpSink, Request

SERVICE = "SU1Z0isxPaozGVKXdv0eY"
TOKEN = "hunter2-hunter2-hunter2"


def documented(request: Request) -> Answer:
    """What the API answers: an id for a URL or for everything, an id for each key of a batch."""
    if request.headers.get("Fastly-Key") != TOKEN:
        return Answer(401, body={"msg": "Provided credentials are missing or invalid"})
    if request.path == f"/service/{SERVICE}/purge":
        keys = request.json()["surrogate_keys"]
        if len(keys) > 256:
            return Answer(400, body={"msg": "Bad request", "detail": "Too many surrogate keys"})
        return Answer(body={key: f"108-{number}" for number, key in enumerate(keys)})
    if request.path == f"/service/{SERVICE}/purge_all":
        return Answer(body={"status": "ok"})
    if request.path.startswith("/purge/"):
        return Answer(body={"status": "ok", "id": "108-1391560174-974124"})
    return Answer(404, body={"msg": "Record not found", "detail": "Cannot find service"})


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def make(http_sink: HttpSink, waits: list[float]) -> Iterator[Callable[..., FastlyCDN]]:
    clock = FrozenClock()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    with ExitStack() as stack:
        http_sink.default = documented
        yield lambda **options: stack.enter_context(
            FastlyCDN(
                SERVICE,
                **{
                    "api_token": TOKEN,
                    "base_url": f"http://localhost:{http_sink.port}",
                    "sleep": sleep,
                    "clock": clock,
                    **options,
                },
            )
        )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://www.example.com/path/to/object", "www.example.com/path/to/object"),
        ("http://example.com", "example.com/"),
        ("https://example.com:8443/a?x=1&y=%2F", "example.com:8443/a?x=1&y=%2F"),
        ("https://example.com//a/.b/c..d", "example.com//a/.b/c..d"),
        ("https://example.com/鉄", "example.com/%E9%89%84"),
        ("https://example.com/%E9%89%84?q=%22", "example.com/%E9%89%84?q=%22"),
    ],
)
def test_a_url_is_purged_by_a_request(make: Any, http_sink: HttpSink, url: str, path: str) -> None:
    result = make().purge_cache([url])
    assert (result.ok, result.done) == (True, (url,))
    (request,) = http_sink.requests
    assert (request.method, request.path, request.body) == ("POST", f"/purge/{path}", b"")
    assert "Fastly-Soft-Purge" not in request.headers


def test_tags_are_purged_256_at_once(make: Any, http_sink: HttpSink) -> None:
    tags = [f"article/{number},x" for number in range(600)]
    assert make().purge_cache(tags=tags).done == tuple(tags)
    assert {request.path for request in http_sink.requests} == {f"/service/{SERVICE}/purge"}
    assert [len(request.json()["surrogate_keys"]) for request in http_sink.requests] == [256, 256, 88]


def test_long_tags_are_purged_in_requests_whose_response_can_be_read(make: Any, http_sink: HttpSink) -> None:
    tags = [f"{number:/<1000}" for number in range(300)]
    assert make().purge_cache(tags=tags).done == tuple(tags)
    assert len(http_sink.requests) > 5


def test_everything_is_purged(make: Any, http_sink: HttpSink) -> None:
    assert make().purge_cache(purge_everything=True).done == ("*",)
    assert [request.path for request in http_sink.requests] == [f"/service/{SERVICE}/purge_all"]


def test_a_soft_purge_is_said_in_each_request(make: Any, http_sink: HttpSink) -> None:
    cdn = make(soft=True)
    assert cdn.purge_cache(["https://example.com/a"], tags=["t"])
    assert [request.headers["Fastly-Soft-Purge"] for request in http_sink.requests] == ["1", "1"]
    with pytest.raises(ConfigurationError, match="cannot purge everything softly"):
        cdn.purge_cache(purge_everything=True)
    assert len(http_sink.requests) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prefixes": ["example.com/a"]}, "no purge by prefix or host"),
        ({"hosts": ["www.example.com"]}, "no purge by prefix or host"),
        ({"urls": [{"url": "https://example.com/", "headers": {"Accept-Language": "ja"}}]}, "one variant"),
        # The rest of the path of the API: this one would activate a version of the service.
        ({"urls": [f"https://x.example.com/../../service/{SERVICE}/version/1/activate"]}, "as a segment"),
        ({"urls": ["https://example.com/%2E%2e/x"]}, "as a segment"),
        ({"urls": ["https://example.com/."]}, "as a segment"),
        ({"urls": ["https://鉄.example.com/"]}, "must be ASCII"),
        ({"urls": ["https://example.com/%e9%89%84"]}, "upper-case"),
        ({"urls": ["https://example.com/%7Euser"]}, "upper-case"),
        ({"urls": ["https://example.com/100%"]}, "upper-case"),
        ({"urls": ["https://user:pw@example.com/"]}, "without credentials"),
        ({"tags": ["with blank"]}, "printable ASCII"),
        ({"tags": ["x" * 1025]}, "printable ASCII"),
        ({}, "purge_cache requires"),
    ],
    ids=repr,
)
def test_what_fastly_cannot_purge_is_refused_with_the_reason(
    make: Any, http_sink: HttpSink, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        make().purge_cache(**options)
    assert http_sink.requests == []
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "asked", "again"),
    [
        ({"Retry-After": "3600"}, 1, 3600),
        ({"Fastly-RateLimit-Remaining": "0", "Fastly-RateLimit-Reset": "{now+900}"}, 1, 900),
        ({"Fastly-RateLimit-Reset": "0"}, 3, 1),
        ({"Fastly-RateLimit-Reset": "9" * 400}, 1, 86_400),
        ({"Fastly-RateLimit-Reset": "soon"}, 3, 30),
        ({}, 3, 30),
    ],
)
def test_a_rate_limit_is_respected(  # noqa: PLR0917 - a row of the table
    make: Any, http_sink: HttpSink, waits: list[float], headers: dict[str, str], asked: int, again: float
) -> None:
    now = FrozenClock().time()
    sent = {name: value.replace("{now+900}", f"{now + 900:.0f}") for name, value in headers.items()}
    http_sink.default = Answer(429, headers=sent, body={"msg": "You have exceeded your hourly rate limit"})
    urls = ["https://example.com/a", "https://example.com/b"]
    result = make().purge_cache(urls)
    assert (result.failed, result.errors) == (
        tuple(urls),
        ("HTTP 429: You have exceeded your hourly rate limit",),
    )
    assert result.retry_after == pytest.approx(again, abs=1)
    assert len(http_sink.requests) == (asked if asked == 1 else 6)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, body={"status": "error"}),
        Answer(200, body=b"<html>maintenance</html>"),
        Answer(200, body=[]),
        Answer(202, body={"status": "ok"}),
        Answer(302, headers={"Location": "https://example.com/"}, body=b""),
    ],
    ids=lambda answer: f"{answer.status}-{answer.encoded()[:20]!r}",
)
def test_only_a_body_that_says_so_is_success(make: Any, http_sink: HttpSink, answer: Answer) -> None:
    http_sink.default = answer
    for options in ({"urls": ["https://example.com/"]}, {"tags": ["a"]}, {"purge_everything": True}):
        assert not make().purge_cache(**options)


def test_a_key_that_the_service_does_not_confirm_has_failed(make: Any, http_sink: HttpSink) -> None:
    http_sink.default = Answer(body={"a": "108-1"})
    result = make().purge_cache(tags=["a", "b"])
    assert (result.ok, result.failed) == (False, ("a", "b"))


def test_a_refused_token_ends_the_work_at_once(make: Any, http_sink: HttpSink) -> None:
    urls = [f"https://example.com/{number}" for number in range(5)]
    result = make(api_token="another-token").purge_cache(urls)
    assert (result.failed, result.retry_after) == (tuple(urls), None)
    assert result.errors == ("HTTP 401: Provided credentials are missing or invalid",)
    assert len(http_sink.requests) == 1


def test_the_deadline_ends_many_requests(make: Any, http_sink: HttpSink) -> None:
    clock = FrozenClock()

    def slow(request: Request) -> Answer:
        clock.advance(4)
        return documented(request)

    http_sink.default = slow
    urls = [f"https://example.com/{number}" for number in range(10)]
    result = make(deadline=10, clock=clock).purge_cache(urls)
    assert (result.done, result.failed) == (tuple(urls[:3]), tuple(urls[3:]))
    assert result.retry_after == 1
    assert len(http_sink.requests) == 3


def test_failed_items_can_be_purged_again(make: Any, http_sink: HttpSink) -> None:
    cdn = make()
    http_sink.answer(Answer(400, body={"msg": "no"}))
    result = cdn.purge_cache(["https://example.com/a"], tags=["t"])
    assert (result.done, result.failed) == (("t",), ("https://example.com/a",))
    assert cdn.purge_items(result.failed_items).done == ("https://example.com/a",)


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("service_id", {"service_id": "../x"}),
        ("service_id", {"service_id": ""}),
        ("service_id", {"service_id": None}),
        ("api_token", {"api_token": "hunter2\r\nX: hunter2"}),
        ("api_token", {"api_token": None}),
        ("soft", {"soft": "yes"}),
        ("timeout", {"timeout": 0}),
        ("deadline", {"deadline": -1}),
        ("sleep", {"sleep": 1}),
        ("base_url", {"base_url": "http://example.com"}),
    ],
)
def test_impossible_parameters_are_refused_without_the_token(parameter: str, options: dict[str, Any]) -> None:
    known = {"service_id": SERVICE, "api_token": TOKEN, **options}
    with pytest.raises(ConfigurationError) as caught:
        FastlyCDN(known.pop("service_id"), **known)
    assert caught.value.parameter == parameter
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))


def test_the_token_is_nowhere(make: Any, http_sink: HttpSink, caplog: pytest.LogCaptureFixture) -> None:
    cdn = make()
    http_sink.default = Answer(400, body={"msg": f"{'x' * 195} Fastly-Key: {TOKEN}"})
    result = cdn.purge_cache(["https://example.com/"])
    assert "hunter2" not in f"{result!r} {cdn!r} {vars(cdn)} {caplog.text}"
    assert "hunter2" not in http_sink.requests[0].path


def test_one_call_invalidates_a_tag_in_the_cache_and_in_fastly(make: Any, http_sink: HttpSink) -> None:
    cache = MemoryCache()
    cache.set("page", "old", tags=["articles"])
    assert TagInvalidator(cache, cdn=make()).invalidate(["articles"]).done == ("articles",)
    assert cache.get("page") is None
    assert [request.json() for request in http_sink.requests] == [{"surrogate_keys": ["articles"]}]
