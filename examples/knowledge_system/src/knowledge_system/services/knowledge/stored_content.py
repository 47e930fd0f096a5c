"""Built-in demo articles and users, and a generator for larger data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from knowledge_system.domain import content
from knowledge_system.models import Article, ArticleTag, Comment, Review, Revision, User
from knowledge_system.services.attachments.article_attachments import new_attachment
from knowledge_system.services.knowledge.articles import index
from knowledge_system.services.knowledge.tags import canonical_tags

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from knowledge_system.services.attachments.upload_intake import Intake, Stored
    from mks_hardening.db import SearchIndex
from mks_hardening.security import hash_password

Progress = Callable[[int, int], None]
_PICTURES: Final = 1_000
"""Generated articles with a picture: more would only fill the disk of a benchmark."""
_PICTURE: Final = re.compile(r"!\[[^\]]*\]\(files/picture\.webp\)\n*")
_APPROVERS = ("sato", "ito")
"""Who approved the articles of others."""


def people() -> list[dict[str, str]]:
    """Return the demo users."""
    listed: list[dict[str, str]] = json.loads(content.read_text("people.json"))
    return listed


def articles() -> list[dict[str, Any]]:
    """Return the built-in articles, sorted by file name."""
    folder = files("knowledge_system").joinpath("content", "articles")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".json"))
    return [{"site": "", **json.loads(content.read_text("articles", name))} for name in names]


def load_people(
    session: Session, *, password: str, now: datetime, progress: Progress = lambda _done, _total: None
) -> int:
    """Add the missing demo users, all with the demo password; return how many."""
    present = set(session.scalars(select(User.username)))
    missing = [person for person in people() if person["username"] not in present]
    # The password is publicly known, so one shared hash is no loss, and the demonstration starts sooner.
    known = hash_password(password) if missing else ""
    for done, person in enumerate(missing, 1):
        session.add(User(**person, password_hash=known, created_at=now))
        progress(done, len(missing))
    session.flush()
    return len(missing)


def load_articles(
    session: Session, *, search: SearchIndex, progress: Progress = lambda _done, _total: None
) -> int:
    """Add the missing articles; return how many."""
    present = set(session.scalars(select(Article.slug).where(Article.slug.is_not(None))))
    authors = _user_ids(session)
    missing = [article for article in articles() if article["slug"] not in present]
    for done, article in enumerate(missing, 1):
        _add(session, search, article, authors)
        progress(done, len(missing))
    canonical_tags(session, (tag for article in missing for tag in article["tags"]))
    return len(missing)


def count_articles(session: Session) -> int:
    """Return the number of articles, of any status."""
    return session.scalar(select(func.count(Article.id))) or 0


def generate(session: Session, number: int, *, search: SearchIndex, intake: Intake | None = None) -> int:
    """Generate articles until there are ``number``, the first thousand with pictures; return how many were added.

    Args:
        session: database session.
        number: number of articles.
        search: search index to update.
        intake: where the pictures are stored; without it, there are none.
    """
    have = count_articles(session)
    # Only a demonstration needs it, and the library that draws its pictures.
    from knowledge_system.services.knowledge.generated_content import generated

    first = session.scalar(select(func.count(Article.id)).where(Article.slug.like("generated-%"))) or 0
    authors = _user_ids(session)
    wanted = max(0, number - have)
    tags: set[str] = set()
    for done in range(wanted):
        entry, draw = generated(first + done)
        tags.update(entry["tags"])
        picture = draw() if intake is not None and first + done < _PICTURES else b""
        _add(session, search, entry, authors, intake.take("図.webp", picture) if intake and picture else None)
        if done % 100 == 99:
            session.expunge_all()
    session.expunge_all()
    canonical_tags(session, sorted(tags))
    return wanted


def _user_ids(session: Session) -> dict[str, int]:
    return {row.username: row.id for row in session.execute(select(User.username, User.id))}


def _add(
    session: Session,
    search: SearchIndex,
    entry: Mapping[str, Any],
    authors: Mapping[str, int],
    picture: Stored | None = None,
) -> None:
    article = _build(entry, authors)
    session.add(article)
    session.flush()
    if _PICTURE.search(article.body):
        url = ""
        if picture is not None:
            made = new_attachment(article, article.author_id, picture, now=article.updated_at)
            made.shown = True
            session.add(made)
            session.flush()
            url = f"/files/{made.id}"
        body = _PICTURE.sub(
            lambda found: found[0].replace("files/picture.webp", url) if url else "", article.body
        )
        article.body = article.revisions[0].body = body
    approver = next(
        (authors[name] for name in _APPROVERS if authors.get(name, article.author_id) != article.author_id), 0
    )
    if approver and article.status in {"published", "retired"}:
        step = {"step": "approve", "actor_id": approver, "taken_at": article.updated_at}
        session.add(Review(article_id=article.id, revision=1, **step))
    index(session, search, article)


def _build(entry: Mapping[str, Any], authors: Mapping[str, int]) -> Article:
    updated = datetime.fromisoformat(entry["updated"]).replace(hour=1, tzinfo=UTC)
    author = authors[entry["author"]]
    return Article(
        slug=entry["slug"],
        title=entry["title"],
        summary=entry["summary"],
        body=entry["body"],
        category=entry["category"],
        status=entry["status"],
        author_id=author,
        created_at=updated,
        updated_at=updated,
        tags=[ArticleTag(name=tag, position=place) for place, tag in enumerate(dict.fromkeys(entry["tags"]))],
        comments=[
            Comment(
                author_id=authors[comment["author"]],
                body=comment["body"],
                created_at=updated + timedelta(hours=place + 1),
            )
            for place, comment in enumerate(entry["comments"])
        ],
        site=entry["site"],
        confirmed_at=updated,
        revisions=[
            Revision(
                number=1,
                editor_id=author,
                status=entry["status"],
                saved_at=updated,
                **{name: entry[name] for name in ("title", "summary", "body", "category")},
                site=entry["site"],
                tags=list(dict.fromkeys(entry["tags"])),
            )
        ],
    )
