from __future__ import annotations

import logging
from operator import itemgetter
from typing import Any

import pytest

from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import ProxyTrust, RequestLoggingMiddleware
from tables import faulty_rows
from wsgi_record_corpus import faults_of, load_cases

CASES = load_cases()


def without_wsgi(case: dict[str, Any]) -> dict[str, Any] | None:
    """The case for ASGI; ``None`` if it is about files, ``write``, ``close`` or iterables of WSGI."""
    app, expect = case.get("app", {}), case["expect"]
    of_wsgi = app.get("body") == "file" or {"writes", "restart"} & app.keys() or case.get("read") == "none"
    if of_wsgi or "close" in (app.get("raises", {}).get("at"), *app.get("takes", {})):
        return None
    answer = {name: value for name, value in expect.get("answer", {}).items() if name != "length"}
    record = dict(expect.get("record", {}))
    if "read" in case:  # servers do not say when a client has left, only that it has
        record = {name: value for name, value in record.items() if name not in ("bytes", "duration_ms")}
    if app.get("raises", {}).get("error") in ("SystemExit", "KeyboardInterrupt"):
        record.pop("status", None)  # nothing was sent before it, not even the head
    return {**case, "expect": {**expect, "answer": answer, "record": record}}


OVER_ASGI = [case for case in map(without_wsgi, CASES) if case is not None]


def ours(app: Any, logger: logging.Logger, clock: FrozenClock, options: dict[str, Any]) -> Any:
    options = dict(options)
    proxies = options.pop("trusted_proxies", None)
    trust = ProxyTrust(proxies) if proxies else None
    return RequestLoggingMiddleware(app, logger=logger, trust=trust, clock=clock, **options)


def test_the_corpus_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 90
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_each_case() -> None:
    assert faulty_rows(CASES, lambda case: faults_of(case, ours), name=itemgetter("name")) == {}


@pytest.mark.parametrize("shell", ["asgi", "asgi-odd"], indirect=True)
def test_each_case_over_asgi(shell: str) -> None:
    assert faulty_rows(OVER_ASGI, lambda case: faults_of(case, ours), name=itemgetter("name")) == {}
