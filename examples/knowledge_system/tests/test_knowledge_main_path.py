"""The main path of the demonstration in a real browser, as `make test` walks it.

``MKS_SCREENSHOTS=FOLDER`` saves pictures to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from knowledge_browser import says, sign_in, sign_out
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.security import totp_code
from testbed.polling import wait_until

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]


def test_the_main_path_with_pictures(  # noqa: PLR0915 - one visit from beginning to end
    shared_demo: Any, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    page = open_page()

    def picture(name: str) -> None:
        keep_picture(page, name, full_page=True)

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
    picture("05-form-with-errors")
    page.fill("#title", "画面から直した題名")
    page.click("main form[data-draft] button.primary")
    says(page, "h1", "画面から直した題名")
    picture("05-next-version")

    page.goto(f"{shared_demo.url}/account/second-factor")
    page.click("text=設定を始める")
    wait_until(lambda: page.evaluate("document.querySelector('.qr')?.naturalWidth > 100"))
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
    sign_out(page)
    page.fill("#username", "sato")
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_selector("#code")
    picture("09-code")
    page.fill("#code", codes[0])
    page.click("main button.primary")
    page.wait_for_url("**/")
    page.goto(f"{shared_demo.url}/account/second-factor")
    page.fill("#code", codes[1])
    page.click("text=無効にする >> nth=-1")
    says(page, "main", "二段階認証を無効にしました")
    page.goto(f"{shared_demo.url}/nothing-here")
    says(page, "h1", "見つかりません")
    picture("10-not-found")
