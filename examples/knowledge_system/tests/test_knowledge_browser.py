"""The demonstration in a real browser: what only a browser shows, with pictures to look at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.security import totp_code

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: a folder to look at when ``MKS_SCREENSHOTS`` names one."""
    folder = Path(os.environ.get("MKS_SCREENSHOTS") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    contexts = []
    said: list[str] = []

    def open_one(**options: Any) -> Any:
        context = chromium.new_context(
            ignore_https_errors=True, locale="ja-JP", viewport={"width": 1280, "height": 900}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console",
            lambda message: said.append(message.text) if "Content Security" in message.text else None,
        )
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert said == []


def says(page: Any, selector: str, text: str) -> None:
    """Wait until this part of the page holds the text."""
    page.locator(f"{selector}:has-text({json.dumps(text, ensure_ascii=False)})").first.wait_for()


def sign_in(page: Any, url: str, username: str) -> None:
    page.goto(f"{url}/sign-in")
    page.fill("#username", username)
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_url("**/articles")


def test_the_main_path_with_pictures(  # noqa: PLR0915 - one visit from beginning to end
    shared_demo: Any, open_page: Callable[..., Any], pictures: Path
) -> None:
    page = open_page()

    def picture(name: str) -> None:
        page.screenshot(path=pictures / f"{name}.png", full_page=True)

    page.goto(f"http://localhost:{shared_demo.http}/articles")
    assert page.url.startswith(f"{shared_demo.url}/sign-in")
    picture("01-sign-in")
    page.fill("#username", "sato")
    page.fill("#password", "wrong")
    page.click("main button.primary")
    says(page, "main", "ユーザー名またはパスワードが違います")
    sign_in(page, shared_demo.url, "sato")
    picture("02-list")
    page.fill("#q", "養生")
    page.press("#q", "Enter")
    page.wait_for_url("**q=**")
    assert page.locator(".articles > li").count() > 0
    picture("03-search")
    page.click(".articles h2 a >> nth=0")
    page.wait_for_selector(".prose")
    picture("04-article")
    page.fill("#body", "現場で試しました。")
    page.click("form[data-draft] button.primary")
    says(page, ".comments", "現場で試しました。")

    page.click("text=編集する")
    page.fill("#title", "")
    page.evaluate("document.querySelectorAll('[required]').forEach((field) => (field.required = false))")
    page.click("main button.primary")
    says(page, "main", "入力してください")
    picture("05-form-with-faults")
    page.fill("#title", "画面から直した題名")
    page.click("main button.primary")
    says(page, "h1", "画面から直した題名")

    page.goto(f"{shared_demo.url}/account/second-factor")
    page.click("text=設定を始める")
    page.wait_for_function("document.querySelector('.qr')?.naturalWidth > 100")
    picture("06-second-factor")
    secret = page.inner_text("#secret").replace(" ", "")
    page.fill("#code", totp_code(secret))
    page.click("text=有効にする")
    page.wait_for_selector(".codes code")
    codes = page.locator(".codes code").all_inner_texts()
    assert len(codes) == 10
    picture("07-recovery-codes")
    page.click("text=控えました")
    page.wait_for_url("**/account")
    picture("08-account")
    page.click("text=サインアウト")
    page.fill("#username", "sato")
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_selector("#code")
    picture("09-code")
    page.fill("#code", codes[0])
    page.click("main button.primary")
    page.wait_for_url("**/articles")
    page.goto(f"{shared_demo.url}/account/second-factor")
    page.fill("#code", codes[1])
    page.click("text=無効にする >> nth=-1")
    says(page, "main", "二段階認証を無効にしました")
    page.goto(f"{shared_demo.url}/nothing-here")
    says(page, "h1", "見つかりません")
    picture("10-not-found")


def test_trouble_and_its_traces_for_the_administrator(
    shared_demo: Any, open_page: Callable[..., Any], pictures: Path
) -> None:
    page = open_page()
    sign_in(page, shared_demo.url, "ito")
    page.goto(f"{shared_demo.url}/diagnostics")
    page.click("text=遅い SQL を実行")
    page.wait_for_url("**done=slow-query")
    page.goto(f"{shared_demo.url}/diagnostics")
    page.click("text=エラーを起こす")
    says(page, "h1", "処理中に問題が発生しました")
    page.screenshot(path=pictures / "11-error.png")
    number = page.inner_text(".error-page code")
    for _ in range(100):
        page.goto(f"{shared_demo.url}/sink")
        if page.locator(".messages li").count() >= 2:
            break
        page.wait_for_timeout(100)
    says(page, "main", number)
    page.screenshot(path=pictures / "12-sink.png", full_page=True)
    page.goto(f"{shared_demo.url}/diagnostics?request_id={number}")
    page.screenshot(path=pictures / "13-diagnostics.png", full_page=True)
    page.goto(f"{shared_demo.url}/admin/accounts")
    page.screenshot(path=pictures / "14-accounts.png", full_page=True)


def test_the_dialog_before_the_end_and_the_draft_that_survives_it(
    shared_demo: Any, open_page: Callable[..., Any], pictures: Path
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
    page.goto(f"{shared_demo.url}/articles/new")
    page.fill("#title", "書きかけの記事")
    page.fill("#body", "途中まで")
    advance(1700)
    assert not page.locator("#session-dialog").is_visible()
    page.clock.fast_forward(1_690_000)
    page.wait_for_selector("#session-dialog[open]")
    page.screenshot(path=pictures / "15-dialog.png")
    page.click("#session-dialog .primary")
    page.wait_for_selector("#session-dialog:not([open])", state="attached")

    operator.goto(f"{shared_demo.url}/articles")
    advance(1700)
    operator.goto(f"{shared_demo.url}/articles")
    advance(200)
    page.click("main button.primary >> nth=0")
    page.wait_for_url("**/sign-in?reason=idle*")
    says(page, "main", "操作がなかったため")
    page.screenshot(path=pictures / "16-ended.png")
    sign_in(page, shared_demo.url, "tanaka")
    page.goto(f"{shared_demo.url}/articles/new")
    assert page.input_value("#title") == "書きかけの記事"
    says(page, "main", "まだ保存されていません")


def test_reading_and_forms_without_javascript_and_on_a_telephone(
    shared_demo: Any, open_page: Callable[..., Any], pictures: Path
) -> None:
    page = open_page(java_script_enabled=False)
    page.set_viewport_size({"width": 390, "height": 844})
    sign_in(page, shared_demo.url, "kobayashi")
    page.screenshot(path=pictures / "17-telephone-list.png")
    page.click(".articles h2 a >> nth=0")
    page.wait_for_selector(".prose")
    page.screenshot(path=pictures / "18-telephone-article.png")
    page.fill("#body", "電話から")
    page.click("text=投稿する")
    says(page, ".comments", "電話から")
    page.click("text=サインアウト")
    page.wait_for_url("**/sign-in?done=signed-out")
