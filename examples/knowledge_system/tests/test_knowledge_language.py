"""Japanese and English: the catalogue against the sources, every page whole in one language, and the switch."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import nodes
from sqlalchemy import delete, select, update

import knowledge_system
from knowledge_system import models
from knowledge_system.domain.labels import DONE
from knowledge_system.domain.translations import english, say
from knowledge_system.services.knowledge import stored_content

ROOT = Path(knowledge_system.__file__).parent
JAPANESE = re.compile("[\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc\u4e00-\u9fff]")
PLACE = re.compile(r"%\((\w+)\)s")
TAG = re.compile(r"<[^>]+>")
BILINGUAL = (
    "__init__.py",
    "cli.py",
    "flask_commands.py",
    "console.py",
    "database.py",
    "demo/",
    "domain/translations.py",
    "migrations/",
    "services/knowledge/generated_content.py",
    "services/knowledge/stored_content.py",
    "services/take_over/",
    "api/openapi.py",
)
"""Terminals, where both languages stand side by side, and demonstration content."""


def templates() -> Iterator[tuple[str, Any]]:
    environment = jinja2.Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    for file in sorted((ROOT / "templates").rglob("*.html")):
        yield file.name, environment.parse(file.read_text(encoding="utf-8"))


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(ROOT.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if not name.startswith(BILINGUAL):
            yield name, ast.parse(file.read_text(encoding="utf-8"))


def sentences() -> dict[str, str]:
    """Every Japanese sentence of the sources, and where it stands."""
    found = {}
    for name, tree in templates():
        for constant in tree.find_all(nodes.Const):
            if isinstance(constant.value, str) and JAPANESE.search(constant.value):
                found[constant.value] = name
    for name, tree in modules():
        documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
        texts = (node.value for node in constants if id(node) not in documentation)
        found |= {text: name for text in texts if isinstance(text, str) and JAPANESE.search(text)}
    for name in ("labels.toml", "mails.toml"):
        content = tomllib.loads((ROOT / "content" / name).read_text(encoding="utf-8"))
        found |= dict.fromkeys(texts_in(content), name)
    return found


def texts_in(content: dict[str, Any]) -> Iterator[str]:
    """Every text of nested tables."""
    for value in content.values():
        if isinstance(value, dict):
            yield from texts_in(value)
        else:
            yield value


def test_what_the_sources_say_is_in_the_catalogue_and_nothing_else() -> None:
    found = sentences()
    assert len(found) > 300
    missing = {f"{where}: {text}" for text, where in found.items() if text not in english()}
    assert missing == set()
    assert english().keys() - found.keys() == set()
    assert sentences_of_reports() <= found.keys()


def sentences_of_reports() -> set[str]:
    """What a report under way says of its progress."""
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "reports").glob("*.py"))
    return set(re.findall(r'progress\([\d.]+, "([^"]+)"\)', source))


def test_no_text_stands_in_a_page_or_a_script_beside_the_catalogue() -> None:
    bare = {
        f"{name}: {data.data.strip()}"
        for name, tree in templates()
        for data in tree.find_all(nodes.TemplateData)
        if JAPANESE.search(data.data)
    }
    assert bare == set()
    joined = {
        f"{name}:{node.lineno}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        and any(isinstance(part, ast.Constant) and JAPANESE.search(str(part.value)) for part in node.values)
    }
    assert joined == set()
    scripts = {
        f"{file.name}: {line.strip()}"
        for file in (ROOT / "static").glob("*.js")
        for line in file.read_text(encoding="utf-8").splitlines()
        if JAPANESE.search(line)
    }
    assert scripts == set()


def test_each_sentence_is_said_once_and_keeps_places_and_tags() -> None:
    rooms = [
        tomllib.loads(file.read_text(encoding="utf-8")) for file in (ROOT / "content" / "english").iterdir()
    ]
    assert [
        text for text, number in Counter(text for room in rooms for text in room).items() if number > 1
    ] == []
    for text, translated in english().items():
        forms = [translated] if isinstance(translated, str) else translated
        assert len(forms) == (1 if isinstance(translated, str) else 2), text
        for form in forms:
            assert not JAPANESE.search(form), form
            places = set(PLACE.findall(text))
            assert set(PLACE.findall(form)) | {"count"} == places | {"count"}, form
            assert sorted(TAG.findall(form)) == sorted(TAG.findall(text)), form
            values = dict.fromkeys(places, "x")
            assert "%(" not in form % values
            assert "%(" not in text % values


def test_numbers_have_two_forms_in_english() -> None:
    said = [say("コメント %(count)s", language, count=n) for language in ("ja", "en") for n in (1, 2)]
    assert said == ["コメント 1", "コメント 2", "1 comment", "2 comments"]
    assert say("北工区", "en") == "北工区"


PEOPLE = {person["display_name"] for person in stored_content.people()}
"""Names, which nobody translates."""


class Words(HTMLParser):
    """What a page says, to eyes and ears, but for what is marked as another language."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.language = ""
        self._foreign = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "html":
            self.language = values.get("lang") or ""
        self._foreign = tag == "button" and "lang" in values
        for name in ("aria-label", "placeholder", "alt", "title"):
            self.said.append(values.get(name) or "")
        self.said += [
            value or "" for name, value in attrs if name.startswith("data-") and name != "data-stages"
        ]

    def handle_data(self, data: str) -> None:
        if not self._foreign:
            self.said.append(data)
        self._foreign = False

    def japanese(self) -> list[str]:
        return [text.strip() for text in self.said if JAPANESE.search(text) and text not in PEOPLE]


def words(answer: Any) -> Words:
    parsed = Words()
    parsed.feed(answer.get_data(as_text=True))
    return parsed


PLACES = {"article_id": 1, "number": 1, "comment_id": 1, "username": "sato", "group_id": 1}
PLACES |= {"kind": "article", "subject": 1, "chapter": "viewer"}
"""What stands in addresses; a new kind of place needs its value here."""
NOT_PAGES = re.compile(
    r"/api/|/static/|/files/|/exchange/export|/sink.json|/diagnostics/records|/reports/<report_id>|/livez|/readyz|/sw.js|/manifest"
)


@pytest.fixture
def plain_app(make_app: Callable[..., Any]) -> Any:
    """The demonstration, with content of people in English."""
    app = make_app()
    with app.extensions["knowledge"].sessions.begin() as session:
        for user in session.scalars(select(models.User)):
            user.display_name, user.department = user.username.title(), "Works"
        for model in (models.Article, models.Revision):
            session.execute(update(model).values(title="Curing", summary="", site="", body="- [ ] one\n"))
        session.add(models.Group(name="Quality"))
        session.execute(delete(models.ArticleTag))
        session.execute(update(models.Comment).values(body="Done."))
        session.execute(update(models.Revision).values(tags=[]))
    return app


def addresses(app: Any) -> list[str]:
    """One address for each page of the application."""
    rules = [
        rule for rule in app.url_map.iter_rules() if "GET" in rule.methods and not NOT_PAGES.search(rule.rule)
    ]
    return sorted(
        re.sub(r"<(?:\w+:)?(\w+)>", lambda place: str(PLACES[place[1]]), rule.rule) for rule in rules
    )


def test_every_page_is_whole_in_english(plain_app: Any, visit: Callable[..., Any]) -> None:
    admin = visit("ito", at=plain_app)
    people = [admin, type(admin)(plain_app)]
    asked = addresses(plain_app)
    assert len(asked) > 20
    asked += ["/articles?q=curing", "/articles?q=zzz&status=draft&category=土工", "/articles/999999"]
    bad = dict[str, list[str]]()
    for person, path in product(people, asked):
        answer = person.get(path, **{"Accept-Language": "en"})
        if answer.status_code == 303:
            continue
        assert answer.status_code in {200, 404}, (path, answer.status_code)
        page = words(answer)
        assert page.language == answer.headers["Content-Language"] == "en", path
        assert {"Accept-Language", "Cookie"} <= set(answer.vary), path
        if found := page.japanese():
            bad[path] = found
    assert bad == {}


@pytest.mark.parametrize("done", sorted(DONE))
def test_what_was_done_is_told_in_both_languages(done: str) -> None:
    assert not JAPANESE.search(say(DONE[done], "en"))


def test_refused_forms_answer_in_english(plain_app: Any, visit: Callable[..., Any]) -> None:
    admin = visit("ito", at=plain_app)
    forms = {
        "/articles/new": {"title": "", "category": "x", "body": ""},
        "/admin/accounts": {"username": "!", "role": "x"},
        "/account/password": {"password": "x", "new_password": "short"},
        "/articles/1/comments": {"body": ""},
    }
    for path, fields in forms.items():
        admin.get("/articles")
        answer = admin.send(
            "POST", path, data={"csrf_token": admin.token, **fields}, headers={"Accept-Language": "en"}
        )
        assert answer.status_code in {403, 422}, path
        assert words(answer).japanese() == [], path


def switch(person: Any, language: str, *, on: str = "/articles") -> Any:
    return person.post("/language", {"language": language}, Referer=f"https://localhost:8443{on}")


def test_the_switch_is_kept_for_the_browser_and_for_the_person(
    visit: Callable[..., Any], browser: Any
) -> None:
    assert words(browser.get("/sign-in")).language == "ja"
    assert switch(browser, "fr").status_code == 422
    answer = switch(browser, "en", on="/sign-in?next=/articles")
    assert (answer.status_code, answer.location) == (303, "/sign-in?next=/articles")
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert words(browser.get("/sign-in")).language == "en"

    person = visit("tanaka")
    assert words(person.get("/articles")).language == "ja"
    switch(person, "en")
    assert words(person.get("/articles")).language == "en"
    assert words(visit("tanaka").get("/articles")).language == "en"
    assert words(visit("sato").get("/articles")).language == "ja"


@pytest.mark.parametrize(
    ("page", "location"),
    [
        ("/articles/1", "/articles/1"),
        ("/account/second-factor/confirm", "/"),  # only a form leads there
        ("//evil.example/", "/"),
        ("/articles?q=a&after=b", "/articles?q=a&after=b"),
    ],
)
def test_the_switch_leads_back_to_the_page(browser: Any, page: str, location: str) -> None:
    browser.get("/sign-in")
    assert switch(browser, "en", on=page).location == location


def test_kept_rows_are_kept_for_each_language(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    answers = [
        person.get("/articles", **{"Accept-Language": language}) for language in ("ja", "en", "ja", "en")
    ]
    assert [answer.headers["X-Cache"] for answer in answers] == ["miss", "miss", "hit", "hit"]
    assert [">Next</a>" in answer.get_data(as_text=True) for answer in answers] == [False, True, False, True]


def test_content_in_japanese_is_marked_in_an_english_page(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    for path in ("/articles", "/articles/1", "/articles/1/history/1", "/overdue"):
        pages = {
            language: person.get(path, **{"Accept-Language": language}).get_data(as_text=True)
            for language in ("ja", "en")
        }
        assert len(re.findall(r'<(?:h1|h2|p|div)[^>]* lang="ja"', pages["en"])) >= 2, path
        assert not re.search(r'<(?:h1|h2|p|div)[^>]* lang="', pages["ja"]), path
