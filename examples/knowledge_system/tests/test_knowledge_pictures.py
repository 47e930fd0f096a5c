"""The pictures of the README: made by this run, and those in the tree are the ones it makes.

``MKS_SCREENSHOTS=examples/knowledge_system/pictures`` makes the ones in the tree anew.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import delete, insert

from knowledge_browser import sign_in, sign_out
from knowledge_system.models import Sample
from knowledge_system.services.operations.metric_counts import MetricCounts
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.db import hardened_engine
from mks_hardening.security import totp_code

EXAMPLE = Path(__file__).parents[1]
NAMED = re.compile(r"!\[([^\]]+)\]\(pictures/([a-z-]+)\.webp\)")
SIZES = {
    "list": (1280, 800),
    "article": (1280, 800),
    "editor": (390, 844),
    "figures": (1280, 800),
    "second-factor": (1280, 560),
}
MOST_BYTES = 400 * 1024


def named() -> dict[str, str]:
    """The pictures that the README names, and what it says instead of them."""
    text = (EXAMPLE / "README.md").read_text("utf-8")
    return {name: instead for instead, name in NAMED.findall(text)}


def test_the_readme_shows_every_picture_and_says_what_it_shows() -> None:
    assert named().keys() == SIZES.keys()
    assert min(len(instead) for instead in named().values()) > 20
    files = list((EXAMPLE / "pictures").iterdir())
    assert {file.name for file in files} == {f"{name}.webp" for name in SIZES}
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    for name, size in SIZES.items():
        with Image.open(EXAMPLE / "pictures" / f"{name}.webp") as picture:
            assert picture.size == size


@contextmanager
def an_hour_of_traffic(folder: Path) -> Iterator[None]:
    """Made up: a demonstration that has just begun has nothing to draw."""
    engine = hardened_engine(f"sqlite:///{folder / 'knowledge.db'}")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = []
    for minute in range(60):
        counts = MetricCounts()
        for number in range(30 + (minute * 7) % 40):
            counts.request(500 if (minute, number) == (37, 3) else 200, 4 + (number * minute) % 60)
        counts.cache.update({"hit": 60 + minute % 20, "miss": 10 + (minute * 3) % 9})
        at = now - timedelta(minutes=minute)
        rows.append({"at": at, "process": "a picture", "counts": counts.as_json()})
    with engine.begin() as connection:
        connection.execute(insert(Sample), rows)
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(delete(Sample).where(Sample.process == "a picture"))
        engine.dispose()


@pytest.mark.chromium
@pytest.mark.timeout(300)
def test_the_run_makes_every_picture_of_the_readme(
    shared_demo: Any, open_page: Callable[..., Any], pictures: Path
) -> None:
    def take(page: Any, name: str) -> None:
        width, height = SIZES[name]
        page.set_viewport_size({"width": width, "height": height})
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            picture.save(pictures / f"{name}.webp", quality=82, method=6)

    page = open_page()
    sign_in(page, shared_demo.url, "ito")
    take(page, "list")
    page.click("text=強風・大雨のあとの足場点検")
    page.wait_for_selector(".prose")
    take(page, "article")
    page.goto(f"{page.url}/edit")
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("document.querySelector('label[for=body]').scrollIntoView({block: 'start'})")
    take(page, "editor")

    english = open_page(locale="en-US")
    sign_in(english, shared_demo.url, "ito")
    with an_hour_of_traffic(shared_demo.folder):
        english.goto(f"{shared_demo.url}/admin/operations")
        take(english, "figures")

    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{shared_demo.url}/account/second-factor")
    page.click("text=設定を始める")
    secret = page.inner_text("#secret").replace(" ", "")
    page.fill("#code", totp_code(secret))
    page.click("text=有効にする")
    page.wait_for_selector(".codes code")
    codes = page.locator(".codes code").all_inner_texts()
    sign_out(page)
    page.wait_for_url("**/sign-in?done=signed-out")
    page.fill("#username", "ito")
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_selector("#code")
    take(page, "second-factor")
    page.fill("#code", codes[0])
    page.click("main button.primary")
    page.wait_for_url("**/")
    page.goto(f"{shared_demo.url}/account/second-factor")
    page.fill("#code", codes[1])
    page.click("text=無効にする >> nth=-1")
    page.wait_for_selector("text=二段階認証を無効にしました")

    assert {file.stem for file in pictures.glob("*.webp")} == named().keys()
