"""The articles that come with the application."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select

from knowledge_system import database
from knowledge_system.domain import fields, markdown, permissions
from knowledge_system.domain.validation import take
from knowledge_system.services.knowledge import generated_content, stored_content

from knowledge_system.models import Article, Attachment, Comment  # isort: skip


def test_there_is_enough_and_it_is_no_filler(stored_articles: list[dict[str, Any]]) -> None:
    assert len(stored_articles) >= 40
    assert len({article["slug"] for article in stored_articles}) == len(stored_articles)
    assert len({article["body"] for article in stored_articles}) == len(stored_articles)
    assert len({article["category"] for article in stored_articles}) >= 8


PEOPLE = {person["username"] for person in stored_content.people()}


def _check(article: dict[str, Any]) -> None:
    take({name: article[name] for name in fields.ARTICLE}, fields.ARTICLE)
    assert {article["author"], *(comment["author"] for comment in article["comments"])} <= PEOPLE
    assert article["slug"]
    assert article["updated"]


def test_every_article_fits_the_forms(stored_articles: list[dict[str, Any]]) -> None:
    for article in stored_articles:
        _check(article)
        assert len(article["body"]) > 200, article["slug"]
        assert markdown.headings(article["body"]), article["slug"]


def test_people_of_every_role() -> None:
    assert {person["role"] for person in stored_content.people()} == set(permissions.ROLES)


def test_loading_twice_adds_nothing_and_the_generator_stops_at_the_number(app: Any) -> None:
    services = app.extensions["knowledge"]
    with services.sessions.begin() as session:
        before = session.scalar(select(func.count(Article.id)))
        assert stored_content.load_articles(session, search=services.search) == 0
        assert stored_content.generate(session, before + 150, search=services.search) == 150
        assert stored_content.generate(session, before + 150, search=services.search) == 0
        assert session.scalar(select(func.count(Article.id))) == before + 150
        assert session.scalar(select(func.count(Comment.id))) > 0


def test_generated_articles_are_different_and_always_the_same() -> None:
    made = [generated_content.generated(number).entry for number in range(450)]
    assert made == [generated_content.generated(number).entry for number in range(450)]
    assert len({entry["title"] for entry in made}) == len({entry["body"] for entry in made}) == 450
    assert {entry["category"] for entry in made} == set(permissions.CATEGORIES)
    assert len({entry["site"] for entry in made}) >= 16
    for entry in made:
        _check(entry)
    # A sentence of the text is that of few articles: the others have other facts.
    lines = Counter(
        line
        for entry in made
        for line in set(entry["body"].splitlines())
        if len(line) > 25 and line[:1] not in "!|"
    )
    assert max(lines.values()) <= 20
    assert sum("|---" in entry["body"] for entry in made) == 450
    assert generated_content.generated(30 * 7 * 16).entry["title"].endswith("その2")


def test_pictures_are_small_and_become_attachments(app: Any) -> None:
    services = app.extensions["knowledge"]
    with services.sessions.begin() as session:
        before = stored_content.count_articles(session)
        stored_content.generate(session, before + 14, search=services.search, intake=services.intake)
    with services.sessions() as session:
        added = session.scalars(select(Article).where(Article.slug.like("generated-%"))).all()
        files = {file.article_id: file for file in session.scalars(select(Attachment))}
        assert len(added) == 14
        assert 10 <= len(files) <= 12
        for article in added:
            file = files.get(article.id)
            assert ("![" in article.body) == (file is not None)
            if file is not None:
                assert f"](/files/{file.id})" in article.body
                assert (file.width, file.height, file.shown) == (720, 405, True)
                assert file.size < 20_000
    again = [generated_content.generated(number).draw() for number in range(14)]
    assert {hashlib.sha256(picture).hexdigest() for picture in again if picture} >= {
        file.digest for file in files.values()
    }


def test_generated_articles_are_committed_in_parts_and_an_interrupted_run_goes_on(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = app.extensions["knowledge"]
    monkeypatch.setattr(database, "_GENERATED_AT_ONCE", 20)

    def counted() -> int:
        with services.sessions() as session:
            return stored_content.count_articles(session)

    def fill(number: int, *, stop_at: int | None = None) -> tuple[int, list[int]]:
        seen: list[int] = []

        def shown(done: int, _total: int) -> None:
            seen.append(done)
            if done == stop_at:
                raise KeyboardInterrupt

        _, added = database.fill(
            services.sessions,
            services.search,
            password="unused",
            clock=services.clock,
            number=number,
            progress=lambda label: shown if label == "生成した記事" else lambda _done, _total: None,
        )
        return added, seen

    before = counted()
    with pytest.raises(KeyboardInterrupt):
        fill(before + 50, stop_at=20)
    assert counted() == before + 20
    assert fill(before + 50) == (30, [20, 30])
    assert fill(before + 50) == (0, [])
    assert counted() == before + 50
