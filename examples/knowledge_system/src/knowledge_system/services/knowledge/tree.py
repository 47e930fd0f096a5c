"""The tree of articles in the database; changes wait for each other, so that two valid moves make no cycle."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.orm import Session

from knowledge_system.domain import permissions, tree
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.domain.tree import Node
from knowledge_system.models import Article, ArticleNode, Reader, TreeNode
from knowledge_system.services.knowledge.article_queries import load_seen
from knowledge_system.services.visibility import read_by, select_closed_nodes


def nodes(session: Session, *, lock: bool = False) -> list[Node]:
    """Return all nodes; with ``lock``, other changes of the tree wait until the transaction ends."""
    if lock and session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE"))
    asked = select(TreeNode.id, func.coalesce(TreeNode.parent_id, 0), TreeNode.position, TreeNode.name)
    return [Node(*row) for row in session.execute(asked)]


def whole(session: Session, actor: Actor) -> list[dict[str, Any]]:
    """Return the nested tree as the actor may see it.

    Each node has the number of the published articles in it and below that the actor may read.
    """
    counted = (
        select(ArticleNode.node_id, func.count())
        .join(Article, Article.id == ArticleNode.article_id)
        .where(Article.status == "published", read_by(actor.groups))
        .group_by(ArticleNode.node_id)
    )
    numbers = {row[0]: row[1] for row in session.execute(counted)}

    def add_number(item: dict[str, Any]) -> int:
        item["count"] = numbers.get(item["id"], 0) + sum(map(add_number, item["children"]))
        return int(item["count"])

    closed = set(session.scalars(select_closed_nodes(actor.groups)))
    whole = tree.nested(node for node in nodes(session) if node.id not in closed)
    for item in whole:
        add_number(item)
    return whole


def name_of(session: Session, actor: Actor, node_id: int) -> str:
    """Return the name of a node; empty if it does not exist or the actor may not see it."""
    return session.scalar(select(TreeNode.name).where(_is_seen(actor, node_id))) or ""


def add(session: Session, actor: Actor, name: str, parent: int) -> int:
    """Add a node as the last child; return its id.

    Raises:
        Problem: ``forbidden``, and as ``domain.tree.placed``.
    """
    _check(session, actor, parent)
    position = tree.placed(nodes(session, lock=True), parent, name)
    new = TreeNode(parent_id=parent or None, position=position, name=name)
    session.add(new)
    session.flush()
    return new.id


def change(
    session: Session, actor: Actor, node_id: int, step: str, *, name: str, parent: int, after: int
) -> str:
    """Rename, remove or move a node; return its name before.

    Args:
        session: database session.
        actor: the user.
        node_id: the node.
        step: ``rename``, ``remove``, ``move``, or one of ``domain.tree.STEPS``.
        name: the new name.
        parent: the new parent of ``move``.
        after: the sibling that the node follows after ``move``.

    Raises:
        Problem: ``forbidden``, ``not-found``, ``conflict``, ``invalid``; a node with others below it, or with
            readers of its own, stays. The articles of a removed node are then in its parent.
    """
    _check(session, actor, node_id, parent)
    known = nodes(session, lock=True)
    node = next((each for each in known if each.id == node_id), None)
    if node is None:
        raise Problem("not-found")
    if step == "rename":
        if any((each.parent, each.name) == (node.parent, name) and each.id != node_id for each in known):
            raise Problem("invalid", errors=[FieldError("name", "repeated-node")])
        session.execute(update(TreeNode).where(TreeNode.id == node_id).values(name=name))
    elif step == "remove":
        if any(each.parent == node_id for each in known):
            raise Problem("invalid", errors=[FieldError("name", "not-empty")])
        if session.scalar(select(Reader.id).where(Reader.node_id == node_id).limit(1)):
            raise Problem("invalid", errors=[FieldError("name", "still-restricted")])
        inside = ArticleNode.node_id == node_id
        if node.parent:
            session.execute(update(ArticleNode).where(inside).values(node_id=node.parent))
        else:
            session.execute(delete(ArticleNode).where(inside))
        session.execute(delete(TreeNode).where(TreeNode.id == node_id))
    else:
        if step in tree.STEPS:
            parent, after = tree.stepped(known, node_id, step)
        for each in tree.moved(known, node_id, parent, after):
            values = {"parent_id": each.parent or None, "position": each.position}
            session.execute(update(TreeNode).where(TreeNode.id == each.id).values(**values))
    return node.name


def place(session: Session, actor: Actor, article_id: int, node_id: int) -> None:
    """Give an article its place in the tree; 0 for none.

    Raises:
        Problem: ``not-found``, ``forbidden``.
    """
    article = load_seen(session, actor, article_id, lock=True)
    if not permissions.may_edit(actor, author_id=article.author_id, status=article.status):
        raise Problem("forbidden")
    session.execute(delete(ArticleNode).where(ArticleNode.article_id == article_id))
    if node_id:
        found = select(TreeNode.id).where(_is_seen(actor, node_id)).with_for_update(read=True, key_share=True)
        if session.scalar(found) is None:
            raise Problem("not-found")
        session.add(ArticleNode(article_id=article_id, node_id=node_id))
        session.flush()


def _is_seen(actor: Actor, node_id: int) -> ColumnElement[bool]:
    return (TreeNode.id == node_id) & TreeNode.id.not_in(select_closed_nodes(actor.groups))


def _check(session: Session, actor: Actor, *node_ids: int) -> None:
    if not permissions.may_arrange(actor):
        raise Problem("forbidden")
    if any(node_id and not name_of(session, actor, node_id) for node_id in node_ids):
        raise Problem("not-found")
