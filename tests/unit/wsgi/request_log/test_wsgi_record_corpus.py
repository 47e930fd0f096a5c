from __future__ import annotations

import logging
from typing import Any

import pytest

from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import ProxyTrust, RequestLoggingMiddleware
from wsgi_record_corpus import faults_of, load_cases

CASES = load_cases()


def ours(app: Any, logger: logging.Logger, clock: FrozenClock, options: dict[str, Any]) -> Any:
    options = dict(options)
    proxies = options.pop("trusted_proxies", None)
    trust = ProxyTrust(proxies) if proxies else None
    return RequestLoggingMiddleware(app, logger=logger, trust=trust, clock=clock, **options)


def test_the_corpus_is_as_broad_as_promised() -> None:
    assert len(CASES) >= 90
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    assert faults_of(case, ours) == []
