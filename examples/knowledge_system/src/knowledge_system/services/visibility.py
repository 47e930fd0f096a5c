"""Who may see an article, as SQL: ``permissions.may_see`` for one user, and for the users of a statement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import BindParameter, ColumnElement, Select, false, select, true
from sqlalchemy.orm import aliased

from knowledge_system.domain import permissions
from knowledge_system.models import Article, ArticleNode, GroupMember, Reader, Revision, TreeNode, User

if TYPE_CHECKING:
    from sqlalchemy.orm import InstrumentedAttribute

    from knowledge_system.domain.permissions import Actor

Groups = frozenset[int] | Select[Any]
"""Ids of the groups of a person, or a query for them."""


def groups_of(person: InstrumentedAttribute[int] | int) -> Select[Any]:
    """Select the groups of a user: an id, or a column of ``Article`` or ``User`` in the enclosing statement."""
    return select(GroupMember.group_id).where(GroupMember.user_id == person).correlate(User, Article)


def select_closed(subject: InstrumentedAttribute[Any], groups: Groups) -> Select[Any]:
    """Select the articles, categories or nodes that are restricted, and to none of the groups.

    Args:
        subject: ``Reader.article_id``, ``Reader.category`` or ``Reader.node_id``.
        groups: groups of the person.
    """
    opened = aliased(Reader)
    name = getattr(opened, subject.key)
    of_groups = select(name).where(opened.group_id.in_(groups), name.is_not(None))
    return select(subject).where(subject.is_not(None), subject.not_in(of_groups))


def select_nodes_below(nodes: Sequence[int] | Select[Any]) -> Select[Any]:
    """Select nodes and everything below them."""
    children = select(TreeNode.id).where(TreeNode.parent_id.in_(nodes))
    return select(TreeNode.id).where(
        TreeNode.id.in_(nodes) | TreeNode.parent_id.in_(nodes) | TreeNode.parent_id.in_(children)
    )


def select_closed_nodes(groups: Groups) -> Select[Any]:
    """Select the nodes that a person may not see, because they or what they are in are restricted."""
    return select_nodes_below(select_closed(Reader.node_id, groups))


@lru_cache(maxsize=256)
def read_by(groups: Groups) -> ColumnElement[bool]:
    """Return ``permissions.may_read`` as an SQL condition on ``Article``; kept, because building it takes long."""
    placed = select(ArticleNode.article_id).where(ArticleNode.node_id.in_(select_closed_nodes(groups)))
    return (
        Article.id.not_in(select_closed(Reader.article_id, groups))
        & Article.category.not_in(select_closed(Reader.category, groups))
        & Article.id.not_in(placed)
    )


def seen_by(actor: Actor, user: BindParameter[int] | None = None) -> ColumnElement[bool]:
    """Return ``permissions.may_see`` as an SQL condition on ``Article``.

    Args:
        actor: the user.
        user: replaces the id of the actor, in a statement that is kept for users with the same role and groups.
    """
    status = (
        true()
        if permissions.sees_all(actor)
        else Article.status.not_in(permissions.UNFINISHED)
        | (Article.author_id == (actor.id if user is None else user))
    )
    return status & read_by(actor.groups)


def waiting_seen_by(actor: Actor) -> ColumnElement[bool]:
    """Return ``permissions.may_see_waiting`` as an SQL condition on ``Article``."""
    if not permissions.may_write(actor):
        return false()
    closed = select(Revision.number).where(
        Revision.article_id == Article.id,
        Revision.number > Article.shown_revision,
        Revision.category.in_(select_closed(Reader.category, actor.groups)),
    )
    own = (Article.author_id == actor.id) & (Article.status != "retired")
    return (true() if permissions.sees_all(actor) else own) & ~closed.correlate(Article).exists()


@cache
def seen_by_users() -> ColumnElement[bool]:
    """Return ``permissions.may_see`` as an SQL condition on ``Article`` and ``User``."""
    return (
        User.role.in_(permissions.SEE_ALL)
        | Article.status.not_in(permissions.UNFINISHED)
        | (Article.author_id == User.id)
    ) & read_by(groups_of(User.id))


def select_readers(article_id: int) -> Select[Any]:
    """Select id, name, display name and role of the active users who may see an article, by id."""
    asked = select(User.id, User.username, User.display_name, User.role)
    asked = asked.join(Article, Article.id == article_id).where(User.active, seen_by_users())
    return cast("Select[Any]", asked.order_by(User.id))
