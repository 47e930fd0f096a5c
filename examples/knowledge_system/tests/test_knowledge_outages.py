"""Servers that go away and come back: what is answered, what is kept, what is told."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select, update

from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.models import Article, Group, Reader
from knowledge_system.services.knowledge.article_queries import ArticleFilter
from knowledge_system.settings import DEMO_PASSWORD
from testbed.forked import in_child
from testbed.polling import wait_until


@contextmanager
def no_database(app: Any) -> Iterator[None]:
    engine = app.extensions["knowledge"].engine

    @event.listens_for(engine, "do_connect")
    def connect(*_: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    engine.dispose()
    try:
        yield
    finally:
        event.remove(engine, "do_connect", connect)


def test_probes_leave_no_record_and_an_outage_leaves_one(
    visit: Callable[..., Any], app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    person = visit("tanaka")
    with caplog.at_level(logging.INFO):
        with no_database(app):
            for _ in range(3):
                assert person.get("/articles/1").status_code == 503
                assert person.get("/readyz").status_code in {200, 503}
        assert person.get("/articles/1").status_code == 200
        assert person.get("/articles/2").status_code == 200
    said = [record.getMessage() for record in caplog.records if record.name.endswith("web.database_outage")]
    assert [text.partition(";")[0] for text in said] == [
        "the database is unavailable",
        "the database is available again",
    ]
    assert not [record for record in caplog.records if "/readyz" in record.getMessage()]
    # One line for a refusal that was promised, and no traceback.
    refused = [record for record in caplog.records if getattr(record, "status", 0) == 503]
    assert [(record.levelname, record.exc_info) for record in refused] == [("ERROR", None)] * 3


def test_what_is_refused_anyway_is_refused_during_an_outage(
    visit: Callable[..., Any], app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whose language an error page is in stands in the database; without it, it is nobody's page."""
    person = visit("tanaka")
    with no_database(app):
        assert person.get("/no/such").status_code == 404
        assert person.post("/no/such", {}).status_code == 404
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.redis
def test_a_damaged_list_of_sessions_locks_nobody_out(
    make_app: Callable[..., Any], visit: Callable[..., Any], redis_server: Any, redis_url: str
) -> None:
    app = make_app(MKS_REDIS_URL=redis_url)
    person = visit("tanaka", at=app)
    client = redis_server.client()
    lists = [key for key in client.scan_iter("*") if client.type(key) in {b"zset", b"set", "zset", "set"}]
    assert lists
    for key in lists:
        client.delete(key)
        client.set(key, "damaged")
    assert person.get("/articles").status_code == 200
    assert visit("tanaka", at=app).get("/account").status_code == 200


@pytest.mark.redis
def test_an_edit_during_an_outage_of_the_cache_is_seen_after_it(
    make_app: Callable[..., Any], redis_server: Any
) -> None:
    app = make_app(MKS_REDIS_URL=redis_server.url)
    parts = app.extensions["knowledge"]
    actor = Actor(1, "", "", "viewer")
    before, _ = parts.catalogue.page(actor, ArticleFilter())
    assert parts.catalogue.page(actor, ArticleFilter())[1], "it must be in the cache"
    redis_server.pause()
    with parts.sessions.begin() as session:
        session.execute(
            update(Article).where(Article.id == before["items"][0]["id"]).values(title="直した題名")
        )
    parts.catalogue.forget(before["items"][0]["id"])
    redis_server.resume()
    wait_until(parts.cache.ping, what="the cache")
    assert "直した題名" in [
        item["title"] for item in parts.catalogue.page(actor, ArticleFilter())[0]["items"]
    ]


@pytest.mark.redis
def test_a_restriction_holds_during_an_outage_of_the_cache_and_soon_after_it(
    make_app: Callable[..., Any], redis_server: Any
) -> None:
    """Somebody reads in another process than the one that restricts the article and ends before Redis is back."""
    app = make_app(MKS_REDIS_URL=redis_server.url)
    parts = app.extensions["knowledge"]
    outsider = Actor(1, "", "", "viewer")
    with parts.sessions.begin() as session:
        session.add(Group(id=900, name="Bridge"))
        number = session.scalar(select(Article.id).where(Article.status == "published").limit(1))

    def restrict() -> bool:
        with parts.sessions.begin() as session:
            session.add(Reader(group_id=900, article_id=number))
        return bool(parts.catalogue.forget(number))

    def is_shown() -> bool:
        try:
            return bool(parts.catalogue.article(outsider, number))
        except Problem:
            return False

    assert is_shown()
    redis_server.pause()
    assert in_child(restrict) == "False"
    assert not is_shown()  # while Redis is down, what is shown comes from the database
    redis_server.resume()
    wait_until(parts.cache.ping, what="the cache")
    # Nobody is left to delete the old entry: no entry lives longer than the README says.
    with redis_server.client() as client:
        lives = {name: client.pttl(name) for name in client.scan_iter() if b"article-data" in name}
    assert lives
    assert all(0 < life <= 300_000 for life in lives.values())


def test_signing_in_by_json_works_with_a_dead_cookie(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    dead = person.client.get_cookie("__Host-mks-session").value
    person.post("/sign-out", {})
    person.client.set_cookie("__Host-mks-session", dead, secure=True)
    body = {"username": "tanaka", "password": DEMO_PASSWORD}
    assert person.api("POST", "/api/auth/login", body).status_code == 200
    assert person.api("GET", "/api/auth/me").json["username"] == "tanaka"
