"""The built site in a browser: alone, on a phone, by keyboard, in the dark and for a screen reader."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

DOCS = Path(__file__).parents[2] / "docs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chromium,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (DOCS / "conf.py").exists(), reason="the documentation is not part of the wheel"),
    pytest.mark.skipif(find_spec("sphinx") is None, reason="Sphinx is not installed"),
]

PHONE = {"width": 390, "height": 844}
TABLET = {"width": 768, "height": 1024}
DESK = {"width": 1280, "height": 900}
# One of each kind: lists, prose with code, a drawing, definitions, docstrings with examples, the search.
KINDS = [
    *("index", "tutorial/flask", "explanation/architecture", "reference/log-fields"),
    *("reference/api/compose", "search"),
]
# What reaches beyond the window, in no box that can be moved; the theme keeps the width of the page as it is.
CUT_OFF = """() => [...document.querySelectorAll("article *")].filter((element) => {
    const moves = (box) => ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    const box = element.getBoundingClientRect();
    if (box.width === 0 || box.right <= innerWidth + 1) return false;
    for (let around = element; around.tagName !== "ARTICLE"; around = around.parentElement)
        if (moves(around)) return false;
    return true;
}).map((element) => element.outerHTML.slice(0, 120))"""
FOCUSED = """() => {
    const box = document.activeElement.getBoundingClientRect();
    const shown = box.width > 0 && box.left >= 0 && box.right <= innerWidth && box.top < innerHeight;
    return [document.activeElement.lang || document.activeElement.name || "", shown];
}"""


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_page_fits_a_phone_and_asks_no_other_host(
    built_docs: Path, served_docs: str, browser: Any, language: str
) -> None:
    others: list[str] = []
    wide: list[str] = []
    errors: list[str] = []
    with browser.new_context(viewport=PHONE) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(f"{page.url}: {error}"))
        page.on(
            "request",
            lambda request: others.append(request.url) if not request.url.startswith(served_docs) else None,
        )
        for file in sorted((built_docs / language).rglob("*.html")):
            name = file.relative_to(built_docs)
            page.goto(f"{served_docs}/{name}")
            if page.evaluate("document.scrollingElement.scrollWidth") > PHONE["width"]:
                wide.append(f"{name}: the page")
            wide += [f"{name}: {element}" for element in page.evaluate(CUT_OFF)]
        page.evaluate("document.querySelector('article').insertAdjacentHTML('beforeend', '<p id=wide>x</p>')")
        page.evaluate("document.querySelector('#wide').style.width = '600px'")
        assert page.evaluate(CUT_OFF) == ['<p id="wide" style="width: 600px;">x</p>']
    assert (others, wide, errors) == ([], [], [])


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [(DESK, "light"), (TABLET, "light"), (PHONE, "dark")],
    ids=["desk", "tablet", "phone"],
)
def test_axe_finds_nothing(served_docs: str, browser: Any, viewport: dict[str, int], scheme: str) -> None:
    axe = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
    found: list[str] = []
    with browser.new_context(viewport=viewport, color_scheme=scheme) as context:
        page = context.new_page()
        for name in [f"{language}/{kind}" for language in ("en", "ja") for kind in KINDS]:
            page.goto(f"{served_docs}/{name}.html")
            page.evaluate(axe)
            report = page.evaluate("axe.run({resultTypes: ['violations']})")
            found += [
                f"{name}: {fault['id']} ({fault['impact']}): {node['html'][:200]}"
                for fault in report["violations"]
                for node in fault["nodes"]
            ]
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert found == []
    assert dark == (scheme == "dark")
    assert (sum(map(int, background[4:-1].split(","))) < 3 * 128) == dark


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize(("language", "other"), [("en", "ja"), ("ja", "en")])
def test_the_keyboard_reaches_language_and_search_and_the_page_stays(
    served_docs: str, browser: Any, viewport: dict[str, int], language: str, other: str
) -> None:
    def tab_to(page: Any, wanted: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED)[0] == wanted:
                page.wait_for_function(f"({FOCUSED})()[1]")  # the drawer of a phone slides in
                return
        raise AssertionError(f"{wanted} is not among the first twelve")

    with browser.new_context(viewport=viewport) as context:
        page = context.new_page()
        page.goto(f"{served_docs}/{language}/how-to/observe.html")
        tab_to(page, other)
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert urlsplit(page.url).path == f"/{other}/how-to/observe.html"
        assert page.get_attribute("html", "lang") == other
        tab_to(page, "q")
        page.keyboard.type("MKS_STORE_BUDGET")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.wait_for_selector("#search-results li a")
        assert urlsplit(page.url).path == f"/{other}/search.html"
