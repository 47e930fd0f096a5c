"""Articles that only the members of some groups may read: the rule, its SQL, and that nothing else shows them."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import create_engine, delete, select, update
from sqlalchemy.orm import Session

from knowledge_system.domain import permissions
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.models import (
    Article,
    ArticleNode,
    Attachment,
    AuditEntry,
    Base,
    Group,
    GroupMember,
    Reader,
    Revision,
    TreeNode,
    User,
)
from knowledge_system.services import export_import, readers, reports, visibility
from knowledge_system.services.attachments import article_attachments, attachment_texts
from knowledge_system.services.identity import accounts, groups
from knowledge_system.services.knowledge import article_queries, digests, overdue_articles
from knowledge_system.settings import AREAS
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock

NOW = datetime(2026, 11, 25, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
PEOPLE, GROUPS, NODES, KINDS = (1, 2, 3), (1, 2), (1, 2, 3, 4), ("土工", "安全")

# --- the rule and its SQL -----------------------------------------------------------------------


class Placed(NamedTuple):
    """An article: author, status, category, node (0 for none), and the categories of its unpublished versions."""

    author: int
    status: str
    category: str
    node: int
    coming: list[str]


PARENTS = {1: None, 2: 1, 3: 2, 4: None}
ARTICLES = st.lists(
    st.builds(
        Placed,
        st.sampled_from(PEOPLE),
        st.sampled_from(list(permissions.STATUSES)),
        st.sampled_from(KINDS),
        st.sampled_from((0, *NODES)),
        st.lists(st.sampled_from(KINDS), max_size=2),
    ),
    min_size=1,
    max_size=4,
)
MEMBERS = st.sets(st.tuples(st.sampled_from(GROUPS), st.sampled_from(PEOPLE)))
RESTRICTIONS = st.sets(
    st.tuples(
        st.one_of(
            st.tuples(st.just("article_id"), st.integers(1, 4)),
            st.tuples(st.just("category"), st.sampled_from(KINDS)),
            st.tuples(st.just("node_id"), st.sampled_from(NODES)),
        ),
        st.sampled_from(GROUPS),
    ),
    max_size=6,
)
ROLES = st.tuples(*(st.sampled_from(list(permissions.ROLES)) for _ in PEOPLE))


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    made = create_engine("sqlite://")
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def restrictions_of(number: int, article: Placed, rows: set[Any]) -> list[set[int]]:
    """What the rule is given: the groups of each thing by which an article is restricted."""
    above = {article.node, PARENTS.get(article.node), PARENTS.get(PARENTS.get(article.node) or 0)}
    by_subject: dict[Any, set[int]] = {}
    for (kind, subject), group in rows:
        applies = {"article_id": number, "category": article.category}.get(kind)
        if subject == applies or (kind == "node_id" and subject in above):
            by_subject.setdefault((kind, subject), set()).add(group)
    return list(by_subject.values())


def waiting_restrictions_of(article: Placed, rows: set[Any]) -> list[set[int]]:
    """The groups of each unpublished version whose category is restricted."""
    groups = [{group for subject, group in rows if subject == ("category", each)} for each in article.coming]
    return [each for each in groups if each]


def files_seen(session: Session, actor: Actor, number: int) -> list[bool]:
    """Whether an actor sees the waiting file of an article: on its page, in its list, and the file itself."""
    ways: tuple[Callable[[], Any], ...] = (
        lambda: article_queries.read(session, actor, number)["attachments"],
        lambda: article_attachments.listed(session, actor, number),
        lambda: article_attachments.find(session, actor, number),
    )
    seen = []
    for way in ways:
        try:
            seen.append(bool(way()))
        except Problem as problem:
            seen.append(problem.code != "not-found")
    return seen


@settings(deadline=None, max_examples=40)
@given(ARTICLES, MEMBERS, RESTRICTIONS, ROLES)
def test_the_rule_and_its_sql_agree_for_every_person_and_article(
    engine: Any, articles: list[Placed], members: set[Any], rows: set[Any], roles: tuple[str, ...]
) -> None:
    rows = {row for row in rows if row[0][0] != "article_id" or row[0][1] <= len(articles)}
    with engine.connect() as connection, connection.begin() as whole, Session(connection) as session:
        for person, role in zip(PEOPLE, roles, strict=True):
            session.add(
                User(
                    id=person, username=f"u{person}", display_name="x", role=role, active=True, created_at=NOW
                )
            )
        session.add_all(Group(id=group, name=f"g{group}") for group in GROUPS)
        session.flush()
        session.add_all(GroupMember(group_id=group, user_id=person) for group, person in members)
        session.add_all(TreeNode(id=n, parent_id=PARENTS[n], position=n, name=f"n{n}") for n in NODES)
        for number, each in enumerate(articles, 1):
            texts = {"title": "t", "body": "b", "category": each.category, "status": each.status}
            session.add(Article(id=number, author_id=each.author, created_at=NOW, updated_at=NOW, **texts))
            if each.node:
                session.add(ArticleNode(article_id=number, node_id=each.node))
            for version, category in enumerate(("安全", each.category, *each.coming)):
                kept = {"number": version, "editor_id": each.author, "status": "draft", "saved_at": NOW}
                session.add(Revision(article_id=number, category=category, **kept))
            file = {"name": "x.png", "content_type": "image/png", "size": 1, "digest": "0" * 64}
            file |= {"thumbnail": "", "width": 1, "height": 1, "uploader_id": each.author}
            file |= {"shown": False, "created_at": NOW}
            session.add(Attachment(id=number, article_id=number, **file))
        session.flush()
        session.add_all(Reader(group_id=group, **{kind: subject}) for (kind, subject), group in rows)
        session.flush()
        for person, role in zip(PEOPLE, roles, strict=True):
            own = frozenset(group for group, member in members if member == person)
            actor = Actor(person, f"u{person}", "x", role, groups=own)
            wanted = {
                number
                for number, each in enumerate(articles, 1)
                if permissions.may_see(
                    actor,
                    author_id=each.author,
                    status=each.status,
                    readers=restrictions_of(number, each, rows),
                )
            }
            assert set(session.scalars(select(Article.id).where(visibility.seen_by(actor)))) == wanted
            # The actor of a request has only the groups that something is restricted to, and the same rights.
            found = accounts.find(session.connection(), person)
            assert found is not None
            assert set(session.scalars(select(Article.id).where(visibility.seen_by(found)))) == wanted
            by_person = {
                number
                for number in range(1, len(articles) + 1)
                if person in session.scalars(visibility.select_readers(number))
            }
            assert by_person == wanted
            for number, each in enumerate(articles, 1):
                sees_file = number in wanted and permissions.may_see_waiting(
                    actor,
                    author_id=each.author,
                    status=each.status,
                    readers=waiting_restrictions_of(each, rows),
                )
                assert files_seen(session, actor, number) == [sees_file] * 3
        whole.rollback()


# --- what a person outside the groups gets to see ------------------------------------------------

SECRET = "極秘橋"  # in the title, body, summary, tag, site, comment, attachment and place
GONE = 999_999
WIDE = " | ".join(
    f"{group}=100000 per minute"
    for group in ("search", "api_read", "api_write", "api_delete", "api_open", "file_upload", "admin")
)
TEXTS = {
    "title": f"{SECRET}の見積",
    "summary": f"{SECRET}の要約",
    "body": f"{SECRET}の本文",
    "category": "積算",
    "tags": [f"{SECRET}札"],
    "site": f"{SECRET}現場",
}
VOLATILE = re.compile(
    r'(?:name="(?:csrf_token|once|key)" value|nonce|content|data-csrf)="[^"]*"|signature=[0-9a-f]{64}'
    r'|nonce-[\w+/=-]+|"request_id": "[^"]*"|<code>[0-9a-f]{32}</code>|"csrf_token": "[^"]*"'
)


class Restricted(NamedTuple):
    """An article and what belongs to it, in a node that is restricted or open."""

    article: int
    file: int
    comment: int
    node: int
    group: int


def call(person: Any, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return person.api(method, path, body, **{"X-CSRF-Token": person.token, **headers})


def join(app: Any, name: str, *usernames: str) -> int:
    with app.extensions["knowledge"].sessions.begin() as session:
        ids = session.scalars(select(User.id).where(User.username.in_(usernames))).all()
        for user in ids:
            groups.join(session, user, [name])
        return int(session.scalars(select(Group.id).where(Group.name == name)).one())


def leave(app: Any, username: str) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:
        own = select(User.id).where(User.username == username)
        session.execute(delete(GroupMember).where(GroupMember.user_id.in_(own)))


def restrict(person: Any, kind: str, subject: object, *chosen: int) -> Any:
    path = f"/readers/{kind}/{quote(str(subject))}"
    page = person.get(path)
    assert page.status_code == 200, page.text
    seen = re.findall(r'name="seen" value="([0-9a-f]*)"', page.text)[0]
    return person.post(path, {"seen": seen, **{f"group-{group}": "on" for group in chosen}})


def make_restricted(app: Any, visit: Callable[..., Any], kind: str) -> Restricted:
    """An article of tanaka's that sato has published, for the group of both."""
    group = join(app, "見積班", "tanaka", "sato", "ito")
    writer, reviewer, administrator = visit("tanaka", at=app), visit("sato", at=app), visit("ito", at=app)
    for person in (writer, reviewer, administrator):
        person.get("/articles/new")
    node = 0
    if kind == "node":
        added = reviewer.post("/tree", {"name": f"{SECRET}ツリー", "parent": "0"})
        top = int(added.location.rpartition("-")[2])
        assert restrict(reviewer, "node", top, group).status_code == 303
        below = reviewer.post("/tree", {"name": f"{SECRET}の下", "parent": str(top)})
        node = int(below.location.rpartition("-")[2])
    if kind == "category":
        assert restrict(administrator, "category", "積算", group).status_code == 303
    new = call(writer, "POST", "/api/knowledge", {**TEXTS, "status": "draft"}).json["id"]
    if kind == "article":
        assert restrict(writer, "article", new, group).status_code == 303
    if node:
        assert writer.post(f"/articles/{new}/place", {"node": str(node)}).status_code == 303
    picture = io.BytesIO()
    Image.new("RGB", (40, 40)).save(picture, "PNG")
    files = {"file": (io.BytesIO(picture.getvalue()), f"{SECRET}.png")}
    sent = writer.send("POST", f"/articles/{new}/attachments", data={"csrf_token": writer.token, **files})
    assert sent.status_code == 303, sent.text
    read = call(writer, "GET", f"/api/knowledge/{new}").json
    step = {"step": "submit", "revision": read["revision"], "comment": ""}
    assert call(writer, "POST", f"/api/knowledge/{new}/steps", step).status_code == 200
    assert (
        call(reviewer, "POST", f"/api/knowledge/{new}/steps", {**step, "step": "approve"}).status_code == 200
    )
    said = call(reviewer, "POST", f"/api/knowledge/{new}/comments", {"body": f"{SECRET}の話 @yamamoto"})
    file = call(writer, "GET", f"/api/knowledge/{new}/attachments").json["items"][0]["id"]
    with app.extensions["knowledge"].sessions.begin() as session:
        attachment_texts.keep(session, file, f"{SECRET}の単価")
    return Restricted(new, file, said.json["id"], node, group)


QUERIES = {
    "/articles": ("q", "tag", "site", "category", "author", "status", "node"),
    "/api/knowledge": ("q", "tag", "site", "category", "author", "status", "node"),
    "/exchange/choose": ("q", "node"),
    "/api/tags": ("q",),
    "/api/titles": ("q",),
    "/site": ("name",),
}
VALUES = {
    "q": SECRET,
    "tag": f"{SECRET}札",
    "site": f"{SECRET}現場",
    "name": f"{SECRET}現場",
    "category": "積算",
    "author": "tanaka",
    "status": "review",
    "node": "1",
}


def pages(person: Any) -> dict[str, tuple[int, str]]:
    """Status and text of every page and API route that names no article, and of its lists with queries."""
    shown = {}
    for rule in person.app.url_map.iter_rules():
        if "GET" not in rule.methods or rule.arguments or rule.rule in {"/sign-in", "/exchange/export"}:
            continue
        for query in ("", *(f"?{name}={quote(VALUES[name])}" for name in QUERIES.get(rule.rule, ()))):
            path = f"{rule.rule}{query}"
            answer = person.api("GET", path) if rule.rule.startswith("/api/") else person.get(path)
            shown[path] = answer.status_code, VOLATILE.sub("", answer.get_data(as_text=True))
    return shown


@pytest.fixture
def app(make_app: Callable[..., Any]) -> Any:
    return make_app(MKS_RATE_LIMITS=WIDE)


@pytest.mark.parametrize("kind", ["article", "category", "node"])
def test_nothing_shows_that_there_is_such_an_article(app: Any, visit: Callable[..., Any], kind: str) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:  # of which nobody loses sight
        session.execute(update(Article).where(Article.category == "積算").values(category="土工"))
    outsiders = [visit(name, at=app) for name in ("yamamoto", "kobayashi")]  # a reviewer, and a reader
    before = [pages(person) for person in outsiders]
    secret = make_restricted(app, visit, kind)
    for person, shown in zip(outsiders, before, strict=True):
        assert len(shown) > 60
        assert different(shown, pages(person)) == {}
        exported = person.get(f"/exchange/export?ids={secret.article}")
        assert exported.status_code == person.get(f"/exchange/export?ids={GONE}").status_code == 404
    insider = visit("sato", at=app)
    assert set(different(before[0], pages(insider))) > {
        "/articles",
        "/api/tags?q=" + quote(SECRET),
        "/api/titles?q=" + quote(SECRET),
    }


def different(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Where two walks differ, with the lines that only the second one has."""
    return {
        path: (status, other[path][0], sorted(set(other[path][1].splitlines()) - set(text.splitlines()))[:3])
        for path, (status, text) in one.items()
        if other[path] != (status, text)
    }


BODIES: dict[str, dict[str, str]] = {
    "articles.commenting": {"body": "x"},
    "articles.changing_comment": {"body": "x"},
    "articles.saving": {**dict.fromkeys(("summary", "tags", "site"), ""), "title": "x", "category": "土工"}
    | {"body": "x", "status": "draft", "revision": "1"},
    "following.favouring": {"on": "on"},
    "tree.placing": {"node": "0"},
    "tree.changing": {"step": "rename", "name": "x", "parent": "0", "after": "0"},
    "review.taking": {"step": "approve", "revision": "1", "comment": ""},
    "review.restoring": {"revision": "1"},
    "review.stepping": {"step": "approve", "revision": "1", "comment": ""},
    "readers.restricting": {"seen": ""},
}
API_BODIES: dict[str, Any] = {
    "api.knowledge.saving": {**TEXTS, "status": "draft", "revision": 1},
    "api.knowledge.stepping": {"step": "retire", "revision": 1, "comment": "x"},
    "api.knowledge.commenting": {"body": "x"},
    "api.readers.restricting": {"groups": []},
}
NOT_ABOUT_ITS_EXISTENCE = {
    "articles.discarding",  # one's own draft, if there is any
    "api.following.forgetting",  # one's own favourite
    "api.drafts.storing",
    "api.drafts.discarding",
}


def with_ids(app: Any, rule: Any, ids: dict[str, Any]) -> str:
    values = {name: ids.get(name, "x") for name in rule.arguments}
    return str(app.url_map.bind("localhost").build(rule.endpoint, values, method=next(iter(rule.methods))))


def answer_to(person: Any, rule: Any, method: str, path: str) -> Any:
    """The response to a request with the body and headers that the route needs."""
    if path.startswith("/api/"):
        headers = {"If-Match": "*"} if method in {"PUT", "DELETE"} else {}
        return call(person, method, path, API_BODIES.get(rule.endpoint), **headers)
    if method in {"GET", "HEAD"}:
        return person.send(method, path)
    return person.post(path, BODIES.get(rule.endpoint, {}))


@pytest.mark.parametrize("kind", ["article", "category", "node"])
def test_every_route_of_the_article_answers_as_if_there_were_none(
    app: Any, visit: Callable[..., Any], kind: str
) -> None:
    secret, person = make_restricted(app, visit, kind), visit("yamamoto", at=app)
    person.get("/articles/new")
    real = {"article_id": secret.article, "attachment_id": secret.file, "comment_id": secret.comment}
    real |= {"node_id": secret.node or GONE, "number": 1, "kind": "article", "subject": secret.article}
    none = {**dict.fromkeys(real, GONE), "number": 1, "kind": "article"}
    walked = 0
    for rule in app.url_map.iter_rules():
        if not rule.arguments & {"article_id", "attachment_id", "comment_id", "node_id", "subject"}:
            continue
        for method in sorted(rule.methods - {"OPTIONS"}):
            answers = []
            for ids in (real, none):
                answer = answer_to(person, rule, method, with_ids(app, rule, ids))
                text = re.sub("[0-9]+", "#", VOLATILE.sub("", answer.get_data(as_text=True)))
                answers.append((answer.status_code, text))
            known, unknown = answers
            assert known == unknown, (rule.rule, method)
            assert known[0] == 404 or rule.endpoint in NOT_ABOUT_ITS_EXISTENCE, (rule.rule, method, known)
            assert SECRET not in known[1], rule.rule
            walked += 1
    assert walked > 40


def make_waiting(app: Any, visit: Callable[..., Any]) -> tuple[int, int]:
    """A published article that all may read, and its next version with a file, in a restricted category."""
    group = join(app, "見積班", "tanaka", "sato", "ito")
    writer, reviewer, administrator = (visit(name, at=app) for name in ("tanaka", "sato", "ito"))
    for person in (writer, reviewer, administrator):
        person.get("/articles/new")
    plain = {**TEXTS, "title": "橋", "summary": "", "body": "橋", "category": "土工", "tags": [], "site": ""}
    new = call(writer, "POST", "/api/knowledge", {**plain, "status": "draft"}).json["id"]
    step = {"revision": 1, "comment": ""}
    for person, name in ((writer, "submit"), (reviewer, "approve")):
        taken = call(person, "POST", f"/api/knowledge/{new}/steps", {**step, "step": name})
        assert taken.status_code == 200, taken.text
    coming = {**TEXTS, "category": "安全", "status": "review", "revision": 1}
    assert call(writer, "PUT", f"/api/knowledge/{new}", coming).status_code == 200
    picture = io.BytesIO()
    Image.new("RGB", (40, 40)).save(picture, "PNG")
    files = {"file": (io.BytesIO(picture.getvalue()), f"{SECRET}.png")}
    sent = writer.send("POST", f"/articles/{new}/attachments", data={"csrf_token": writer.token, **files})
    assert sent.status_code == 303, sent.text
    file = call(writer, "GET", f"/api/knowledge/{new}/attachments").json["items"][0]["id"]
    with app.extensions["knowledge"].sessions.begin() as session:
        attachment_texts.keep(session, file, f"{SECRET}の単価")
    assert restrict(administrator, "category", "安全", group).status_code == 303
    return new, file


def test_no_route_shows_a_reviewer_a_file_of_a_version_that_is_restricted(
    app: Any, visit: Callable[..., Any]
) -> None:
    article, file = make_waiting(app, visit)
    outsider, insider = visit("yamamoto", at=app), visit("sato", at=app)
    outsider.get("/articles/new"), insider.get("/articles/new")
    assert SECRET in insider.get(f"/articles/{article}").text
    assert insider.get(f"/files/{file}").status_code == 200
    real = {"article_id": article, "attachment_id": file, "comment_id": GONE, "number": 2, "node_id": GONE}
    real |= {"kind": "article", "subject": article}
    routes = [rule for rule in app.url_map.iter_rules() if rule.arguments & {"article_id", "attachment_id"}]
    routes += [rule for rule in app.url_map.iter_rules() if "subject" in rule.arguments]
    walked = 0
    # First what names a file: other requests may change the article.
    for rule in sorted(routes, key=lambda rule: "attachment_id" not in rule.arguments):
        for method in sorted(rule.methods - {"OPTIONS"}):
            path, other = (with_ids(app, rule, {**real, "attachment_id": number}) for number in (file, GONE))
            answer, unknown = answer_to(outsider, rule, method, path), None
            assert SECRET not in answer.get_data(as_text=True), (rule.rule, method)
            if "attachment_id" in rule.arguments:
                unknown = answer_to(outsider, rule, method, other)
                assert answer.status_code == unknown.status_code == 404, (rule.rule, method)
                walked += 1
    assert walked >= 8
    assert call(outsider, "GET", f"/api/knowledge/{article}/attachments").json["items"] == []
    assert not [path for path, (_, text) in pages(outsider).items() if SECRET in text and "?" not in path]


def test_what_was_said_about_a_restricted_version_is_hidden_from_reviewers_outside(
    app: Any, visit: Callable[..., Any]
) -> None:
    article, _ = make_waiting(app, visit)
    outsider, insider = visit("yamamoto", at=app), visit("sato", at=app)
    insider.get("/articles/new")
    step = {"step": "return", "revision": 2, "comment": f"{SECRET}を直してください"}
    assert call(insider, "POST", f"/api/knowledge/{article}/steps", step).status_code == 200
    assert SECRET in insider.get(f"/articles/{article}/history").text
    seen = outsider.get(f"/articles/{article}/history")
    assert seen.status_code == 200
    assert SECRET not in seen.text
    assert "承認" in seen.text  # the steps of the version that they may read


def test_files_stay_hidden_from_reviewers_who_write_over_a_restricted_version(
    app: Any, visit: Callable[..., Any]
) -> None:
    """And they can neither add files that they would not see, nor publish the hidden ones."""
    article, file = make_waiting(app, visit)
    outsider, other, insider = (visit(name, at=app) for name in ("yamamoto", "ito", "sato"))
    for person in (outsider, other, insider):
        person.get("/articles/new")
    leave(app, "ito")
    path = f"/api/knowledge/{article}"
    picture = {"file": (io.BytesIO(b"x"), "x.png")}
    refused = outsider.send(
        "POST", f"{path}/attachments", data=picture, headers={"X-CSRF-Token": outsider.token}
    )
    assert refused.status_code == 403
    revision = call(outsider, "GET", path).json["revision"]
    plain = {**TEXTS, "title": "橋", "body": "橋", "category": "土工", "status": "review"}
    assert call(outsider, "PUT", path, {**plain, "revision": revision}).status_code == 200
    step = {"step": "approve", "revision": revision + 1, "comment": ""}
    for person in (outsider, other):
        assert person.get(f"/files/{file}").status_code == 404
        assert call(person, "GET", f"{path}/attachments").json["items"] == []
    refused = call(other, "POST", f"{path}/steps", step)
    assert [error["code"] for error in refused.json["errors"]] == ["not-allowed"]
    assert call(insider, "GET", f"{path}/attachments").json["items"][0]["id"] == file
    assert call(insider, "POST", f"{path}/steps", {**step, "files": str(file)}).status_code == 200
    assert outsider.get(f"/files/{file}").status_code == 200  # published by somebody who has seen it


# --- notices, mails, reports and what is kept in the cache ----------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def mailing(
    request: pytest.FixtureRequest, make_app: Callable[..., Any], make_smtp: Callable[..., Any]
) -> Any:
    server = make_smtp()
    url = {"database_url": request.getfixturevalue("postgres_url")} if request.param == "postgresql" else {}
    made = make_app(
        **url,
        areas=AREAS - {"logging"},
        MKS_SMTP_HOST="localhost",
        MKS_SMTP_PORT=str(server.port),
        MKS_SMTP_SECURITY="plain",
        MKS_ALERT_FROM="system@knowledge.example",
        MKS_ALERT_TO="ops@knowledge.example",
        MKS_RATE_LIMITS=WIDE,
    )
    made.server = server
    return made


def test_nobody_hears_of_what_they_may_not_read_any_more(
    mailing: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    """The author, who watches it and leaves the group, and a mentioned outsider: notices, mails and reports."""
    app, sessions = mailing, mailing.extensions["knowledge"].sessions
    secret = make_restricted(app, visit, "article")
    watcher, reviewer = visit("tanaka", at=app), visit("sato", at=app)
    watcher.get("/account"), reviewer.get("/account")
    watched = {"kind": "article", "subject": str(secret.article)}
    assert call(watcher, "PUT", "/api/watches", watched).status_code == 204
    assert call(watcher, "PUT", f"/api/favourites/{secret.article}").status_code == 204
    say = f"/api/knowledge/{secret.article}/comments"
    call(reviewer, "POST", say, {"body": "見えるうち"})
    assert "見えるうち" in watcher.get("/notices").text
    now = datetime.fromtimestamp(clock.time(), UTC)
    with sessions() as session:
        tanaka = session.scalars(select(User.id).where(User.username == "tanaka")).one()
        actor = accounts.find(session.connection(), tanaka)
        assert actor is not None
        assert (actor.unread, actor.groups) == (1, {secret.group})
        told = reports.figures(session, actor, "monthly", "2026-11", now=now)
        assert SECRET in str(told)

    leave(app, "tanaka")
    with sessions() as session:  # and no commit: there are others of the same author
        session.execute(update(Article).values(confirmed_at=LONG_AGO))
        assert SECRET not in str(overdue_articles.remind(session, now=now))
    tasks = app.extensions["knowledge"].background.tasks
    list(TaskWorker(tasks, schedule=False).run_pending())
    before = len(app.server.received)
    call(reviewer, "POST", say, {"body": "見えなくなってから @tanaka @yamamoto"})
    with sessions.begin() as session:
        session.execute(update(Article).where(Article.id == secret.article).values(confirmed_at=LONG_AGO))
        session.execute(update(User).where(User.username == "tanaka").values(mails="daily"))
    list(TaskWorker(tasks, schedule=False).run_pending())
    mailed = [mail.rcpt_tos for mail in app.server.received[before:]]
    assert not any("tanaka" in str(to) or "yamamoto" in str(to) for to in mailed)
    shown = {
        path: watcher.get(path).text for path in ("/", "/notices", "/favourites", "/overdue", "/articles")
    }
    assert not [
        path for path, text in shown.items() if SECRET in text or "見えな" in text or "見えるうち" in text
    ]
    assert call(watcher, "GET", "/api/watches").json["items"] == []
    with sessions.begin() as session:
        actor = accounts.find(session.connection(), tanaka)
        assert actor is not None
        assert (actor.unread, actor.groups) == (0, frozenset())
        assert SECRET not in str(digests.take(session, tanaka, now=now))
        assert SECRET not in str(reports.figures(session, actor, "monthly", "2026-11", now=now))
        assert export_import.selected(session, actor, [secret.article, 1]) == [1]
        with pytest.raises(Problem, match="not-found"):
            readers.find(session, actor, "article", str(secret.article))


def test_what_is_cached_is_shared_by_those_with_the_same_groups_only(
    app: Any, visit: Callable[..., Any]
) -> None:
    secret = make_restricted(app, visit, "article")
    found = f"/api/knowledge?q={quote(SECRET)}"
    seen = {}
    for name in ("sato", "tanaka", "yamamoto", "kobayashi", "suzuki", "sato"):
        answer = visit(name, at=app).api("GET", found)
        ids = [item["id"] for item in answer.json["items"]]
        seen[name] = answer.headers["X-Cache"], secret.article in ids
        # No shared cache may keep what depends on the person.
        for each in (answer, visit(name, at=app).get("/articles")):
            assert {"no-store", "private"} & set(re.split(", ?", each.headers["Cache-Control"])), name
    assert seen["tanaka"] == seen["sato"] == ("hit", True)
    assert seen["yamamoto"] == ("miss", False)
    assert seen["kobayashi"] == seen["suzuki"] == ("hit", False)


def parts_with(person: Any, text: str) -> set[str]:
    """The parts of the start page that contain a text."""
    page = person.get("/")
    assert page.status_code == 200
    found = re.findall(r'<section class="card" aria-labelledby="(\w+)">(.*?)</section>', page.text, re.DOTALL)
    return {name for name, shown in found if text in shown}


def test_every_part_of_the_start_page_follows_the_readers_of_an_article(
    app: Any, visit: Callable[..., Any]
) -> None:
    secret = make_restricted(app, visit, "article")
    inside, outside = visit("tanaka", at=app), visit("yamamoto", at=app)
    parts = {"recent", "watched", "favourites", "newest"}
    join(app, "見積班", "yamamoto")
    for person in (inside, outside, visit("kobayashi", at=app)):
        person.get("/account")
        followed = person.get(f"/articles/{secret.article}").status_code == 200
        watched = {"kind": "tag", "subject": f"{SECRET}札"}
        assert (call(person, "PUT", "/api/watches", watched).status_code == 204) == followed
        kept = call(person, "PUT", f"/api/favourites/{secret.article}")
        assert (kept.status_code == 204) == followed
        assert parts_with(person, SECRET) == (parts if followed else set())

    # Whose page has just been shown, with the statements and the list that others use too.
    leave(app, "yamamoto")
    assert [parts_with(person, SECRET) for person in (outside, inside)] == [set(), parts]

    changed = call(inside, "GET", f"/api/knowledge/{secret.article}").json
    article = {**TEXTS, "title": f"{SECRET}の改題", "status": "review", "revision": changed["revision"]}
    match = inside.api("GET", f"/api/knowledge/{secret.article}").headers["ETag"]
    path = f"/api/knowledge/{secret.article}"
    assert call(inside, "PUT", path, article, **{"If-Match": match}).status_code == 200
    step = {"step": "approve", "revision": changed["revision"] + 1, "comment": ""}
    assert call(visit("sato", at=app), "POST", f"{path}/steps", step).status_code == 200
    assert parts_with(inside, f"{SECRET}の改題") == parts
    assert parts_with(inside, f"{SECRET}の見積") == set()
    assert parts_with(outside, SECRET) == set()


# --- choosing the readers -------------------------------------------------------------------------


def test_who_chooses_the_readers_of_what(app: Any, visit: Callable[..., Any]) -> None:
    group, other = join(app, "見積班", "tanaka", "sato"), join(app, "夜間班", "yamamoto")
    writer, reviewer, administrator = (visit(name, at=app) for name in ("tanaka", "sato", "ito"))
    for person in (writer, reviewer, administrator):
        person.get("/articles/new")
    new = call(writer, "POST", "/api/knowledge", {**TEXTS, "status": "draft"}).json["id"]
    assert "ご自身が閲覧できなくなります" in restrict(writer, "article", new, other).text
    assert restrict(writer, "article", new, group).status_code == 303
    assert restrict(reviewer, "article", new, group, other).status_code == 303
    with app.extensions["knowledge"].sessions() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.action == "group.readers")).all()
        assert '"groups": ["夜間班", "見積班"]' in entries[-1].detail
        assert '"groups_before": ["見積班"]' in entries[-1].detail
    stale = {"seen": "0" * 32, f"group-{group}": "on"}
    assert reviewer.post(f"/readers/article/{new}", stale).status_code == 409
    assert reviewer.post(f"/readers/article/{new}", {"seen": "", f"group-{GONE}": "on"}).status_code == 404
    # An approved article of one's own is opened and closed by reviewers; categories by administrators.
    assert writer.get("/readers/article/1").status_code == 403
    assert reviewer.get(f"/readers/category/{quote('積算')}").status_code == 403
    for path in ("/readers/x/1", "/readers/category/x", "/readers/node/1", "/readers/article/０"):
        assert administrator.get(path).status_code == 404, path
    assert administrator.get(f"/articles/{new}").status_code == 404  # no member of a group
    assert restrict(administrator, "category", "安全", group).status_code == 303  # and need not be one
    refused = call(administrator, "POST", "/api/knowledge", {**TEXTS, "category": "安全", "status": "draft"})
    assert [error["code"] for error in refused.json["errors"]] == ["not-allowed"]
    assert "見積班" in administrator.get("/admin/groups").text
    assert "閲覧できるグループを変更" in administrator.get("/admin/audit").text


def test_the_readers_are_chosen_over_the_api_by_the_same_people(app: Any, visit: Callable[..., Any]) -> None:
    group = join(app, "見積班", "tanaka", "sato")
    join(app, "夜間班", "yamamoto")
    names = ("tanaka", "sato", "ito", "yamamoto", "kobayashi")
    writer, reviewer, administrator, outsider, reader = (visit(name, at=app) for name in names)
    for person in (writer, reviewer, administrator, outsider, reader):
        person.get("/articles")
    new = call(writer, "POST", "/api/knowledge", {**TEXTS, "status": "draft"}).json["id"]
    path, of_category = f"/api/readers/article/{new}", f"/api/readers/category/{quote('積算')}"

    first = call(writer, "GET", path)
    assert first.json == {
        "kind": "article",
        "subject": str(new),
        "name": TEXTS["title"],
        "groups": [],
        "known_groups": ["夜間班", "見積班"],
    }
    assert call(writer, "GET", path, **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    wanted, tag = {"groups": ["見積班"]}, {"If-Match": first.headers["ETag"]}
    assert call(writer, "PUT", path, wanted).status_code == 428
    assert call(writer, "PUT", path, {}, **tag).status_code == 422  # or everybody could read it
    for body, code in (({"groups": ["無い班"]}, "choice"), ({"groups": ["夜間班"]}, "locks-out")):
        refused = call(writer, "PUT", path, body, **tag)
        assert [(error["field"], error["code"]) for error in refused.json["errors"]] == [("groups", code)]
    done = call(writer, "PUT", path, wanted, **tag)
    assert done.status_code == 200, done.text
    assert done.json["groups"] == ["見積班"]
    assert done.headers["ETag"] == call(reviewer, "GET", path).headers["ETag"] != first.headers["ETag"]
    # A repetition does nothing a second time: the version is another one.
    assert call(writer, "PUT", path, wanted, **tag).status_code == 412
    now = {"If-Match": done.headers["ETag"]}
    assert call(writer, "PUT", path, wanted, **now, **{"If-None-Match": "*"}).status_code == 412
    with app.extensions["knowledge"].sessions() as session:
        entries = session.scalars(select(AuditEntry).where(AuditEntry.action == "group.readers")).all()
        assert [entry.subject for entry in entries] == [f"article {new}"]

    both = {"groups": ["見積班", "夜間班"]}
    for person in (outsider, administrator, reader):  # also of the API alone: there is no such article
        for method, body in (("GET", None), ("PUT", both)):
            known, unknown = (
                call(person, method, f"/api/readers/article/{number}", body, **{"If-Match": "*"})
                for number in (new, GONE)
            )
            assert known.status_code == unknown.status_code == 404
            assert SECRET not in known.text
    assert call(reviewer, "PUT", path, both, **{"If-Match": "*"}).status_code == 200
    assert call(outsider, "GET", path).status_code == 200  # a reviewer, and now a member
    assert [call(person, "GET", "/api/readers/article/1").status_code for person in (reader, writer)] == [
        403,
        403,
    ]
    for person, status in ((reader, 403), (writer, 403), (reviewer, 403), (administrator, 200)):
        assert call(person, "GET", of_category).status_code == status
        assert call(person, "PUT", of_category, wanted, **{"If-Match": "*"}).status_code == status
    for unknown in (
        "x/1",
        "category/x",
        "node/1",
        "article/01",
        f"article/{quote('０')}",
        "node/" + "9" * 30,
    ):
        assert call(administrator, "GET", f"/api/readers/{unknown}").status_code == 404, unknown
    with app.extensions["knowledge"].sessions() as session:
        closed = session.scalars(select(Reader.group_id).where(Reader.category == "積算")).all()
        assert closed == [group]


def shown_to_reviewers(article_id: int) -> tuple[str, ...]:
    return "/", "/reviews", f"/articles/{article_id}/edit"


def test_a_published_article_is_restricted_before_its_next_version_is_written(
    app: Any, visit: Callable[..., Any]
) -> None:
    """And what was written before the category was restricted is not shown outside of the groups any more."""
    group = join(app, "見積班", "tanaka", "sato", "ito")
    writer, reviewer, outsider = (visit(name, at=app) for name in ("tanaka", "sato", "yamamoto"))
    administrator = visit("ito", at=app)
    for person in (writer, reviewer, outsider, administrator):
        person.get("/articles/new")

    def step(person: Any, name: str) -> Any:
        revision = call(writer, "GET", path).json["revision"]
        return call(person, "POST", f"{path}/steps", {"step": name, "revision": revision, "comment": ""})

    plain = {**TEXTS, "title": "橋", "summary": "", "body": "橋", "category": "土工", "tags": [], "site": ""}
    new = call(writer, "POST", "/api/knowledge", {**plain, "status": "draft"}).json["id"]
    path = f"/api/knowledge/{new}"
    assert [step(writer, "submit").status_code, step(reviewer, "approve").status_code] == [200, 200]

    later = {**plain, "title": SECRET, "body": SECRET, "category": "安全", "status": "review"}
    assert call(writer, "PUT", path, {**later, "revision": 1}).status_code == 200
    assert all(SECRET in outsider.get(shown).text for shown in shown_to_reviewers(new))
    assert restrict(administrator, "category", "安全", group).status_code == 303
    assert not any(SECRET in outsider.get(shown).text for shown in shown_to_reviewers(new))
    assert all(SECRET in reviewer.get(shown).text for shown in shown_to_reviewers(new))
    refused = step(outsider, "approve")  # or it would move where the outsider cannot follow
    assert [error["code"] for error in refused.json["errors"]] == ["not-allowed"]
    assert call(outsider, "PUT", path, {**plain, "revision": 2, "status": "review"}).status_code == 200
    assert step(reviewer, "approve").status_code == 200
    pages = {number: outsider.get(f"/articles/{new}/history/{number}") for number in (1, 2, 3)}
    assert [page.status_code for page in pages.values()] == [200, 404, 200]
    assert SECRET not in pages[3].text  # beside the version before it

    assert restrict(administrator, "category", "積算", group).status_code == 303
    secret = {**TEXTS, "revision": 3, "status": "review"}
    refused = call(writer, "PUT", path, secret)
    assert [error["code"] for error in refused.json["errors"]] == ["restrict-first"]
    assert not any(SECRET in outsider.get(shown).text for shown in shown_to_reviewers(new))
    assert restrict(reviewer, "article", new, group).status_code == 303
    assert call(writer, "PUT", path, secret).status_code == 200
    assert all(SECRET in reviewer.get(shown).text for shown in shown_to_reviewers(new))
    assert not any(SECRET in outsider.get(shown).text for shown in shown_to_reviewers(new))
    assert step(reviewer, "approve").status_code == 200
    assert call(reviewer, "GET", path).json["category"] == "積算"


def test_a_draft_of_a_restricted_article_is_kept_for_those_who_may_read_it(
    mailing: Any, visit: Callable[..., Any]
) -> None:
    app = mailing  # on both databases
    secret, reviewer = make_restricted(app, visit, "article"), visit("sato", at=app)
    draft = f"/api/drafts/article-{secret.article}"
    reviewer.get("/articles/new")
    typed = {**dict.fromkeys(("title", "category", "summary", "tags", "site", "status"), ""), "body": SECRET}
    assert call(reviewer, "PUT", draft, {**typed, "revision": 2}).status_code == 204
    assert call(reviewer, "GET", draft).json["body"] == SECRET
    leave(app, "sato")
    assert call(reviewer, "GET", draft).status_code == 404
    assert call(reviewer, "GET", f"/articles/{secret.article}/edit").status_code == 404
    join(app, "見積班", "sato")
    assert call(reviewer, "GET", draft).json["body"] == SECRET
    assert call(reviewer, "GET", "/api/drafts/article-9999999999").status_code == 404


def test_a_group_is_removed_after_its_effects_were_shown(app: Any, visit: Callable[..., Any]) -> None:
    group = join(app, "見積班", "tanaka", "ito")
    administrator = visit("ito", at=app)
    assert restrict(administrator, "category", "積算", group).status_code == 303
    shown = administrator.get(f"/admin/groups/{group}/removal").text
    assert all(text in shown for text in ("メンバー 2 人", "分類 1 件"))
    assert 'value="remove"' not in shown
    fields = {"group": str(group), "name": "見積班", "members": "", "step": "remove"}
    assert administrator.post("/admin/groups", fields).status_code == 422  # or everybody could read it
    assert restrict(administrator, "category", "積算").status_code == 303
    page = administrator.get(f"/admin/groups/{group}/removal").text
    seen = re.findall(r'name="seen" value="([0-9a-f]+)"', page)[0]
    join(app, "見積班", "suzuki")
    assert administrator.post("/admin/groups", {**fields, "seen": seen}).status_code == 409
    assert administrator.post("/admin/groups", fields).status_code == 303
    assert administrator.get(f"/admin/groups/{group}/removal").status_code == 404


def test_a_place_with_readers_of_its_own_stays(app: Any, visit: Callable[..., Any]) -> None:
    group = join(app, "見積班", "sato")
    reviewer, other = visit("sato", at=app), visit("yamamoto", at=app)
    reviewer.get("/tree"), other.get("/tree")
    node = int(reviewer.post("/tree", {"name": SECRET, "parent": "0"}).location.rpartition("-")[2])
    assert restrict(reviewer, "node", node, group).status_code == 303
    assert reviewer.post(f"/tree/{node}", {"step": "remove"}).status_code == 422
    for step in ("remove", "rename", "up"):
        assert other.post(f"/tree/{node}", {"step": step, "name": "x"}).status_code == 404
    assert other.post("/tree", {"name": "x", "parent": str(node)}).status_code == 404
    assert restrict(reviewer, "node", node).status_code == 303
    assert SECRET in other.get("/tree").text
    assert reviewer.post(f"/tree/{node}", {"step": "remove"}).status_code == 303
