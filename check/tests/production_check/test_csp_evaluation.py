"""What a policy keeps from a browser, in the table that a real browser confirms (``tests/integration``)."""

from __future__ import annotations

import pytest

from csp_pages import CASES, SANDBOXED, SITE, Case
from mks_check.production_check.csp_evaluation import evaluate_page
from tables import faulty_rows


def _wrong(case: Case) -> object:
    found = {
        (each.directive, each.source) for each in evaluate_page(case.policies, case.url, case.html).blocked
    }
    return found ^ case.blocked


def test_pages_are_judged_as_a_browser_judges_them() -> None:
    assert faulty_rows(CASES, _wrong) == {}


@pytest.mark.parametrize(
    ("policy", "tags"),
    [
        ("sandbox", {"script", "form"}),
        ("sandbox allow-scripts", {"form"}),
        ("sandbox allow-forms", {"script"}),
        ("sandbox allow-forms allow-scripts", set()),
    ],
)
def test_a_sandbox_runs_and_sends_nothing_without_permission(policy: str, tags: set[str]) -> None:
    assert {each.tag for each in evaluate_page([policy], SITE, SANDBOXED).blocked} == tags


def test_an_element_is_named_once_with_its_address() -> None:
    found = evaluate_page(["img-src 'none'"], SITE, "<img src=b.png>" * 3).blocked
    assert [each[:3] for each in found] == [("img", "img-src", "https://shop.example.jp/a/b.png")]


@pytest.mark.parametrize(
    "html", ["<", "<script", "<style>p", "<img src='", "</textarea><img>", "<a" * 9000, "\0"]
)
def test_broken_pages_are_no_error(html: str) -> None:
    assert evaluate_page(["default-src 'none'"], SITE, html).blocked == {}
