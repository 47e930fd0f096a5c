"""The table of RFC 9111, RFC 9110 and RFC 5861 through both shells."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.cache import MemoryCache
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware
from tables import faulty_rows

WSGI_ONLY: set[str] = set()
TABLE = Path(__file__).parents[3] / "corpus" / "wsgi" / "response_cache.jsonl"
CASES = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]


class TableApp:
    """An application that does what the step of a case says."""

    def __init__(self) -> None:
        self.script: dict[str, Any] = {"headers": []}
        self.calls = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        self.calls += 1
        for name, value in self.script.get("sees", {}).items():
            assert environ.get("HTTP_" + name.upper().replace("-", "_")) == value
        if self.script.get("raises"):
            raise OSError("of the application")
        status = self.script.get("status", 200)
        content = [] if status in {204, 304} else [("Content-Type", "text/plain")]
        start_response(f"{status} Status", [*content, *map(tuple, self.script["headers"])])
        return self.pieces()

    def pieces(self) -> Iterator[bytes]:
        body = self.script.get("body", f"answer {self.calls}")
        for piece in body if isinstance(body, list) else [body]:
            yield piece.encode()
        if self.script.get("breaks"):
            raise OSError("of the application")


def test_every_case_of_the_table() -> None:
    assert faulty_rows(CASES, _check_case, name=lambda case: case["id"]) == {}


def _check_case(case: dict[str, Any]) -> None:
    app, clock = TableApp(), FrozenClock()
    rule = CacheRule("/*", **{"ttl": 60, **case.get("rule", {})})
    stack: Any = ResponseCacheMiddleware(
        app, cache=MemoryCache(clock=clock, jitter=0), rules=[rule], clock=clock, max_body=1000
    )
    for number, step in enumerate(case["steps"], 1):
        clock.advance(step.get("after", 0))
        app.script = step.get("app", app.script)
        _check(stack, app, step, f"{case['id']}, step {number}: {case['why']}")


def _check(stack: Any, app: TableApp, step: dict[str, Any], where: str) -> None:
    expected, request = step["expect"], {"path": "/page", **step.get("request", {})}
    request["body"] = request.get("body", "").encode()
    if request.pop("unchecked", False):
        found = _unchecked(stack)
        assert (found, app.calls) == (expected["status"], expected["calls"]), where
        return
    if expected.get("raises"):
        with pytest.raises(OSError, match="of the application"):
            call_wsgi(stack, **request)
        return
    answer = call_wsgi(stack, **request)
    assert (answer.status, app.calls) == (expected["status"], expected["calls"]), where
    if "body" in expected:
        assert answer.body == expected["body"].encode(), where
    for name, value in expected.get("headers", {}).items():
        assert answer.header(name) == value, where
    for name in expected.get("absent", []):
        assert answer.header(name) is None, where


def _unchecked(stack: Any) -> int:
    """Without the validator, which refuses a body that is shorter than declared."""
    heads: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/page",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    body = stack(environ, lambda status, *_: heads.append(status) or bytes)
    b"".join(body)
    getattr(body, "close", list)()
    return int(heads[0][:3])
