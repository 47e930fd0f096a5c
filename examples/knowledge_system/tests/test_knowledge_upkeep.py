"""Articles that nobody has confirmed for a year: listed, reminded of once a month, gone when confirmed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update

from knowledge_system.background import mail_texts
from knowledge_system.models import Article, Notice, User
from knowledge_system.services.knowledge import overdue_articles
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock


def age(app: Any, clock: FrozenClock, **days: int) -> dict[str, int]:
    """Two articles of tanaka and one of suzuki, last confirmed so many days ago; everything else today."""
    now = datetime.fromtimestamp(clock.time(), UTC)
    ids: dict[str, int] = {}
    with app.extensions["knowledge"].sessions.begin() as session:
        session.execute(update(Article).values(confirmed_at=now))
        for name, username in (("old", "tanaka"), ("fresh", "tanaka"), ("other", "suzuki")):
            author = session.scalar(select(User.id).where(User.username == username))
            ids[name] = session.scalar(
                select(Article.id).where(
                    Article.author_id == author,
                    Article.status == "published",
                    Article.id.not_in(ids.values()),
                )
            )
            session.execute(
                update(Article)
                .where(Article.id == ids[name])
                .values(confirmed_at=now - timedelta(days=days[name]))
            )
    return ids


def listed(person: Any) -> set[int]:
    page = person.get("/overdue").get_data(as_text=True)
    return {int(found) for found in re.findall(r'<h2><a href="/articles/(\d+)"', page)}


def test_what_is_overdue_is_listed_until_it_is_confirmed(
    app: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    ids = age(app, clock, old=366, fresh=364, other=400)
    writer, reviewer = visit("tanaka"), visit("sato")
    assert listed(writer) == {ids["old"]}
    assert listed(reviewer) == {ids["old"], ids["other"]}
    assert visit("kobayashi").get("/overdue").status_code == 403
    path = f"/articles/{ids['old']}"
    assert writer.post(f"{path}/steps", {"step": "confirm", "revision": "1"}).status_code == 303
    assert listed(writer) == set()
    clock.advance(timedelta(days=366).total_seconds())
    assert ids["old"] in listed(visit("tanaka"))


def test_authors_are_reminded_once_a_month(app: Any, visit: Callable[..., Any], clock: FrozenClock) -> None:
    ids = age(app, clock, old=366, fresh=100, other=400)
    parts = app.extensions["knowledge"]
    tasks = parts.background.tasks

    def reminded() -> dict[str, int]:
        with parts.engine.begin() as connection:
            task = tasks.known["reminding.overdue"].enqueue(connection)
        TaskWorker(tasks, schedule=False).run_pending()
        result: dict[str, int] = tasks.status(task).result
        return result

    assert reminded() == {"authors": 2, "articles": 2}
    assert reminded() == {"authors": 0, "articles": 0}
    with parts.sessions() as session:
        assert session.scalar(select(func.count(Notice.id))) == 2
    page = visit("tanaka").get("/notices").get_data(as_text=True)
    assert f"/articles/{ids['old']}" not in page  # one line for all of them, however many
    assert '<a href="/overdue">確認時期を過ぎた記事 1 件</a>' in page
    assert "最後の確認から 1 年以上たっています" in page
    assert unread_badge(page) == "1"
    clock.advance(timedelta(days=31).total_seconds())
    assert reminded() == {"authors": 2, "articles": 2}


def test_fifty_overdue_articles_are_one_line_until_they_are_confirmed(
    app: Any, visit: Callable[..., Any]
) -> None:
    parts, now = app.extensions["knowledge"], datetime(2026, 11, 25, tzinfo=UTC)
    old = now - timedelta(days=400)
    with parts.sessions.begin() as session:
        mine = list(session.scalars(select(Article).where(Article.status == "published").limit(50)))
        for article in mine:
            article.author_id, article.confirmed_at = 1, old
        overdue_articles.remind(session, now=now)
        number = session.scalar(
            select(func.count(Article.id)).where(
                Article.author_id == 1, Article.confirmed_at < now - timedelta(days=365)
            )
        )
    page = visit("tanaka").get("/notices").get_data(as_text=True)
    assert page.count('<li class="unread">') == 1
    assert f"確認時期を過ぎた記事 {number} 件" in page
    assert unread_badge(page) == "1"
    with parts.sessions.begin() as session:
        session.execute(update(Article).values(confirmed_at=now + timedelta(hours=1)))
    page = visit("tanaka").get("/notices").get_data(as_text=True)
    assert "確認時期を過ぎた記事" not in page.partition("<main")[2]
    assert unread_badge(page) == ""


def unread_badge(page: str) -> str:
    found = re.search(r'class="badge"><span class="visually-hidden">[^<]*</span>([^<]*)<', page)
    return found[1] if found else ""


def test_the_mail_names_the_articles() -> None:
    letter = mail_texts.overdue(["甲", "乙"], link="https://x/overdue").written("ja")
    assert letter.subject == "内容の確認をお願いします(2 件)"
    assert "  - 甲\n  - 乙\n" in letter.text
    assert timedelta(days=365) == overdue_articles.CONFIRM_EVERY
