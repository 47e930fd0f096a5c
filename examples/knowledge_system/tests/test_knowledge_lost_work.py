"""What somebody typed is neither lost to others who were faster nor shown to the next person of the tab."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from knowledge_browser import FLAGS, fits, says, sign_in, sign_out
from knowledge_system.settings import DEMO_PASSWORD

TEXT = {"title": "二人の記事", "category": "土工", "summary": "", "body": "本文", "tags": "", "site": ""}


def write(person: Any, **changed: str) -> str:
    person.get("/articles/new")
    answer = person.post("/articles/new", {**TEXT, "status": "draft", **changed})
    assert answer.status_code == 303, answer.get_data(as_text=True)
    path: str = answer.location.partition("?")[0]
    return path


def test_a_conflict_shows_that_the_other_sent_it_to_review(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    path = write(person)
    sent = person.post(f"{path}/edit", {**TEXT, "status": "review", "revision": "1"})
    assert sent.status_code == 303
    late = person.post(f"{path}/edit", {**TEXT, "body": "あと", "status": "draft", "revision": "1"})
    assert late.status_code == 409
    page = late.get_data(as_text=True)
    difference = page[page.index("<h3>保存のしかた</h3>") :]
    assert difference.index("<del>レビュー中</del>") < difference.index("<ins>下書き</ins>")


def test_a_conflict_is_whole_in_one_language(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    path = write(person)
    person.post(f"{path}/edit", {**TEXT, "category": "鉄筋", "status": "draft", "revision": "1"})
    person.post("/language", {"language": "en"})
    typed = {**TEXT, "title": "x", "status": "draft", "revision": "1"}
    page = person.post(f"{path}/edit", typed).get_data(as_text=True)
    assert "<h3>Title</h3>" in page
    assert "<h3>Category</h3>" in page
    assert "<del>Reinforcement</del>" in page
    assert "<h3>題名" not in page


@pytest.mark.parametrize(("form", "page"), [("/edit", "/edit"), ("/comments", "")])
def test_who_has_no_session_left_signs_in_and_is_back_at_the_form(browser: Any, form: str, page: str) -> None:
    browser.get("/sign-in")
    typed = {"body": "書いたもの"} if form == "/comments" else {**TEXT, "status": "draft", "revision": "1"}
    refused = browser.post(f"/articles/1{form}", typed, Referer=f"https://localhost:8443/articles/1{page}")
    assert refused.status_code == 401
    [(place, result)] = re.findall(r'<a class="button primary" href="([^"]+)">(.+?)</a>', refused.text)
    assert (place, result) == (f"/sign-in?next=%2Farticles%2F1{page.replace('/', '%2F')}", "サインイン")
    assert f'name="next" value="/articles/1{page}"' in browser.get(place).text
    elsewhere = browser.post(f"/articles/1{form}", typed, Referer="https://elsewhere.example/articles/1")
    assert elsewhere.status_code == 401
    assert 'href="/sign-in?next=%2F"' in elsewhere.text


def test_an_article_retired_meanwhile_gives_its_text_back(visit: Callable[..., Any]) -> None:
    author, reviewer = visit("tanaka"), visit("sato")
    path = write(author, status="review")
    reviewer.get(path)
    reviewer.post(f"{path}/steps", {"step": "approve", "revision": "1", "comment": ""})
    reviewer.post(f"{path}/steps", {"step": "retire", "revision": "1", "comment": "古い"})
    typed = {**TEXT, "title": "直した題名", "body": "書いたばかりの本文", "status": "draft"}
    refused = author.post(f"{path}/edit", {**typed, "revision": "1"})
    page = refused.get_data(as_text=True)
    assert refused.status_code == 403
    assert "書いたばかりの本文" in page
    assert "新しい記事として保存できます" in page
    assert 'action="/articles/new"' in page
    assert author.post("/articles/new", typed).status_code == 303
    # Who cannot write gets the refusal alone, and so does a program.
    assert "書いたばかり" not in visit("kobayashi").post(f"{path}/edit", typed).get_data(as_text=True)


def test_an_article_deleted_meanwhile_gives_its_text_back(visit: Callable[..., Any]) -> None:
    author, admin = visit("tanaka"), visit("ito")
    path = write(author)
    number = path.rpartition("/")[2]
    version = admin.api("GET", f"/api/knowledge/{number}").headers["ETag"]
    sent = {"If-Match": version, "X-CSRF-Token": admin.token}
    gone = admin.api("DELETE", f"/api/knowledge/{number}", **sent)
    assert gone.status_code == 204, gone.get_data(as_text=True)
    refused = author.post(f"{path}/edit", {**TEXT, "body": "残る本文", "status": "draft", "revision": "1"})
    assert refused.status_code == 404
    assert "残る本文" in refused.get_data(as_text=True)


def test_a_remark_of_a_reviewer_who_comes_second_is_shown_again(visit: Callable[..., Any]) -> None:
    author, first, second = visit("tanaka"), visit("sato"), visit("yamamoto")
    path = write(author, status="review")
    first.get(path)
    second.get(path)
    first.post(f"{path}/steps", {"step": "approve", "revision": "1", "comment": ""})
    late = second.post(f"{path}/steps", {"step": "return", "revision": "1", "comment": "直してほしい所"})
    assert late.status_code == 409
    page = late.get_data(as_text=True)
    assert "ほかの人が先に進めたか" in page
    assert "直してほしい所" in page


def test_a_remark_is_shown_where_no_step_is_left(visit: Callable[..., Any]) -> None:
    author, reviewer = visit("tanaka"), visit("sato")
    path = write(author, status="review")
    for step in ("approve", "retire"):
        reviewer.get(path)
        reviewer.post(f"{path}/steps", {"step": step, "revision": "1", "comment": "x"})
    late = reviewer.post(f"{path}/steps", {"step": "return", "revision": "1", "comment": "遅れたひとこと"})
    assert late.status_code == 409
    assert "遅れたひとこと" in late.get_data(as_text=True)


def test_a_limit_gives_the_text_back(visit: Callable[..., Any]) -> None:
    person = visit("suzuki")
    path = write(person)
    for _ in range(100):
        answer = person.post(f"{path}/edit", {**TEXT, "body": "まだある", "status": "draft", "revision": "1"})
        if answer.status_code == 429:
            break
    page = answer.get_data(as_text=True)
    assert answer.status_code == 429
    assert "まだある" in page
    assert "data-wait" in page


def type_and_leave(page: Any, url: str) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, url, "tanaka")
    page.goto(f"{url}/articles/new")
    page.fill("#title", "ひみつの題名")
    page.fill("#body", "ひみつの本文")
    sign_out(page)
    page.wait_for_url("**/sign-in?**")


@pytest.mark.chromium
@pytest.mark.timeout(300)
def test_a_browser_that_restores_forms_does_not_show_them_to_the_next_person(
    shared_demo: Any, open_page: Callable[..., Any]
) -> None:
    page = open_page()
    type_and_leave(page, shared_demo.url)
    page.fill("#username", "suzuki")
    page.fill("#password", DEMO_PASSWORD)
    page.click("main button.primary")
    page.wait_for_url("**/")
    page.go_back()
    page.go_back()
    assert page.url.endswith("/articles/new")
    assert "鈴木" in page.inner_text(".who")
    # Empty, or a draft of their own that another test has left.
    assert "ひみつ" not in page.input_value("#title") + page.input_value("#body")


@pytest.mark.chromium
@pytest.mark.timeout(300)
def test_a_page_kept_alive_is_read_anew_after_signing_out(
    shared_demo: Any, driver: Any, chromium_path: str
) -> None:
    """The back/forward cache shows a page as it was left, without asking the server."""
    browser = driver.chromium.launch(
        executable_path=chromium_path,
        args=FLAGS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    page = browser.new_context(ignore_https_errors=True, locale="ja-JP").new_page()
    type_and_leave(page, shared_demo.url)
    page.evaluate("history.back()")
    page.wait_for_url("**/sign-in?next=**")
    assert page.locator("#title").count() == 0
    browser.close()


@pytest.mark.chromium
@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["ja-JP", "en-US"])
def test_the_top_bar_has_its_lines_at_every_width(
    shared_demo: Any, open_page: Callable[..., Any], language: str
) -> None:
    page = open_page(locale=language)
    sign_in(page, shared_demo.url, "ito")
    middles = """(chosen) => [...document.querySelectorAll(chosen)]
      .map((part) => part.getBoundingClientRect()).map(({top, height}) => top + height / 2)"""
    for width in range(360, 1300, 30):
        page.set_viewport_size({"width": width, "height": 800})
        chosen = ".top-inner > *, .menu > *" if width > 960 else ".menu > *"
        found = page.evaluate(middles, chosen)
        assert max(found) - min(found) <= 2, width
        assert fits(page), width
        if width > 640:  # the search stands beside brand and person
            found = page.evaluate(middles, ".top-inner > :not(.menu)")
            assert max(found) - min(found) <= 2, width


@pytest.mark.chromium
@pytest.mark.timeout(300)
def test_a_long_site_and_tag_fit_on_a_telephone(shared_demo: Any, open_page: Callable[..., Any]) -> None:
    page = open_page(viewport={"width": 390, "height": 844})
    sign_in(page, shared_demo.url, "tanaka")
    page.goto(f"{shared_demo.url}/articles?site={'M' * 100}&tag={'T' * 40}")
    says(page, ".active-filters", "MMM")
    assert fits(page)
