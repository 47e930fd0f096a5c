"""The demonstration in a real browser: what only a browser shows.

``MKS_SCREENSHOTS=FOLDER`` saves pictures to look at.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Callable, Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from knowledge_browser import SMALL, fits, says, sign_in, sign_out
from knowledge_system import models
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.db import hardened_engine
from testbed.polling import wait_until

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]


def test_trouble_and_its_traces_for_the_administrator(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "ito")
    page.goto(f"{shared_demo.url}/diagnostics")
    page.click("text=遅い SQL を実行")
    page.wait_for_url("**done=slow-query")
    page.goto(f"{shared_demo.url}/diagnostics")
    page.click("text=エラーを起こす")
    says(page, "h1", "処理中に問題が発生しました")
    keep_picture(page, "11-error")
    number = page.inner_text(".error-page code")
    for _ in range(100):
        page.goto(f"{shared_demo.url}/sink")
        if page.locator(".messages li").count() >= 2:
            break
        page.wait_for_timeout(100)
    says(page, "main", number)
    keep_picture(page, "12-sink", full_page=True)
    page.goto(f"{shared_demo.url}/diagnostics?request_id={number}")
    keep_picture(page, "13-diagnostics", full_page=True)
    page.goto(f"{shared_demo.url}/admin/accounts")
    keep_picture(page, "14-accounts", full_page=True)


def without_server_drafts(page: Any) -> None:
    """Keep drafts in the tab only."""
    page.route("**/api/drafts/**", lambda route: route.abort())


def without_activity(page: Any) -> None:
    """Keep back what an editor sends by itself: sent after the clock was moved, it would extend the session."""
    without_server_drafts(page)
    page.route("**/articles/preview", lambda route: route.abort())


def test_the_dialog_before_the_end_and_the_draft_that_survives_it(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page, operator = open_page(), open_page()
    sign_in(page, shared_demo.url, "tanaka")
    sign_in(operator, shared_demo.url, "ito")

    def advance(seconds: int) -> None:
        operator.goto(f"{shared_demo.url}/diagnostics")
        operator.fill("#advance", str(seconds))
        operator.click("form[action='/diagnostics/clock'] button")
        operator.wait_for_url("**done=clock-moved")

    page.clock.install()
    without_activity(page)
    page.goto(f"{shared_demo.url}/articles/new")
    page.fill("#title", "書きかけの記事")
    page.fill("#body", "途中まで")
    advance(1700)
    assert not page.locator("#session-dialog").is_visible()
    page.clock.fast_forward(1_690_000)
    page.wait_for_selector("#session-dialog[open]")
    keep_picture(page, "15-dialog")
    page.click("#session-dialog .primary")
    page.wait_for_selector("#session-dialog:not([open])", state="attached")

    operator.goto(f"{shared_demo.url}/articles")
    advance(1700)
    operator.goto(f"{shared_demo.url}/articles")
    advance(200)
    page.click("main button.primary >> nth=0")
    page.wait_for_url("**/sign-in?reason=idle*")
    says(page, "main", "操作がなかったため")
    keep_picture(page, "16-ended")
    sign_in(page, shared_demo.url, "tanaka")
    page.goto(f"{shared_demo.url}/articles/new")
    assert page.input_value("#title") == "書きかけの記事"
    says(page, "main", "まだ保存されていません")


@pytest.mark.parametrize("scripts", [True, False])
def test_on_a_telephone_the_first_article_begins_at_the_top(
    shared_demo: Any, open_page: Callable[..., Any], *, scripts: bool
) -> None:
    for language in ("ja-JP", "en-US"):
        page = open_page(locale=language, viewport={"width": 390, "height": 844}, java_script_enabled=scripts)
        sign_in(page, shared_demo.url, "ito")  # who administers has the longest menu
        for path in ("/articles", "/articles?q=養生", "/articles?category=土工&sort=confirmed"):
            page.goto(f"{shared_demo.url}{path}")
            first = page.locator(".articles > li").first.bounding_box()
            assert first["y"] <= 400, (language, path)
            assert page.locator("button:has-text('適用'), button:has-text('Apply')").is_visible() != scripts


def test_filters_apply_as_they_change_and_keep_the_focus(
    shared_demo: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page(viewport={"width": 390, "height": 844})
    sign_in(page, shared_demo.url, "kobayashi")
    everything = page.inner_text(".count")
    page.click("text=絞り込み")
    page.select_option("[name=category]", "足場")
    page.wait_for_url("**/articles?category=*")
    says(page, "h1", "足場")
    assert set(page.locator(".kicker").all_inner_texts()) == {"足場"}
    assert page.inner_text(".count") != everything
    page.fill("[name=tag]", "点検")
    page.press("[name=tag]", "Tab")
    page.wait_for_url("**&tag=*")
    says(page, ".active-filters", "#点検")
    assert page.evaluate("document.activeElement.name") == "author"  # the form is as it was
    page.select_option("[name=sort]", "confirmed")
    page.wait_for_url("**sort=confirmed**")
    page.fill("[name=since]", "1800-01-01")  # refused by the browser, and not sent
    page.press("[name=since]", "Tab")
    assert "since" not in page.url
    page.go_back()
    page.wait_for_load_state()
    says(page, ".active-filters", "#点検")
    assert "sort" not in page.url


def test_reading_and_forms_without_javascript_and_on_a_telephone(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page(java_script_enabled=False)
    page.set_viewport_size({"width": 390, "height": 844})
    sign_in(page, shared_demo.url, "kobayashi")
    keep_picture(page, "17-telephone-list")
    page.click(".articles h2 a >> nth=0")
    page.wait_for_selector(".prose")
    keep_picture(page, "18-telephone-article")
    page.fill("#body", "電話から")
    page.click("text=投稿する")
    says(page, ".comments", "電話から")
    sign_out(page)
    page.wait_for_url("**/sign-in?done=signed-out")


class HeldReport:
    """A report of somebody that is being written, as slowly as a test wants: this test is its worker."""

    def __init__(self, folder: Path, username: str) -> None:
        self.engine = hardened_engine(f"sqlite:///{folder / 'knowledge.db'}")
        self.id = secrets.token_hex(16)
        with self.engine.begin() as connection:
            owner = connection.execute(select(models.User.id).where(models.User.username == username))
            connection.execute(
                insert(models.tasks).values(
                    id=self.id,
                    name="reports.write",
                    arguments='[["monthly","2025-11","pdf",""],{}]',
                    context="{}",
                    state="running",
                    queue="default",
                    priority=1,
                    due_at=time.time() + 3600,
                    created_at=time.time(),
                    owner="f" * 32,
                    user_id=str(owner.scalar_one()),
                )
            )

    def set(self, **values: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(update(models.tasks).where(models.tasks.c.id == self.id).values(**values))


def test_a_report_is_followed_cancelled_made_and_downloaded(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None], tmp_path: Path
) -> None:
    page = open_page(accept_downloads=True)
    sign_in(page, shared_demo.url, "suzuki")
    held = HeldReport(shared_demo.folder, "suzuki")
    page.goto(f"{shared_demo.url}/reports/{held.id}")
    says(page, "[data-stage]", "順番を待っています")
    held.set(progress=0.42, stage="ページに割り付けています")
    says(page, "[data-stage]", "ページに割り付けています")  # by events, without loading the page again
    assert page.inner_text("[data-percent]") == "42"
    keep_picture(page, "19-report-progress", full_page=True)
    page.click("text=中止する")
    page.wait_for_selector("button[disabled]:has-text('中止しています')")
    held.set(state="cancelled", due_at=None, owner=None, finished_at=time.time())
    says(page, "h1", "中止しました")
    held.engine.dispose()

    page.click("nav a:has-text('レポート') >> nth=0")
    page.select_option("#month", "2025-11")
    page.click("#by-month button:has-text('PDF')")
    with page.expect_download() as waiting:
        page.click("text=ダウンロード")
    file = tmp_path / "report.pdf"
    waiting.value.save_as(file)
    assert file.read_bytes().startswith(b"%PDF")
    assert waiting.value.suggested_filename == "月次ナレッジレポート_2025年11月.pdf"
    keep_picture(page, "20-report-done", full_page=True)
    page.goto(f"{shared_demo.url}/reports")
    keep_picture(page, "21-reports", full_page=True)


def test_the_queue_as_the_administrator_sees_it(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "ito")
    held = HeldReport(shared_demo.folder, "ito")
    held.set(state="dead", error="ValueError: broken", due_at=None, owner=None, finished_at=time.time())
    held.engine.dispose()
    page.goto(f"{shared_demo.url}/admin/tasks?state=dead")
    says(page, "main", "ValueError: broken")
    keep_picture(page, "22-tasks", full_page=True)
    page.click(f"tr:has-text('{held.id}') >> text=再実行")
    says(page, "main", "もう一度実行します")
    page.goto(f"{shared_demo.url}/reports/{held.id}")
    page.wait_for_selector("text=ダウンロード")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{shared_demo.url}/admin/tasks")
    assert fits(page)
    keep_picture(page, "23-telephone-tasks", full_page=True)


def test_a_report_without_javascript_on_a_telephone(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page(java_script_enabled=False)
    page.set_viewport_size({"width": 390, "height": 844})
    sign_in(page, shared_demo.url, "yamamoto")
    held = HeldReport(shared_demo.folder, "yamamoto")
    page.goto(f"{shared_demo.url}/reports/{held.id}")
    keep_picture(page, "24-telephone-progress", full_page=True)
    held.set(progress=0.42, stage="ページに割り付けています")
    says(page, "[data-stage]", "ページに割り付けています")  # the page loads itself again
    held.set(state="cancelled", due_at=None, owner=None, finished_at=time.time())
    held.engine.dispose()
    says(page, "h1", "中止しました")
    page.goto(f"{shared_demo.url}/reports")
    keep_picture(page, "25-telephone-reports", full_page=True)
    page.click("#by-site button:has-text('Excel')")
    page.wait_for_selector("text=ダウンロード")
    keep_picture(page, "26-telephone-done", full_page=True)


def test_a_draft_knows_its_writer_and_the_revision_it_was_made_on(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page, other = open_page(), open_page()
    sign_in(page, shared_demo.url, "yamamoto")
    sign_in(other, shared_demo.url, "sato")
    edit = f"{shared_demo.url}/articles/7/edit"
    page.goto(edit)
    page.fill("#summary", "下書きの要約")
    other.goto(edit)
    other.fill("#summary", "先に保存した要約")
    other.click("main form[data-draft] button.primary")
    says(other, "main", "保存しました")
    page.goto(edit)
    assert page.input_value("#summary") == "下書きの要約"
    says(page, "[data-draft-note]", "保存すると違いを表示します")
    page.click("main form[data-draft] button.primary")
    says(page, ".conflict", "違い")
    assert "先に保存した要約" in page.inner_text(".differences")
    keep_picture(page, "27-conflict", full_page=True)
    page.click("text=保存されている内容で編集し直す")
    says(page, "[data-draft-note]", "下書きを")
    page.click("[data-draft-drop]")
    wait_until(lambda: page.evaluate("document.querySelector('#summary')?.value === '先に保存した要約'"))

    page.goto(f"{shared_demo.url}/articles/new")
    page.fill("#title", "他人に見せない下書き")
    sign_out(page)
    page.wait_for_url("**done=signed-out")
    assert page.evaluate("Object.keys(sessionStorage).filter((key) => key.startsWith('draft')).length") == 0
    page.evaluate("sessionStorage.setItem('draft:5:article-new', JSON.stringify({values: {title: 'x'}}))")
    sign_in(page, shared_demo.url, "kobayashi")
    sign_out(page)
    sign_in(page, shared_demo.url, "suzuki")
    page.goto(f"{shared_demo.url}/articles/new")
    # A draft of this person may be there, from another test.
    assert page.input_value("#title") not in {"x", "他人に見せない下書き"}


def test_two_tabs_share_one_end_of_the_session(shared_demo: Any, open_page: Callable[..., Any]) -> None:
    page, operator = open_page(), open_page()
    sign_in(page, shared_demo.url, "suzuki")
    sign_in(operator, shared_demo.url, "ito")
    second = page.context.new_page()
    clock = page.context.clock  # both tabs go by it
    clock.install()
    for tab in (page, second):
        without_activity(tab)
        tab.goto(f"{shared_demo.url}/articles/new")
    page.fill("#title", "書きかけ")

    def advance(seconds: int) -> None:
        operator.goto(f"{shared_demo.url}/diagnostics")
        operator.fill("#advance", str(seconds))
        operator.click("form[action='/diagnostics/clock'] button")
        operator.wait_for_url("**done=clock-moved")

    advance(1700)
    clock.fast_forward(1_690_000)
    for tab in (page, second):
        tab.wait_for_selector("#session-dialog[open]")
    # Put off in one, extended in the other: both are calm.
    second.click("#session-dialog button[value=close]")
    says(second, "#session-bar", "でサインアウトします")
    page.click("#session-dialog .primary")
    for tab in (page, second):
        tab.wait_for_selector("#session-dialog:not([open])", state="attached")
        tab.wait_for_selector("#session-bar[hidden]", state="attached")
    # Warned again, and at the end all tabs stand at the sign-in, which leads back to the text.
    operator.goto(f"{shared_demo.url}/articles")
    advance(1700)
    clock.fast_forward(1_700_000)
    for tab in (page, second):
        tab.wait_for_selector("#session-dialog[open]")
    page.click("#session-dialog button[value=close]")
    operator.goto(f"{shared_demo.url}/articles")
    advance(200)
    clock.fast_forward(130_000)
    for tab in (page, second):
        tab.wait_for_url("**/sign-in?reason=idle&next=%2Farticles%2Fnew")
    page.fill("#username", "suzuki")
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_url("**/articles/new")
    assert page.input_value("#title") == "書きかけ"


def test_what_is_typed_can_be_read_and_what_is_touched_is_large_enough(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "ito")
    page.fill("#q", "養生")
    colours = page.eval_on_selector(
        "#q", "(q) => [getComputedStyle(q).color, getComputedStyle(q).backgroundColor]"
    )
    assert colours == ["rgb(28, 43, 49)", "rgb(255, 255, 255)"]
    page.set_viewport_size({"width": 390, "height": 844})
    for number, path in enumerate(PATHS):
        page.goto(f"{shared_demo.url}{path}")
        assert fits(page), path
        assert page.evaluate(SMALL) == [], path
        assert page.eval_on_selector_all("th", EMPTY) == 0, path
        assert page.evaluate(UNREACHABLE) == [], path
        assert (
            page.evaluate(
                "[...document.querySelectorAll('th')].filter((th) => !th.textContent.trim()).length"
            )
            == 0
        )
        keep_picture(page, f"28-telephone-{number}", full_page=True)


PATHS = (
    "/",
    "/articles",
    "/articles?q=養生",
    "/articles/1",
    "/articles/1/edit",
    "/articles/new",
    "/exchange/choose",
    "/account",
    "/account/password",
    "/account/second-factor",
    "/reports",
    "/admin/accounts",
    "/admin/tasks",
    "/admin/operations",
    "/sites",
    "/favourites",
    "/notices",
    "/nothing-here",
)

# Who cannot touch scrolls by keys: the region takes the focus, or what is in it does.
UNREACHABLE = """
[...document.querySelectorAll("main *")]
  .filter((part) => part.checkVisibility() && part.scrollWidth > part.clientWidth + 1)
  .filter((part) => ["auto", "scroll"].includes(getComputedStyle(part).overflowX) && part.tabIndex < 0)
  .filter((part) => !part.querySelector("a[href], button, input, select, textarea"))
  .map((part) => part.outerHTML.slice(0, 120))
"""
MIDDLES = """
[...document.querySelectorAll(".top-inner > *, .menu > *")]
  .map((part) => part.getBoundingClientRect()).map(({top, height}) => top + height / 2)
"""
EMPTY = "(heads) => heads.filter((head) => !head.textContent.trim()).length"


def test_a_passkey_takes_the_place_of_a_code_and_of_the_password(
    shared_demo: Any, open_page: Callable[..., Any]
) -> None:
    """With a virtual authenticator, from the first one to its removal by a recovery code."""
    page, name = open_page(), "yamamoto"
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
    }
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    sign_in(page, shared_demo.url, name)

    page.goto(f"{shared_demo.url}/account/second-factor")
    page.fill("#passkey-name", "事務所の端末")
    page.click("form[data-passkey] button")
    page.wait_for_url("**/account/passkeys")
    recovery = page.locator("li code").first.inner_text()
    page.goto(f"{shared_demo.url}/account/second-factor")
    says(page, "td", "事務所の端末")

    sign_out(page)
    page.wait_for_url("**/sign-in?done=signed-out")
    page.click("form[data-passkey] button")
    page.wait_for_url("**/")
    says(page, ".person", "山本 浩二")

    sign_out(page)
    page.wait_for_url("**/sign-in?done=signed-out")
    page.fill("#username", name)
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_url("**/sign-in/code*")
    page.click("form[data-passkey] button")
    page.wait_for_url("**/")

    page.goto(f"{shared_demo.url}/account/confirm?next=/account/second-factor")
    page.click("form[data-passkey] button")
    page.wait_for_url("**/account/second-factor")
    page.click("form[data-passkey='/account/passkeys/proof'] button")  # an app beside the passkey
    page.wait_for_selector("img.qr")
    page.click("text=設定をやめる")
    page.wait_for_selector("td input[name=code]")
    page.fill("td input[name=code]", recovery)
    page.click("td button")
    says(page, ".notice", "パスキーを削除しました")
    says(page, "main", "設定を始める")


@pytest.mark.parametrize("language", ["ja-JP", "en-US"])
def test_the_menu_is_one_line_and_opens_by_key_and_finger(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None], language: str
) -> None:
    page = open_page(locale=language)
    sign_in(page, shared_demo.url, "ito")  # who administers sees most of it
    middles = page.evaluate(MIDDLES)
    assert max(middles) - min(middles) <= 2

    # With keys alone: opened, walked through, closed, and the focus is where it was.
    page.focus(".person summary")
    page.keyboard.press("Enter")
    page.wait_for_selector(".own a")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/"
    page.keyboard.press("Escape")
    page.wait_for_selector(".own", state="hidden")
    assert page.evaluate("document.activeElement.matches('.person summary')")
    # The focus that goes elsewhere takes it along.
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.wait_for_selector(".own", state="hidden")

    page.set_viewport_size({"width": 390, "height": 844})
    page.click(".person summary")
    page.wait_for_selector(".own a")
    assert page.evaluate(SMALL) == []
    assert fits(page)
    keep_picture(page, f"29-menu-{language}")
    page.click("h1", position={"x": 5, "y": 5})
    page.wait_for_selector(".own", state="hidden")


def test_remembered_devices_are_revoked_at_both_widths(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    for width in (390, 1280):
        page = open_page()
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(f"{shared_demo.url}/sign-in")
        page.fill("#username", "kobayashi")
        page.fill("#password", DEMO_PASSWORD)
        page.check("[name=remember]")
        page.click("main button.primary")
        page.wait_for_url("**/")
        page.goto(f"{shared_demo.url}/account")
        says(page, "[aria-labelledby=devices]", "この端末")
        assert width > 390 or page.evaluate(SMALL) == []
        assert fits(page)
        keep_picture(page, f"30-devices-{width}", full_page=True)
    assert page.locator("[aria-labelledby=devices] tbody tr").count() == 2
    page.click("[aria-labelledby=devices] tr:has-text('ほかの端末') button")
    says(page, "main", "覚えた端末を 1 台解除しました。")
    assert page.locator("[aria-labelledby=devices] tbody tr").count() == 1
    page.click("form[action='/account/devices/revoke-all'] button")
    says(page, "main", "覚えた端末をすべて解除しました。")
    assert page.locator("[aria-labelledby=devices] tbody tr").count() == 0
    sign_out(page)


MAIN_PAGES = (
    "",
    "articles",
    "articles?q=養生",
    "articles/1",
    "articles/1/edit",
    "articles/1/history/1",
    "articles/1/compare",
    "exchange/choose?q=養生",
    "reviews",
    "account",
    "account/second-factor",
    "reports",
    "admin/accounts",
    "admin/invitations",
    "admin/groups",
    "admin/cache",
    "admin/retention",
    "tree",
    "articles/1/place",
    "readers/article/1",
    "readers/category/土工",
    "admin/audit",
    "admin/operations",
    "handbook/viewer",
    "handbook/writer",
    "nowhere",
)


def look(page: Any, name: str, *, examined: Collection[int] = (390, 1280)) -> list[str]:
    """What axe finds on a page at each width, and whether it is wider than the window."""
    found: list[str] = []
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        if not fits(page):
            found.append(f"{name}: wider than {width}")
        if width not in examined:
            continue
        # What it would load beforehand is for sounds and for rules that are not asked.
        report = page.evaluate("axe.run({resultTypes: ['violations'], preload: false})")
        found.extend(
            f"{name} at {width}: {error['id']} ({error['impact']}): {node['html'][:200]}"
            for error in report["violations"]
            for node in error["nodes"]
        )
    return found


@pytest.mark.parametrize(
    ("language", "examined"),
    [
        ("ja-JP", (390, 1280)),
        ("en-US", (390,)),  # the same elements; the longer texts have the least room here
        pytest.param("en-US", (1280,), marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing(
    shared_demo: Any, open_page: Callable[..., Any], language: str, examined: tuple[int, ...]
) -> None:
    page = open_page(locale=language)
    page.goto(f"{shared_demo.url}/sign-in")
    found = look(page, "sign-in", examined=examined)
    sign_in(page, shared_demo.url, "ito")
    for name in MAIN_PAGES:
        page.goto(f"{shared_demo.url}/{name}", wait_until="domcontentloaded")
        found += look(page, name, examined=examined)
    page.click(".person summary")
    found += look(page, "the menu, open", examined=examined)
    assert found == []
    assert page.locator("html").get_attribute("lang") == language[:2]


@pytest.mark.parametrize("language", ["ja-JP", "en-US"])
def test_readers_and_the_removal_of_a_group(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None], language: str
) -> None:
    """Each page at both widths, with two groups, of which one has a long name; and the order of the focus."""
    page, url = open_page(locale=language), shared_demo.url
    sign_in(page, url, "ito")
    names = ("見積班", "東日本高速道路橋梁補修工事共同企業体品質管理担当者会議連絡網")
    found: list[str] = []

    def shown(name: str) -> None:
        found.extend(look(page, name))
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            if width == 390:
                found.extend(f"{name}: too small: {part}" for part in page.evaluate(SMALL))
            keep_picture(page, f"32-{name}-{language[:2]}-{width}", full_page=True)

    for name in names:
        page.goto(f"{url}/admin/groups")
        page.fill("#name-0", name)
        page.fill("#members-0", "ito sato tanaka")
        page.click("section:has(#name-0) button[value=save]")
        page.wait_for_url("**done=group-save")
    page.goto(f"{url}/admin/groups")
    page.click(".cards summary >> nth=0")
    shown("groups")
    place = page.locator(f"section.card:has(h2:has-text('{names[0]}')) a.danger").get_attribute("href")
    page.goto(f"{url}/readers/category/積算")
    shown("readers-of-a-category")
    page.focus("a[aria-current=page]")  # of the tabs above; from there with the keyboard alone
    order = []
    while "button" not in order:
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.localName"))
    assert order[-3:] == ["input", "input", "button"]
    page.check(f"label:has-text('{names[0]}') input")
    page.click("main button.primary")
    page.wait_for_url("**done=restricted")
    page.goto(f"{url}{place}")
    shown("group-that-cannot-be-removed")
    assert page.locator("main form").count() == 0
    page.goto(f"{url}/readers/article/1")
    shown("readers-of-an-article")
    page.goto(f"{url}/readers/category/積算")
    page.uncheck(f"label:has-text('{names[0]}') input")
    page.click("main button.primary")
    page.wait_for_url("**done=restricted")
    page.goto(f"{url}{place}")
    shown("group-removal")
    for _ in names:
        page.goto(f"{url}/admin/groups")
        page.goto(f"{url}{page.locator('a.danger').first.get_attribute('href')}")
        page.click("main button.danger")
        page.wait_for_url("**done=group-remove")
    assert page.locator("a.danger").count() == 0
    assert found == []


def test_axe_finds_nothing_in_the_dark(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    axe = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
    page, found = open_page(color_scheme="dark"), list[str]()
    sign_in(page, shared_demo.url, "ito")
    for name in (*MAIN_PAGES, "articles/1/history", "admin/tasks"):
        page.goto(f"{shared_demo.url}/{name}", wait_until="domcontentloaded")
        page.evaluate(axe)
        report = page.evaluate(
            "axe.run({runOnly: ['color-contrast'], resultTypes: ['violations'], preload: false})"
        )
        found += [
            f"{name}: {node['html'][:200]}" for error in report["violations"] for node in error["nodes"]
        ]
    assert found == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 24, 28)"
    page.goto(f"{shared_demo.url}/articles/1")
    keep_picture(page, "31-dark", full_page=True)
    page.emulate_media(media="print")  # paper is white, and has the approval, the address and the date
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".printed").is_visible()
    says(page, ".printed", "承認 ")
    says(page, ".printed", f"{shared_demo.url}/articles/1")
    assert not page.locator(".anchor").first.is_visible()


def test_search_by_keys_with_suggested_titles(shared_demo: Any, open_page: Callable[..., Any]) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "kobayashi")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("ようじょう")
    page.fill("#q", "足場")
    page.wait_for_selector("#titles li")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#q", "aria-activedescendant") == "title-0"
    page.keyboard.press("Escape")
    page.wait_for_selector("#titles", state="hidden")
    page.fill("#q", "足場")
    page.wait_for_selector("#titles li")
    page.keyboard.press("Enter")  # nothing was chosen: it searches
    page.wait_for_url("**/articles?q=*")
    page.fill("#q", "足場")
    page.wait_for_selector("#titles li")
    # While an input method composes, its Enter chooses nothing.
    page.keyboard.press("ArrowDown")
    page.evaluate("""document.querySelector("#q").dispatchEvent(
        new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true, cancelable: true}))""")
    assert "?q=" in page.url
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/articles/\d+$"))
    page.focus("#body")
    page.keyboard.type("1/2")
    assert page.input_value("#body") == "1/2"


def test_what_helps_people_type(shared_demo: Any, open_page: Callable[..., Any]) -> None:
    page, asked = open_page(locale="en-US"), list[str]()
    page.goto(f"{shared_demo.url}/sign-in")
    page.fill("#password", "secret")
    page.click("text=Show the password")
    assert page.get_attribute("#password", "type") == "text"
    page.click("text=Show the password")
    assert page.get_attribute("#password", "type") == "password"

    sign_in(page, shared_demo.url, "yamamoto")
    without_server_drafts(page)
    page.goto(f"{shared_demo.url}/articles/new")
    page.fill("#body", "one\ntwo")
    page.press("#body", "Control+a")
    page.click(".toolbar >> text=List")
    assert page.input_value("#body") == "- one\n- two"
    page.press("#body", "Control+a")
    page.press("#body", "Control+b")
    assert page.input_value("#body") == "**- one\n- two**"
    page.press("#body", "Control+z")
    assert page.input_value("#body") == "- one\n- two"
    page.focus(".toolbar button >> nth=2")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "Number"
    says(page, "[data-draft-note]", "It is not saved yet.")

    def answer(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    page.click(".brand")
    page.wait_for_url("**/")
    assert asked == ["beforeunload"]


TABLE = """(cells) => {
  const data = new DataTransfer();
  data.setData("text/html", "<table><tr><td>a</td></tr></table>");
  data.setData("text/plain", cells);
  const pasted = new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
  document.querySelector("#body").dispatchEvent(pasted);
}"""


def test_what_is_typed_outlasts_the_tab_and_cells_become_a_table(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "suzuki")
    page.goto(f"{shared_demo.url}/articles/new?template=checklist")
    says(page, "#body", "点検項目")
    page.fill("#title", "タブを閉じても残る")
    page.fill("#body", "")
    page.evaluate(TABLE, '項目\t値\r\n"二行\nの|項目"\t"5 ""mm"""\r\n')
    assert page.input_value("#body") == '| 項目 | 値 |\n|---|---|\n| 二行 の\\|項目 | 5 "mm" |\n'
    # While an input method composes, a shortcut changes nothing.
    page.evaluate("""document.querySelector("#body").dispatchEvent(
        new KeyboardEvent("keydown", {key: "b", ctrlKey: true, isComposing: true, bubbles: true}))""")
    assert "**" not in page.input_value("#body")
    says(page, "[data-draft-note]", "下書きを預かりました")
    keep_picture(page, "32-draft-kept", full_page=True)
    page.close(run_before_unload=False)

    telephone = open_page(viewport={"width": 390, "height": 844})
    sign_in(telephone, shared_demo.url, "suzuki")
    telephone.goto(f"{shared_demo.url}/articles/new")
    assert telephone.input_value("#title") == "タブを閉じても残る"
    assert telephone.input_value("#body").startswith("| 項目 |")
    assert fits(telephone)
    assert telephone.evaluate(SMALL) == []
    keep_picture(telephone, "33-draft-telephone", full_page=True)
    telephone.press("#title", "Enter")  # saves it, and discards nothing
    says(telephone, "h1", "タブを閉じても残る")
    telephone.goto(f"{shared_demo.url}/articles/new")
    assert telephone.input_value("#title") == ""


COMPOSE = """(text) => {
  const field = document.querySelector("#body");
  field.dispatchEvent(new CompositionEvent("compositionstart"));
  field.value = text;
  field.dispatchEvent(new InputEvent("input", {bubbles: true, isComposing: true}));
}"""


def test_the_preview_follows_the_text_beside_it_and_behind_a_tab(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if request.url.endswith("/preview") else None
    )
    sign_in(page, shared_demo.url, "suzuki")
    page.goto(f"{shared_demo.url}/articles/new")
    text = "## 養生\n\n**保温(5 日)**は守る。<script>alert(1)</script>\n\n" + "- 項目\n" * 200
    page.fill("#body", text)
    says(page, "#live", "<script>alert(1)</script>")
    assert page.inner_text("#live h2").startswith("養生")
    assert page.inner_text("#live strong") == "保温(5 日)"
    left, right = page.locator("#body").bounding_box(), page.locator("#live").bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    assert abs(left["height"] - right["height"]) < 4
    page.evaluate(
        "() => { const field = document.querySelector('#body'); field.scrollTop = field.scrollHeight; }"
    )
    left_over = "one.scrollHeight - one.clientHeight - one.scrollTop"
    wait_until(lambda: page.eval_on_selector("#live", f"(one) => {left_over}") < 2)
    keep_picture(page, "34-live-preview", full_page=True)
    # What is being composed is not asked about; what was composed is.
    number = len(asked)
    page.evaluate(COMPOSE, "こうじ")
    page.wait_for_timeout(900)
    assert len(asked) == number
    page.evaluate("document.querySelector('#body').dispatchEvent(new CompositionEvent('compositionend'))")
    says(page, "#live", "こうじ")
    page.click("[data-draft-drop]")  # or the next new article would begin with it
    page.wait_for_url("**/articles/new")

    telephone = open_page(viewport={"width": 390, "height": 844})
    sign_in(telephone, shared_demo.url, "yamamoto")
    telephone.goto(f"{shared_demo.url}/articles/new")
    assert not telephone.is_visible("#live")
    telephone.fill("#body", "現場の*写真*")
    telephone.click(".pane-tabs button >> nth=1")
    says(telephone, "#live", "現場の写真")
    assert not telephone.is_visible("#body")
    assert fits(telephone)
    assert telephone.evaluate(SMALL) == []
    keep_picture(telephone, "35-live-telephone", full_page=True)
    telephone.click(".pane-tabs button >> nth=0")
    with telephone.expect_file_chooser() as chosen:  # the camera, on a telephone
        telephone.click("label[for=pick]")
    content = b"%PDF-1.7\n1 0 obj<<>>endobj\nxref\n0 1\ntrailer<<>>\nstartxref\n28\n%%EOF\n"
    chosen.value.set_files({"name": "手順.pdf", "mimeType": "application/pdf", "buffer": content})
    wait_until(lambda: "[手順](/files/" in telephone.input_value("#body"))
    assert "![手順]" not in telephone.input_value("#body")


def test_the_tree_is_arranged_by_keys_and_by_dragging(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "sato")
    page.goto(f"{shared_demo.url}/tree")
    for name in ("土木事業部", "建築事業部", "橋梁"):
        page.fill("#name", name)
        page.click("main button.primary")
        says(page, "[data-tree]", name)

    named = "(row) => (row.dataset.parent === '0' ? '' : '›') + row.querySelector('a').textContent"

    def shape() -> Any:
        return page.eval_on_selector_all("[data-node]", f"(rows) => rows.map({named})")

    assert shape() == ["土木事業部", "建築事業部", "橋梁"]
    up = page.locator("[data-node] button[value=up]").nth(2)
    up.focus()
    page.keyboard.press("Enter")
    says(page, "[data-tree-status]", "橋梁 は いちばん上 の 2 番目です。")
    assert page.evaluate("document.activeElement.value") == "up"  # the next press moves it on
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    says(page, "[data-tree-status]", "橋梁 は 土木事業部 の 1 番目です。")
    assert shape() == ["土木事業部", "›橋梁", "建築事業部"]
    rows = page.locator(".node")
    rows.nth(1).drag_to(rows.nth(2))  # into the other
    says(page, "[data-tree-status]", "橋梁 は 建築事業部 の 1 番目です。")
    rows.nth(2).drag_to(rows.nth(0), target_position={"x": 30, "y": 2})  # before the first
    says(page, "[data-tree-status]", "橋梁 は いちばん上 の 1 番目です。")
    assert shape() == ["橋梁", "土木事業部", "建築事業部"]
    keep_picture(page, "36-tree", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    assert fits(page)
    assert page.evaluate(SMALL) == []
    keep_picture(page, "37-tree-telephone", full_page=True)


def test_files_that_are_too_large_are_named_before_they_are_sent(
    shared_demo: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "sato")
    page.goto(f"{shared_demo.url}/articles/1/edit")

    def refused(*files: tuple[str, int]) -> str:
        given = [{"name": name, "mimeType": "image/png", "buffer": bytes(size)} for name, size in files]
        page.set_input_files("#file", given)
        return str(page.eval_on_selector("#file", "(field) => field.validationMessage"))

    assert refused(("図面.png", 16 * 1024 * 1024)) == (
        "図面.png は 16.0 MB あります。15.0 MB までのファイルを添付できます。"
    )
    # They go one by one, so the limit is that of each file.
    assert refused(("一.png", 9 * 1024 * 1024), ("二.png", 8 * 1024 * 1024)) == ""
    assert refused(*((f"{number}.png", 10) for number in range(31))) == (
        "31 個あります。一度に 30 個までです。"
    )
    assert refused(("小.png", 10)) == ""


@pytest.mark.parametrize("width", [390, 1280])
def test_files_go_one_by_one_and_each_refused_one_has_its_message(
    shared_demo: Any, open_page: Callable[..., Any], width: int
) -> None:
    page = open_page(viewport={"width": width, "height": 844})
    sign_in(page, shared_demo.url, "sato")
    page.goto(f"{shared_demo.url}/articles/1/edit")
    picture = page.evaluate(
        "() => Object.assign(document.createElement('canvas'), {width: 9, height: 9}).toDataURL().split(',')[1]"
    )
    files = [
        {"name": name, "mimeType": kind, "buffer": content}
        for name, kind, content in (
            (f"現場-{width}.png", "image/png", base64.b64decode(picture)),
            ("壊れた.heic", "image/heic", b"\0\0\0\x18ftypheic" + bytes(60)),
            ("メモ.txt", "text/plain", b"x"),
        )
    ]
    page.set_input_files("#file", files)
    page.click("form[data-each] button[type=submit]")
    page.wait_for_selector("[data-results] li")
    first, *refused = page.inner_text("[data-results]").splitlines()
    assert first == "1 個を添付しました。添付できなかったファイル:"
    assert [line.partition(": ")[0] for line in refused] == ["壊れた.heic", "メモ.txt"]
    assert "壊れている" in refused[0]
    assert fits(page)
    page.reload()
    assert page.locator(f"text=現場-{width}.png").count() >= 1


PASTE = """async () => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 40, height: 30});
  canvas.getContext('2d').fillRect(0, 0, 20, 20);
  const data = new DataTransfer();
  const picture = await new Promise((done) => canvas.toBlob(done));
  data.items.add(new File([picture], 'image.png', {type: 'image/png'}));
  const pasted = new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});
  document.querySelector('#body').dispatchEvent(pasted);
}"""


def test_a_screenshot_pasted_into_a_new_article_saves_it_as_a_draft(
    shared_demo: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "suzuki")
    page.goto(f"{shared_demo.url}/articles/new")
    page.fill("#tags", "、".join(f"札{number}" for number in range(11)))
    page.evaluate(PASTE)
    # What keeps it from being saved is said with the name of the field, and nothing stays behind.
    says(page, "[data-upload-note]", "タグ: 10 個以内")
    assert page.input_value("#body") == ""
    assert page.url.endswith("/articles/new")

    page.fill("#tags", "札")
    page.fill("#body", "足場の写真: ")
    page.evaluate(PASTE)
    page.evaluate(PASTE)  # at once: both belong to the same article
    links = re.compile(r"!\[画面-[^\]]*\]\(/files/(\d+)\)")
    wait_until(lambda: len(links.findall(page.input_value("#body"))) == 2)
    wait_until(lambda: page.url.endswith("/edit"))
    number = page.url.split("/")[-2]
    page.fill("#summary", "まだ保存していない要約")
    page.reload()  # the text of this tab belongs to the draft now
    assert page.input_value("#summary") == "まだ保存していない要約"
    assert len(links.findall(page.input_value("#body"))) == 2
    assert page.locator(".files img").count() == 2
    page.fill("#title", "貼り付けから始めた記事")
    page.click("main form[data-draft] button.primary")
    says(page, "h1", "貼り付けから始めた記事")
    assert page.url.partition("?")[0].endswith(f"/articles/{number}")
    wait_until(lambda: page.evaluate("() => document.querySelector('.prose img')?.naturalWidth > 0"))
    # One draft, not two, and nothing of it is offered for the next new article.
    page.goto(f"{shared_demo.url}/articles?status=draft&author=suzuki")
    assert "無題の記事" not in page.inner_text("main")
    assert page.locator("text=貼り付けから始めた記事").count() == 1
    page.goto(f"{shared_demo.url}/articles/new")
    assert page.input_value("#body") == ""


def test_a_pasted_screenshot_becomes_an_attachment(
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "sato")
    page.goto(f"{shared_demo.url}/articles/1/edit")
    page.evaluate(PASTE)
    in_text = "document.querySelector('#body').value"
    wait_until(lambda: page.evaluate(rf"() => /!\[画面-.*\]\(\/files\/\d+\)/.test({in_text})"))
    page.reload()
    wait_until(lambda: page.evaluate("() => document.querySelector('.files img')?.naturalWidth > 0"))
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    keep_picture(page, "16-attachments", full_page=True)
