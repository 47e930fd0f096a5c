"""The handbook: every chapter in both languages, and nothing in it that the application does not have.

``MKS_SCREENSHOTS=examples/knowledge_system/src/knowledge_system/static/handbook`` makes its pictures again.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import knowledge_system
from knowledge_browser import fits, sign_in
from knowledge_system.domain import permissions
from knowledge_system.domain.translations import LANGUAGES, english, is_japanese
from knowledge_system.web import access
from knowledge_system.web.pages.handbook import CHAPTERS

ROOT = Path(knowledge_system.__file__).parent
PICTURE = re.compile(r"!\[([^\]]+)\]\(/static/handbook/([a-z-]+\.webp)\)")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?!/static/)([^)]+)\)")
BOLD = re.compile(r"\*\*(.+?)\*\*")
QUOTED = re.compile("「([^」]+)」")
KEYS = {"/"}
"""What is bold without being a label: keys of the keyboard."""
SIZES = {
    "search": (1024, 680),
    "article": (390, 700),
    "editor": (390, 700),
    "review": (1024, 680),
    "invitations": (1024, 680),
}
MOST_BYTES = 60 * 1024
PEOPLE = {"viewer": "kobayashi", "writer": "tanaka", "reviewer": "sato", "admin": "ito"}
ALLOWED = {
    "members": set(PEOPLE),
    "writers": set(PEOPLE) - {"viewer"},
    "reviewers": {"reviewer", "admin"},
    "administrators": {"admin"},
}
ALL = [(language, chapter) for language in LANGUAGES for chapter in CHAPTERS]


def source(language: str, chapter: str) -> str:
    return (ROOT / "content" / "handbook" / language / f"{chapter}.md").read_text("utf-8")


def labels(language: str, chapter: str) -> set[str]:
    """The labels of buttons, fields and headings that a chapter names."""
    text = source(language, chapter)
    if language == "ja":
        assert {f"「{name}」" for name in QUOTED.findall(text)} == set(BOLD.findall(text)) - KEYS
        return set(QUOTED.findall(text))
    return set(BOLD.findall(text))


def test_there_is_a_chapter_for_each_role_and_no_other_text() -> None:
    assert CHAPTERS.keys() == permissions.ROLES.keys()
    found = {
        file.relative_to(ROOT / "content" / "handbook").as_posix() for file in ROOT.rglob("handbook/*/*")
    }
    assert found == {f"{language}/{chapter}.md" for language, chapter in ALL}


@pytest.mark.parametrize(("language", "chapter"), ALL)
def test_a_chapter_is_whole_in_its_language(visit: Callable[..., Any], language: str, chapter: str) -> None:
    answer = visit("kobayashi").get(f"/handbook/{chapter}", **{"Accept-Language": language})
    page = answer.get_data(as_text=True)
    assert (answer.status_code, answer.headers["Content-Language"]) == (200, language)
    article = page[page.index("<article") : page.index("</article>")]
    assert is_japanese(article) is (language == "ja")
    anchors = re.findall(r'<h2 id="([^"]+)"', article)
    assert anchors == re.findall(r'<li><a href="#([^"]+)"', page)
    assert len(anchors) == source(language, chapter).count("\n## ") >= 5
    assert article.count("<img") == len(PICTURE.findall(source(language, chapter)))


def test_a_person_is_led_to_the_chapter_of_the_role(visit: Callable[..., Any], browser: Any) -> None:
    for role, username in PEOPLE.items():
        person = visit(username)
        assert person.get("/handbook").location == f"/handbook/{role}"
        assert 'href="/handbook"' in person.get("/articles").get_data(as_text=True)
        assert person.get("/handbook/nothing").status_code == 404
    assert browser.get("/handbook/viewer").location.startswith("/sign-in?")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_links_lead_to_pages_that_answer_the_role(app: Any, visit: Callable[..., Any], chapter: str) -> None:
    links = {path for language in LANGUAGES for path in LINK.findall(source(language, chapter))}
    assert len(links) > 3
    routes = app.url_map.bind("localhost")
    for role, username in PEOPLE.items():
        person = visit(username)
        for path in links:
            who = access.required_role(routes.match(path)[0])
            assert who is not None
            assert chapter in ALLOWED[who], path
            assert person.get(path).status_code == (200 if role in ALLOWED[who] else 403), (path, role)


@pytest.mark.parametrize(("language", "chapter"), ALL)
def test_a_chapter_names_only_labels_of_the_application(language: str, chapter: str) -> None:
    """The catalogue has exactly the texts that the templates say, as ``test_knowledge_language`` makes sure."""
    named = labels("ja", chapter)
    assert len(named) > 10
    assert named - english().keys() == set()
    if language == "en":
        assert labels("en", chapter) - {str(english()[label]) for label in named} == set()


def test_every_picture_exists_is_small_and_says_what_it_shows() -> None:
    named = [
        (language, *found)
        for language, chapter in ALL
        for found in PICTURE.findall(source(language, chapter))
    ]
    files = {file.name: file for file in (ROOT / "static" / "handbook").iterdir()}
    assert sorted(name for *_, name in named) == sorted(files)
    for language, instead, name in named:
        assert name.endswith(f"-{language}.webp")
        assert len(instead) > 20
        assert is_japanese(instead) is (language == "ja")
        assert files[name].stat().st_size <= MOST_BYTES
        with Image.open(files[name]) as picture:
            assert (picture.format, picture.size) == ("WEBP", SIZES[name.partition("-")[0]])


@pytest.mark.chromium
@pytest.mark.timeout(600)
def test_the_run_makes_every_picture_of_the_handbook(
    start_demo: Callable[..., Any], open_page: Callable[..., Any], pictures: Path
) -> None:
    demo = start_demo()

    def open_as(username: str, path: str, locale: str = "ja-JP") -> Any:
        page = open_page(locale=locale)
        sign_in(page, demo.url, username)
        page.goto(f"{demo.url}/{path}")
        return page

    author = open_as("suzuki", "articles?author=suzuki&q=強風")
    author.click(".articles h2 a")
    author.click("text=編集する")
    author.fill("#body", author.input_value("#body").replace("大雪、", "大雪(25 cm 以上)、"))
    author.select_option("#status", "review")
    author.click("main button.primary")
    author.wait_for_selector(".notice.good")

    for language, locale in (("ja", "ja-JP"), ("en", "en-US")):

        def take(page: Any, name: str, suffix: str = language) -> None:
            width, height = SIZES[name]
            page.set_viewport_size({"width": width, "height": height})
            assert fits(page)
            with Image.open(io.BytesIO(page.screenshot())) as picture:
                picture.save(pictures / f"{name}-{suffix}.webp", quality=65, method=6)

        reader = open_as("kobayashi", "articles?q=養生", locale)
        take(reader, "search")
        reader.click(".articles h2 a")
        reader.wait_for_selector("article .prose")
        take(reader, "article")

        writer = open_as("tanaka", "articles/new?template=procedure", locale)
        width, height = SIZES["editor"]
        writer.set_viewport_size({"width": width, "height": height})
        writer.evaluate("document.querySelector('label[for=body]').scrollIntoView({block: 'start'})")
        take(writer, "editor")

        reviewer = open_as("sato", "reviews", locale)
        reviewer.click(".articles h2 a")
        reviewer.wait_for_selector(".steps-form")
        take(reviewer, "review")

        administrator = open_as("ito", "admin/invitations", locale)
        file = {"name": "people.csv", "mimeType": "text/csv", "buffer": PEOPLE_TO_INVITE.encode()}
        administrator.set_input_files("#file", file)
        administrator.click("main button.primary")
        administrator.wait_for_selector("main table")
        take(administrator, "invitations")
    made = {file.name for file in pictures.glob("*.webp")}
    assert made == {f"{name}-{language}.webp" for name in SIZES for language in LANGUAGES}


PEOPLE_TO_INVITE = """\
username,display_name,role,email,department,groups
nakamura,中村 大輔,writer,nakamura@example.com,土木部 工事一課,
watanabe,渡辺 彩,viewer,watanabe@example.com,積算部,
tanaka,田中 健一,writer,tanaka@example.com,土木部 工事一課,
"""
