"""Two people at the same moment: what one was allowed must still be so when it is written."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, update

from knowledge_system.models import Article, AuditEntry, User
from knowledge_system.services import audit

if TYPE_CHECKING:
    from conftest import Browser

TEXT = {
    "title": "足場の点検",
    "category": "足場",
    "summary": "",
    "body": "朝と強風の後に点検する。",
    "tags": "足場",
    "site": "",
    "status": "review",
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def shared(request: pytest.FixtureRequest, make_app: Callable[..., Any]) -> Any:
    """The application on each database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return make_app(database_url=url)


@contextmanager
def meanwhile(app: Any, statement: str, other: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread when this thread is about to execute the statement, once.

    It is waited for a moment: either it is done then, or it waits for what this thread holds.
    """
    here, engine = threading.current_thread(), app.extensions["knowledge"].engine
    others: list[threading.Thread] = []

    def before(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if others or threading.current_thread() is not here or not re.match(statement, text):
            return
        others.append(threading.Thread(target=other))
        others[0].start()
        others[0].join(0.5)

    event.listen(engine, "before_cursor_execute", before)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", before)
        for thread in others:
            thread.join(30)
    assert others, "the statement was never executed"


def in_review(person: Browser) -> int:
    person.get("/articles/new")
    made = person.post("/articles/new", TEXT)
    assert made.status_code == 303
    return int(made.location.rpartition("/")[2].partition("?")[0])


def stored(app: Any, number: int) -> Article:
    with app.extensions["knowledge"].sessions() as session:
        return session.get_one(Article, number)


def test_nothing_gets_into_what_is_being_approved(shared: Any, visit: Callable[..., Browser]) -> None:
    writer, reviewer = visit("tanaka", at=shared), visit("sato", at=shared)
    number = in_review(writer)
    reviewer.get(f"/articles/{number}")
    writer.get(f"/articles/{number}/edit")
    answers = []

    def approve() -> None:
        answers.append(
            reviewer.post(f"/articles/{number}/steps", {"step": "approve", "revision": "1", "comment": ""})
        )

    with meanwhile(shared, "UPDATE articles SET revision", approve):
        writer.post(f"/articles/{number}/edit", {**TEXT, "body": "点検はしない。", "revision": "1"})
    found = stored(shared, number)
    assert (found.status, found.revision) == ("review", 2)
    assert [answer.status_code for answer in answers] == [409]


def test_nobody_approves_what_was_written_meanwhile(shared: Any, visit: Callable[..., Browser]) -> None:
    writer, reviewer, again = visit("tanaka", at=shared), visit("sato", at=shared), visit("sato", at=shared)
    number = in_review(writer)
    reviewer.get(f"/articles/{number}")
    again.get(f"/articles/{number}/edit")

    def write() -> None:
        again.post(f"/articles/{number}/edit", {**TEXT, "body": "点検はしない。", "revision": "1"})

    with meanwhile(shared, "UPDATE articles SET status", write):
        approved = reviewer.post(
            f"/articles/{number}/steps", {"step": "approve", "revision": "2", "comment": ""}
        )
    assert approved.status_code == 409
    assert (stored(shared, number).status, stored(shared, number).revision) == ("review", 2)


def test_two_administrators_do_not_remove_each_other(shared: Any, visit: Callable[..., Browser]) -> None:
    services = shared.extensions["knowledge"]
    with services.sessions.begin() as session:
        session.execute(update(User).where(User.username == "sato").values(role="admin"))
    first, second = visit("ito", at=shared), visit("sato", at=shared)
    for person, other in ((first, "sato"), (second, "ito")):
        assert person.get(f"/admin/accounts/{other}").status_code == 200
    answers = []

    def remove(person: Browser, other: str) -> None:
        fields = {"display_name": other, "department": "", "role": "viewer", "email": "", "active": "on"}
        answers.append(person.post(f"/admin/accounts/{other}", fields).status_code)

    with meanwhile(shared, "UPDATE users SET", lambda: remove(second, "ito")):
        remove(first, "sato")
    assert sorted(answers) == [303, 403]
    with services.sessions() as session:
        assert session.scalars(select(User.username).where(User.role == "admin")).all() == ["ito"]


def test_every_entry_finds_its_place_in_the_audit_log(shared: Any) -> None:
    services = shared.extensions["knowledge"]
    with meanwhile(shared, "INSERT INTO audit_entries", lambda: services.trail.note("probe", "1", actor="1")):
        services.trail.note("probe", "2", actor="2")
    with services.sessions() as session:
        subjects = select(AuditEntry.subject).where(AuditEntry.action == "probe")
        assert len(set(session.scalars(subjects))) == 2
        assert audit.first_broken_entry(session) is None


@pytest.mark.parametrize(
    ("path", "fields", "statement"),
    [
        ("comments", {"body": "確認しました。"}, "INSERT INTO comments"),
        ("favourite", {"on": "on"}, "INSERT INTO favourites"),
    ],
)
def test_what_is_said_of_an_article_that_is_being_removed(
    shared: Any, visit: Callable[..., Browser], path: str, fields: dict[str, str], statement: str
) -> None:
    writer, reader, administrator = (visit(each, at=shared) for each in ("tanaka", "sato", "ito"))
    number = in_review(writer)
    reader.get(f"/articles/{number}")
    administrator.get("/articles")
    removed = []

    def remove() -> None:
        answer = administrator.api(
            "DELETE", f"/api/knowledge/{number}", **{"If-Match": "*", "X-CSRF-Token": administrator.token}
        )
        removed.append(answer.status_code)

    with meanwhile(shared, statement, remove):
        assert reader.post(f"/articles/{number}/{path}", fields).status_code == 303
    assert removed == [204]
