"""Read queries for articles: lists, one article, its comments and history, restricted to what the actor may see."""

from __future__ import annotations

from calendar import monthrange
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    bindparam,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, joinedload, selectinload

from knowledge_system.domain import permissions, workflow
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.domain.tags import key_of
from knowledge_system.domain.tree import DEPTH
from knowledge_system.models import (
    Article,
    ArticleNode,
    ArticleTag,
    Attachment,
    CategoryApprovers,
    Comment,
    GroupMember,
    Reader,
    Review,
    Revision,
    TreeNode,
    User,
)
from knowledge_system.services.attachments import article_attachments
from knowledge_system.services.knowledge.tags import select_canonical_tag
from knowledge_system.services.visibility import read_by, seen_by, select_nodes_below
from mks_hardening.db import InvalidCursorError, keyset_page

MAX_ID = 2**31 - 1
_COMMENTS_ON_A_PAGE = 50
_NO_COMMENT = (null(), null(), null())
_ARTICLE_ID = bindparam("article_id", type_=Integer)
_KINDS = ("said", "saved", "approved", "tag", "approver", "reader", "waiting")
_INSIDE = frozenset({"author_id", "writers", "uploaders", "approvers", "readers", "waiting_readers"})
_SHOWN = ("id", "title", "summary", "category", "site", "status", "revision", "updated_at")
_WHOLE = (
    *_SHOWN,
    *("body", "created_at", "confirmed_at", "author_id", "shown_revision"),
    *("next_revision", "next_since", "next_status"),
)


class ArticleFilter(NamedTuple):
    """Filter of an article list; all conditions must match."""

    category: str = ""
    tag: str = ""
    status: str = "published"
    author: str = ""
    site: str = ""
    since: str = ""
    until: str = ""
    node: str = ""

    @property
    def same_for_everybody(self) -> bool:
        """Whether the list is the same for every user."""
        return self.status not in permissions.UNFINISHED


def selection(actor: Actor, wanted: ArticleFilter) -> Select[Any]:
    """Select the ids of the articles that match the filter and that the actor may see."""
    at = Article.status == wanted.status
    # For users who may see it, the next version of a published article counts too.
    chosen = select(Article.id).where(
        at if wanted.same_for_everybody else at | (Article.next_status == wanted.status),
        read_by(actor.groups),
    )
    if not wanted.same_for_everybody and not permissions.sees_all(actor):
        chosen = chosen.where(Article.author_id == actor.id)
    if wanted.category:
        chosen = chosen.where(Article.category == wanted.category)
    if wanted.tag:
        chosen = chosen.where(Article.tags.any(ArticleTag.name.in_(select_canonical_tag(key_of(wanted.tag)))))
    if wanted.author:
        chosen = chosen.where(Article.author.has(username=wanted.author))
    if wanted.site:
        chosen = chosen.where(Article.site == wanted.site)
    if wanted.node:
        below = select_nodes_below([int(wanted.node)])
        chosen = chosen.where(
            Article.id.in_(select(ArticleNode.article_id).where(ArticleNode.node_id.in_(below)))
        )
    if wanted.since:
        chosen = chosen.where(Article.updated_at >= _midnight(wanted.since))
    if wanted.until:
        chosen = chosen.where(Article.updated_at < _midnight(wanted.until) + timedelta(days=1))
    return chosen


def _midnight(day: str) -> datetime:
    """Return the start of a day in Japan; a day beyond the end of its month is the last day of the month."""
    year, month, number = map(int, day.split("-"))
    return datetime(year, month, min(number, monthrange(year, month)[1]), tzinfo=permissions.JST)


def summaries(session: Session, ids: Sequence[int], *, with_text: bool = False) -> list[dict[str, Any]]:
    """Return the list data of the articles, in the given order, as plain values that can be cached.

    Args:
        session: database session; two statements are run.
        ids: ids of the articles.
        with_text: whether to include ``body``.
    """
    if not ids:
        return []
    remarks = (
        select(func.count())
        .where(Comment.article_id == Article.id, Comment.deleted_at.is_(None))
        .scalar_subquery()
    )
    columns = [getattr(Article, name) for name in (*_SHOWN, *(("body",) if with_text else ()))]
    asked = (
        select(*columns, User.display_name, User.username, remarks.label("comment_count"))
        .join(User, User.id == Article.author_id)
        .where(Article.id.in_(ids))
    )
    tags: dict[int, list[str]] = defaultdict(list)
    named = select(ArticleTag.article_id, ArticleTag.name).where(ArticleTag.article_id.in_(ids))
    for article_id, name in session.execute(named.order_by(ArticleTag.position)):
        tags[article_id].append(name)
    found = {row.id: row for row in session.execute(asked)}
    return [
        {
            **{name: getattr(row, name) for name in _SHOWN},
            **({"body": row.body} if with_text else {}),
            "updated_at": row.updated_at.isoformat(),
            "tags": tags[row.id],
            "author": row.display_name,
            "author_username": row.username,
            "comment_count": row.comment_count,
        }
        for row in (found[each] for each in ids if each in found)
    ]


def reviewed_by(
    actor: Actor, category: ColumnElement[str] | InstrumentedAttribute[str]
) -> ColumnElement[bool]:
    """Return ``permissions.may_review`` of a reviewer as an SQL condition."""
    if permissions.may_administer(actor):
        return true()
    belongs = exists().where(
        GroupMember.group_id == CategoryApprovers.group_id, GroupMember.user_id == actor.id
    )
    return ~exists().where(CategoryApprovers.category == category, ~belongs)


class ArticleCounts(NamedTuple):
    """Published articles per category, in the order of the categories, and per site, most first."""

    categories: dict[str, int]
    sites: dict[str, int]


def counts(session: Session, actor: Actor) -> ArticleCounts:
    """Count the published articles that the actor may read per category and site."""
    number = func.count().label("number")
    counted = (
        select(Article.category, Article.site, number)
        .where(Article.status == "published", read_by(actor.groups))
        .group_by(Article.category, Article.site)
    )
    categories, sites = Counter[str](), Counter[str]()
    for category, site, articles in session.execute(counted):
        categories[category] += articles
        sites[site] += articles
    del sites[""]
    return ArticleCounts(
        {category: categories[category] for category in permissions.CATEGORIES}, dict(sites.most_common())
    )


def read(session: Session, actor: Actor, article_id: int) -> dict[str, Any]:
    """Return one article with comments and history.

    Raises:
        Problem: ``not-found``, also if the actor may not see the article.
    """
    return as_seen(actor, stored(session, article_id))


def as_seen(actor: Actor, article: dict[str, Any]) -> dict[str, Any]:
    """Filter the result of ``stored`` for an actor.

    Raises:
        Problem: ``not-found``: the actor may not see the article.
    """
    who = {"author_id": article["author_id"], "status": article["status"]}
    if not permissions.may_see(actor, **who, readers=article["readers"]):
        raise Problem("not-found")
    shown = {name: value for name, value in article.items() if name not in _INSIDE}
    shown["restricted"] = bool(article["readers"])
    # Missing in entries cached by the previous release: until they expire, nobody sees what waits.
    if not permissions.may_see_waiting(actor, **who, readers=article.get("waiting_readers", [()])):
        shown["attachments"] = [each for each in article["attachments"] if each["shown"]]
    if permissions.may_edit(actor, **who):
        return {**shown, "editable": True, "subject": subject(article)}
    # Unpublished versions are visible only to those who write and review them.
    published = [entry for entry in article["history"] if entry["revision"] <= article["shown_revision"]]
    return {**shown, "history": published, "next": None, "editable": False}


def subject(article: dict[str, Any]) -> workflow.Subject:
    """Return what the next workflow step applies to, from the result of ``stored``."""
    coming, since = article["next"], 1
    if coming is not None:
        since = coming["since"]
    writers = {writer for number, writer in article["writers"] if number >= since}
    writers |= set(article.get("uploaders", ()))  # missing in entries cached by the previous release
    return workflow.Subject(
        coming["status"] if coming else article["status"],
        article["author_id"],
        frozenset(writers),
        article.get("approvers", ()),  # missing like the uploaders
    )


def stored(session: Session, article_id: int) -> dict[str, Any]:
    """Return one article with comments and history, for any actor, as plain values that can be cached.

    Raises:
        Problem: ``not-found``.
    """
    if not 0 < article_id <= MAX_ID:
        raise Problem("not-found")
    row = session.execute(_select_row(), {"article_id": article_id}).one_or_none()
    if row is None:
        raise Problem("not-found")
    parts = _parts(session, article_id)
    revisions = sorted(parts["saved"], key=lambda part: -part.number)
    approved = [part for part in parts["approved"] if part.number == row.shown_revision]
    # Most articles have no attachments and skip the third statement.
    chosen = select(Attachment).where(Attachment.article_id == article_id).order_by(Attachment.id)
    files = session.scalars(chosen).all() if row.attached else []
    return {
        **{name: getattr(row, name) for name in _SHOWN},
        "tags": [part.name for part in parts["tag"]],
        "author": row.display_name,
        "author_username": row.username,
        "updated_at": row.updated_at.isoformat(),
        "place": [
            {"id": node, "name": name}
            for node, name in zip(row[-2::-2][:DEPTH], row[::-2][:DEPTH], strict=True)
            if node
        ],
        "comment_count": sum(part.deleted is None for part in parts["said"]),
        "body": row.body,
        "created_at": row.created_at.isoformat(),
        "comments": [
            {
                "id": part.number,
                "author": part.name,
                "author_id": part.user_id,
                "body": part.text,
                "created_at": part.at.isoformat(),
                "parent_id": part.parent,
                "edited": part.edited is not None,
                "deleted": part.deleted is not None,
            }
            for part in parts["said"]
        ],
        "history": [
            {"revision": r.number, "editor": r.name, "status": r.text, "saved_at": r.at.isoformat()}
            for r in revisions
        ],
        "attachments": [article_attachments.as_dict(each) for each in files],
        "shown_revision": row.shown_revision,
        "confirmed_at": row.confirmed_at.isoformat() if row.confirmed_at else None,
        "approved": {"by": approved[-1].name, "at": approved[-1].at.isoformat()} if approved else None,
        "next": {"revision": row.next_revision, "since": row.next_since, "status": row.next_status}
        if row.next_revision
        else None,
        "author_id": row.author_id,
        "approvers": [
            [part.number for part in parts["approver"] if part.name == category]
            for category in sorted({part.name for part in parts["approver"]})
        ],
        "readers": [
            [part.number for part in parts["reader"] if (part.user_id, part.name) == subject]
            for subject in dict.fromkeys((part.user_id, part.name) for part in parts["reader"])
        ],
        "waiting_readers": [
            [part.number for part in parts["waiting"] if part.name == category]
            for category in dict.fromkeys(part.name for part in parts["waiting"])
        ],
        "writers": [(r.number, r.user_id) for r in revisions],
        # Uploaders of files that are not approved yet.
        "uploaders": sorted(
            {f.uploader_id for f in files if not f.shown or row.status in permissions.UNFINISHED}
        ),
    }


@cache
def _select_row() -> Select[Any]:
    """Select an article with its author and its place; cached, because building it takes longer than running it."""
    columns = [getattr(Article, name) for name in _WHOLE]
    attached = select(Attachment.id).where(Attachment.article_id == _ARTICLE_ID).exists()
    levels = [aliased(TreeNode) for _ in range(DEPTH)]  # the place, and what it is in
    place = [column for level in levels for column in (level.id, level.name)]
    asked = (
        select(*columns, User.display_name, User.username, attached.label("attached"), *place)
        .join(User, User.id == Article.author_id)
        .outerjoin(ArticleNode, ArticleNode.article_id == Article.id)
        .outerjoin(levels[0], levels[0].id == ArticleNode.node_id)
        .where(Article.id == _ARTICLE_ID)
    )
    for inner, outer in pairwise(levels):
        asked = asked.outerjoin(outer, outer.id == inner.parent_id)
    return asked


def _parts(session: Session, article_id: int) -> dict[str, list[Any]]:
    """Return the parts of an article by kind, from one statement."""
    parts: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    found: list[Any] = [*session.execute(_select_parts(), {"article_id": article_id})]
    for part in sorted(found, key=lambda part: part.number):
        parts[part.kind].append(part)
    return parts


@cache
def _select_parts() -> CompoundSelect[Any]:
    """Select the parts of an article; cached for the same reason.

    Comments are ``said``, revisions ``saved``, approvals of a revision ``approved``, tags ``tag``, members of the
    groups that approve its categories ``approver``, groups to which it, its category, its place and the places
    above are restricted ``reader``, and those to which categories of its unpublished versions are ``waiting``.
    """
    said = (
        select(
            literal("said").label("kind"),
            Comment.id.label("number"),
            Comment.author_id.label("user_id"),
            User.display_name.label("name"),
            Comment.body.label("text"),
            Comment.created_at.label("at"),
            Comment.parent_id.label("parent"),
            Comment.edited_at.label("edited"),
            Comment.deleted_at.label("deleted"),
        )
        .join(User, User.id == Comment.author_id)
        .where(Comment.article_id == _ARTICLE_ID)
    )
    saved = (
        select(
            literal("saved"),
            Revision.number,
            Revision.editor_id,
            User.display_name,
            Revision.status,
            Revision.saved_at,
            *_NO_COMMENT,
        )
        .join(User, User.id == Revision.editor_id)
        .where(Revision.article_id == _ARTICLE_ID)
    )
    approvals = (
        select(
            literal("approved"),
            Review.revision,
            Review.actor_id,
            User.display_name,
            Review.step,
            Review.taken_at,
            *_NO_COMMENT,
        )
        .join(User, User.id == Review.actor_id)
        .where(Review.article_id == _ARTICLE_ID, Review.step == "approve")
    )
    named = select(
        literal("tag"), ArticleTag.position, null(), ArticleTag.name, null(), null(), *_NO_COMMENT
    ).where(ArticleTag.article_id == _ARTICLE_ID)
    # Of the version that readers see and of the next one; a group without members has the number 0.
    categories: Any = union_all(
        select(Article.category).where(Article.id == _ARTICLE_ID),
        select(Revision.category)
        .join(Article, (Article.id == Revision.article_id) & (Article.next_revision == Revision.number))
        .where(Article.id == _ARTICLE_ID),
    )
    approvers = (
        select(
            literal("approver"),
            func.coalesce(GroupMember.user_id, 0),
            null(),
            CategoryApprovers.category,
            null(),
            null(),
            *_NO_COMMENT,
        )
        .outerjoin(GroupMember, GroupMember.group_id == CategoryApprovers.group_id)
        .where(CategoryApprovers.category.in_(categories))
    )
    place: Select[Any] = select(ArticleNode.node_id).where(ArticleNode.article_id == _ARTICLE_ID)
    above = [place]
    for _ in range(DEPTH - 1):
        above.append(select(TreeNode.parent_id).where(TreeNode.id.in_(above[-1])))
    readers = select(
        literal("reader"), Reader.group_id, Reader.node_id, Reader.category, null(), null(), *_NO_COMMENT
    ).where(
        or_(
            Reader.article_id == _ARTICLE_ID,
            Reader.category.in_(select(Article.category).where(Article.id == _ARTICLE_ID)),
            *(Reader.node_id.in_(nodes) for nodes in above),
        )
    )
    unpublished = (
        select(Revision.category)
        .join(Article, Article.id == Revision.article_id)
        .where(Article.id == _ARTICLE_ID, Revision.number > Article.shown_revision)
    )
    waiting = select(
        literal("waiting"), Reader.group_id, null(), Reader.category, null(), null(), *_NO_COMMENT
    ).where(Reader.category.in_(unpublished))
    return union_all(said, saved, approvals, named, approvers, readers, waiting)


def comments(session: Session, actor: Actor, article_id: int, *, after: str | None) -> dict[str, Any]:
    """Return one page of the comments on an article that the actor may see, oldest first.

    Raises:
        Problem: ``not-found``, ``bad-cursor``.
    """
    known = select(Article.id).where(Article.id == article_id, seen_by(actor))
    if not 0 < article_id <= MAX_ID or session.scalar(known) is None:
        raise Problem("not-found")
    chosen = select(Comment).where(Comment.article_id == article_id, Comment.deleted_at.is_(None))
    chosen = chosen.options(joinedload(Comment.author))
    try:
        page = keyset_page(chosen, order_by=[Comment.id], after=after, limit=_COMMENTS_ON_A_PAGE).fetch(
            session
        )
    except InvalidCursorError as error:
        raise Problem("bad-cursor") from error
    return {"items": [_remark(each) for each in page.items], "next": page.next_cursor}


def load_seen(session: Session, actor: Actor, article_id: int, *, lock: bool = False) -> Article:
    """Load an article with its related rows.

    Raises:
        Problem: ``not-found``, also if the actor may not see the article.
    """
    if not 0 < article_id <= MAX_ID:
        raise Problem("not-found")
    chosen = select(Article).where(Article.id == article_id, seen_by(actor))
    if lock:  # lock first, so that all related rows are read after it
        session.execute(select(Article.id).where(Article.id == article_id).with_for_update())
    chosen = chosen.options(
        joinedload(Article.author),
        joinedload(Article.tags),
        selectinload(Article.comments).joinedload(Comment.author),
        selectinload(Article.revisions).joinedload(Revision.editor),
    )
    article = session.scalars(chosen).unique().one_or_none()
    if article is None:
        raise Problem("not-found")
    return article


def _remark(comment: Comment) -> dict[str, Any]:
    return {
        "id": comment.id,
        "author": comment.author.display_name,
        "body": comment.body,
        "created_at": comment.created_at.isoformat(),
    }
