"""The query in the request record."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._edge.request_log.query import LONGEST_QUERY, QueryText
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import RequestLoggingMiddleware

WSGI_ONLY: set[str] = set()


def application(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


def test_a_long_query_is_cut_at_a_parameter(caplog: pytest.LogCaptureFixture) -> None:
    query = "&".join(f"p{number}=1&token=hunter2" for number in range(20_000))
    with caplog.at_level(logging.INFO, "mks_hardening.request"):
        call_wsgi(RequestLoggingMiddleware(application), query=query)
    shown = vars(caplog.records[0])["query"]
    assert shown.startswith("p0=1&token=")
    assert shown.endswith("&...")
    assert "hunter2" not in shown
    assert len(shown) < 2 * LONGEST_QUERY


@pytest.mark.parametrize("more", ["", "&" + "x" * LONGEST_QUERY])
def test_names_that_came_as_bytes_are_known(more: str) -> None:
    query = "パスワード=hunter2&誰=bob".encode().decode("latin-1") + more
    assert QueryText(default_redactor().redact_query)(query).startswith("パスワード=[REDACTED]&誰=bob")


def test_redaction_never_sees_more_than_the_bound() -> None:
    seen: list[str] = []
    shown = QueryText(lambda query: seen.append(query) or query)  # type: ignore[func-returns-value]
    assert shown("token=" + "x" * 300_000) == "..."
    assert shown("a=1&token=" + "x" * 300_000) == "a=1&..."
    assert max(map(len, seen)) <= LONGEST_QUERY


@given(st.lists(st.sampled_from(["a=1", "token=hunter2", "b", "x" * 900, ""]), max_size=8).map("&".join))
def test_what_is_remembered_is_what_redaction_says(query: str) -> None:
    def redact(text: str) -> str:
        return text.replace("hunter2", "*")

    shown = QueryText(redact)
    first = shown(query)
    assert shown(query) == first
    assert "hunter2" not in first
    assert not any("hunter2" in known for known in shown._harmless)


def test_what_is_remembered_is_bounded() -> None:
    shown = QueryText(str)
    for number in range(5000):
        shown(f"page={number}")
    assert len(shown._harmless) <= 1024
