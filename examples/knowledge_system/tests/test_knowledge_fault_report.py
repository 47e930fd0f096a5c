"""The fault table of the load test: figures of requests, and the comparison with what is promised."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import fault_report, plots
from bench.fault_report import Figures, Promise, figures
from bench.outages import Moment

PARTS = {"calm": 0.0, "began": 10.0, "ended": 20.0}
GOOD = Figures(1.0, Counter(good=50), 10, 20, 0)


def steady(start: int, end: int, result: str = "good", seconds: float = 0.125) -> list[Moment]:
    """Ten requests a second."""
    return [Moment(n / 10, n / 10 + seconds, result) for n in range(10 * start, 10 * end)]


def test_nothing_happens() -> None:
    found = figures(steady(0, 30), **PARTS)
    assert found.rate == pytest.approx(1, abs=0.03)
    assert (round(found.p50), round(found.p99), found.recovery) == (125, 125, 0)
    assert found.results == Counter(good=200)
    assert fault_report.broken(found, Promise()) == []


def test_refusals_count_against_the_rate_alone() -> None:
    found = figures([*steady(0, 10), *steady(10, 15, "refused"), *steady(15, 30)], **PARTS)
    assert found.rate == pytest.approx(0.5, abs=0.03)
    assert found.results == Counter(good=150, refused=50)
    assert fault_report.broken(found, Promise()) == [f"rate {found.rate:.2f}"]


@pytest.mark.parametrize(
    ("late", "recovery"),
    [
        (Moment(21, 21.1, "refused"), 1.1),
        (Moment(21, 21.5, "good"), 1.5),  # slow
        (Moment(12, 20.2, "good"), 0),  # waited for the end of the fault, and came soon after it
        (Moment(12, 20.4, "good"), 0.4),
        (Moment(12, 19.0, "failed"), 0),  # before the end
        (Moment(25, 40.0, "unanswered"), 20),
    ],
)
def test_recovery_is_the_last_response_that_was_not_as_before(late: Moment, recovery: float) -> None:
    assert figures([*steady(0, 30), late], **PARTS).recovery == pytest.approx(recovery)


def test_no_response_at_all_keeps_no_promise() -> None:
    found = figures(steady(0, 10), **PARTS)
    assert fault_report.broken(found, Promise())[1:] == ["p99 inf ms"]


def test_errors_before_the_fault_are_reported() -> None:
    found = figures([*steady(0, 30), Moment(5, 5.1, "failed")], **PARTS)
    assert fault_report.broken(found, Promise()) == ["1 failed before"]


@pytest.mark.parametrize(
    ("changes", "promise", "words"),
    [
        ({}, Promise(), []),
        ({"rate": 0.89}, Promise(), ["rate 0.89"]),
        ({"rate": 0.89}, Promise(rate=0.5), []),
        ({"p99": 301}, Promise(), ["p99 301 ms"]),
        ({"p99": 301}, Promise(p99=5000), []),
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
        ("slow", replace(GOOD, p99=301), Promise()),
        ("documented", replace(GOOD, rate=0.0), Promise(rate=0, page="explanation/failure.md")),
    ]
    text = fault_report.report("setting", rows, ["1 mails lost"])
    assert "| calm | 1.00 | 10 / 20 | 0 | 0 | 0 | 0 | 0.0 |  | yes |" in text
    assert "**no: p99 301 ms**" in text
    assert "../../../docs/en/explanation/failure.md" in text
    assert "- **1 mails lost**" in text
    plot = plots.faults_plot(rows)
    assert all(f">{name}</text>" in plot for name, *_ in rows)
