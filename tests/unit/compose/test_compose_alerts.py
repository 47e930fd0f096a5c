"""Which records become alerts."""

from __future__ import annotations

import logging

import pytest

from mks_hardening.compose import _is_news


@pytest.mark.parametrize(
    ("name", "outcome", "result"),
    [
        ("shop", None, True),
        ("mks_hardening.request", "error", True),
        ("mks_hardening.request", "ok", False),
        ("mks_hardening.request", "aborted", False),
        ("mks_hardening.slow_query", None, True),
    ],
)
def test_one_failed_request_is_one_alert(name: str, outcome: str | None, result: bool) -> None:
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, "failed", None, None)
    if outcome is not None:
        record.outcome = outcome
    assert _is_news(record) is result
