"""The fault table of the load test: figures of requests, and the comparison with what is promised."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import fault_report, plots
from bench.fault_report import Figures, Promise, figures
from bench.outages import Moment
from bench.proxy_process import ProxyProcess
from testbed.http_sink import HttpSink

PARTS = {"calm": 0.0, "began": 10.0, "ended": 20.0}
GOOD = Figures(1.0, Counter(good=50), 10, 20, 30, 0)


def steady(start: int, end: int, result: str = "good", seconds: float = 0.125) -> list[Moment]:
    """Ten requests a second."""
    return [Moment(n / 10, n / 10 + seconds, result) for n in range(10 * start, 10 * end)]


def test_nothing_happens() -> None:
    found = figures(steady(0, 30), **PARTS)
    assert found.rate == pytest.approx(1, abs=0.03)
    assert (round(found.p50), round(found.p95), round(found.longest), found.recovery) == (125, 125, 125, 0)
    assert found.results == Counter(good=201)  # one was under way when the fault began
    assert fault_report.broken(found, Promise()) == []


def test_refusals_count_against_the_rate_alone() -> None:
    found = figures([*steady(0, 10), *steady(10, 15, "refused"), *steady(15, 30)], **PARTS)
    assert found.rate == pytest.approx(0.5, abs=0.03)
    assert found.results == Counter(good=151, refused=50)
    assert fault_report.broken(found, Promise()) == [f"rate {found.rate:.2f}"]


@pytest.mark.parametrize(
    ("late", "recovery"),
    [
        (Moment(21, 21.1, "refused"), 1.1),
        (Moment(21, 22.5, "good"), 2.5),  # slow
        (Moment(12, 20.2, "good"), 0),  # waited for the end of the fault, and came soon after it
        (Moment(12, 21.4, "good"), 1.4),
        (Moment(12, 19.0, "failed"), 0),  # before the end
        (Moment(25, 40.0, "unanswered"), 20),
    ],
)
def test_recovery_is_the_last_response_that_was_not_as_before(late: Moment, recovery: float) -> None:
    assert figures([*steady(0, 30), late], **PARTS).recovery == pytest.approx(recovery)


def test_no_response_at_all_keeps_no_promise() -> None:
    found = figures(steady(0, 10), **PARTS)
    assert fault_report.broken(found, Promise())[1:] == ["p95 inf ms", "longest inf ms"]


def test_a_request_under_way_when_the_fault_begins_belongs_to_it() -> None:
    found = figures([*steady(0, 30), Moment(9.9, 10.1, "unanswered")], **PARTS)
    assert fault_report.broken(found, Promise()) == ["1 unanswered"]


def test_errors_before_the_fault_are_reported() -> None:
    found = figures([*steady(0, 30), Moment(5, 5.1, "failed")], **PARTS)
    assert fault_report.broken(found, Promise()) == ["1 failed before"]


@pytest.mark.parametrize(
    ("changes", "promise", "words"),
    [
        ({}, Promise(), []),
        ({"rate": 0.89}, Promise(), ["rate 0.89"]),
        ({"rate": 0.89}, Promise(rate=0.5), []),
        ({"p95": 301}, Promise(), ["p95 301 ms"]),
        ({"p95": 301}, Promise(p95=5000), []),
        ({"longest": 1001}, Promise(), ["longest 1001 ms"]),
        ({"longest": 1001}, Promise(p95=5000), []),
        ({"recovery": 2.1}, Promise(), ["recovery 2.1 s"]),
        ({"results": Counter(unanswered=2)}, Promise(), ["2 unanswered"]),
        ({"results": Counter(unanswered=2)}, Promise(unanswered=2), []),
        ({"results": Counter({"signed out": 1})}, Promise(), ["1 signed out"]),
        ({"results": Counter({"signed out": 1})}, Promise(signed_out=True), []),
        (
            {"results": Counter(failed=1, wrong=2), "lost": 3},
            Promise(rate=0),
            ["1 failed", "2 wrong", "3 lost"],
        ),
    ],
)
def test_each_broken_promise_is_named(changes: dict[str, Any], promise: Promise, words: list[str]) -> None:
    assert fault_report.broken(replace(GOOD, **changes), promise) == words


def test_the_report_and_the_plot_name_every_row() -> None:
    rows = [
        ("calm", GOOD, Promise()),
        ("slow", replace(GOOD, p95=301), Promise()),
        ("documented", replace(GOOD, rate=0.0), Promise(rate=0, page="explanation/failure.md")),
    ]
    text = fault_report.report("setting", rows, ["1 mails lost"])
    assert "| calm | 1.00 | 10 / 20 / 30 | 0 | 0 | 0 | 0 | 0.0 |  | yes |" in text
    assert "**no: p95 301 ms**" in text
    assert "../../../docs/en/explanation/failure.md" in text
    assert "- **1 mails lost**" in text
    plot = plots.faults_plot(rows)
    assert all(f">{name}</text>" in plot for name, *_ in rows)


# --- the proxy


def test_a_proxy_in_another_process_does_what_it_is_told() -> None:
    sink = HttpSink()
    sink.start()
    proxy = ProxyProcess(sink.port)

    def ask() -> int:
        return requests.get(proxy.through(f"http://127.0.0.1:{sink.port}/"), timeout=10).status_code

    try:
        assert ask() == 200
        proxy.refuse()
        with pytest.raises(requests.ConnectionError, match="refused"):
            ask()
        proxy.heal()
        assert ask() == 200
        proxy.change(mode="reset")
        with pytest.raises(requests.ConnectionError, match="reset"):
            ask()
    finally:
        proxy.close()
        sink.stop()
