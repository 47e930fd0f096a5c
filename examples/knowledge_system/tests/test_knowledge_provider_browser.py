"""Sign-in at a certified OpenID provider, in a real browser: every redirect, cookie and policy is the real one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import pytest

from knowledge_browser import SMALL, fits, says, sign_in, sign_out
from testbed.openid_provider_server import CLIENT, SECRET, OpenIDProviderServer
from testbed.polling import free_port

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]


class Company(NamedTuple):
    demo: Any
    provider: OpenIDProviderServer

    @property
    def url(self) -> str:
        return str(self.demo.url)

    def give_address(self, username: str) -> None:
        """Give an account of the demonstration the address that the provider states for this name."""
        with sqlite3.connect(self.demo.folder / "knowledge.db", timeout=30) as database:
            address = f"{username}@knowledge.example"
            database.execute("UPDATE users SET email = ? WHERE username = ?", (address, username))


@pytest.fixture
def company(start_demo: Callable[..., Any], tmp_path: Path) -> Iterator[Company]:
    port = free_port()
    demo = start_demo(
        MKS_OIDC_ISSUER=f"http://127.0.0.1:{port}",
        MKS_OIDC_CLIENT_ID=CLIENT,
        MKS_OIDC_CLIENT_SECRET=SECRET,
        MKS_OIDC_NEW_ROLE="viewer",
    )
    provider = OpenIDProviderServer(tmp_path / "provider", port, demo.url)
    provider.process.start(timeout=60)
    yield Company(demo, provider)
    provider.process.stop()


def at_provider(page: Any, login: str, *, factor: bool = False) -> None:
    """Sign in on the page of the provider."""
    page.wait_for_url("**/interaction/**")
    page.fill("input[name=login]", login)
    if factor:
        page.check("input[name=factor]")
    page.click("button")


def is_accessible(page: Any) -> None:
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    report = page.evaluate("axe.run({resultTypes: ['violations'], preload: false})")
    assert [violation["id"] for violation in report["violations"]] == []
    assert fits(page)
    assert page.viewport_size["width"] > 390 or page.evaluate(SMALL) == []


def test_an_employee_signs_in_confirms_and_signs_out(
    company: Company, open_page: Callable[..., Any], keep_picture: Callable[..., None]
) -> None:
    company.give_address("tanaka")
    page = open_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.goto(f"{company.url}/articles")
    is_accessible(page)
    keep_picture(page, "provider-sign-in")
    page.click("text=会社のアカウントでサインイン")
    at_provider(page, "tanaka", factor=True)
    page.wait_for_url(f"{company.url}/articles")
    says(page, ".person", "田中 健一")

    back = next(url for url in sent if "/sign-in/provider/callback?" in url)
    other = open_page()
    assert other.goto(back).status == 400  # another browser
    assert other.goto(f"{company.url}/articles").url.startswith(f"{company.url}/sign-in")
    assert page.goto(back).url == f"{company.url}/"  # the same one, again

    # To change how they sign in, people authenticate again, and as themselves.
    page.goto(f"{company.url}/account/confirm?next=/account/second-factor")
    is_accessible(page)
    page.click("text=会社のアカウントで確認する")
    at_provider(page, "suzuki")
    says(page, "main", "このアカウントではサインインできません")
    page.goto(f"{company.url}/account/confirm?next=/account/second-factor")
    page.click("text=会社のアカウントで確認する")
    at_provider(page, "tanaka", factor=True)
    page.wait_for_url(f"{company.url}/account/second-factor")

    page.goto(f"{company.url}/account")
    says(page, ".facts", "会社のアカウント")
    sign_out(page)
    says(page, "main", "まだサインインしています")
    page.click("text=会社のアカウントからもサインアウトする")
    page.click("button:has-text('Yes')")
    page.wait_for_url(f"{company.url}/sign-in?done=signed-out")
    page.click("text=会社のアカウントでサインイン")
    page.wait_for_url("**/interaction/**")  # signed out there, too


def test_tabs_new_people_and_an_outage(company: Company, open_page: Callable[..., Any]) -> None:
    page = open_page(locale="en-GB", viewport={"width": 390, "height": 844})
    tab = page.context.new_page()
    for each, path in ((page, "/tree"), (tab, "/articles")):
        each.goto(f"{company.url}/sign-in?next={path}")
        each.click("text=Sign in with Company account")
    at_provider(page, "hata")
    page.wait_for_url(f"{company.url}/tree")
    at_provider(tab, "hata")
    tab.wait_for_url(f"{company.url}/articles")
    says(tab, ".person", "hata")

    admin = open_page(viewport={"width": 390, "height": 844})
    sign_in(admin, company.url, "ito")
    admin.goto(f"{company.url}/admin/accounts/hata")
    says(admin, ".facts", "会社のアカウント")
    is_accessible(admin)
    admin.goto(f"{company.url}/admin/audit")
    says(admin, "main", "会社のアカウント")
    admin.goto(f"{company.url}/admin/accounts/hata")
    admin.uncheck("input[name=active]")
    admin.click("main button.primary")
    admin.wait_for_url("**done=account-changed")
    tab.goto(f"{company.url}/articles")
    tab.click("text=Sign in with Company account")  # still signed in there
    says(tab, "main", "You cannot sign in with this account")
    is_accessible(tab)

    # The provider dies before it is asked for the token: people with a password still get in.
    stranded = open_page()
    stranded.goto(f"{company.url}/sign-in")
    stranded.click("text=会社のアカウントでサインイン")
    stranded.wait_for_url("**/interaction/**")
    http = stranded.context.request
    place = http.post(stranded.url, form={"login": "suzuki"}, max_redirects=0).headers["location"]
    while not place.startswith(company.url):
        place = http.get(urljoin(company.provider.issuer, place), max_redirects=0).headers["location"]
    company.provider.process.kill()
    assert stranded.goto(place).status == 503
    says(stranded, "main", "会社のアカウントに接続できません")
    says(stranded, "main", "リクエスト番号")
    sign_in(stranded, company.url, "sato")
