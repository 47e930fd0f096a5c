"""Restricting an article, a category or a node of the tree to the members of groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete, func, select

from knowledge_system.domain import permissions
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.models import Article, Group, Reader, TreeNode
from knowledge_system.services.identity import accounts
from knowledge_system.services.knowledge import tree
from knowledge_system.services.knowledge.article_queries import load_seen
from knowledge_system.services.visibility import groups_of, read_by, select_closed_nodes

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from knowledge_system.domain.permissions import Actor

KINDS: Final = {"article": Reader.article_id, "category": Reader.category, "node": Reader.node_id}


class Restriction(NamedTuple):
    """The name of an article, category or node, all groups by id, and those to which it is restricted."""

    name: str
    groups: dict[int, str]
    chosen: frozenset[int]

    @property
    def seen(self) -> str:
        """Fingerprint of the chosen groups, to detect concurrent changes."""
        return accounts.fingerprint(*sorted(self.chosen))

    def names(self, chosen: Iterable[int]) -> list[str]:
        """Return the names of groups, in their order."""
        return [self.groups[group] for group in self.groups if group in set(chosen)]


def find(session: Session, actor: Actor, kind: str, subject: str, *, lock: bool = False) -> Restriction:
    """Return a restriction that the actor may change.

    Args:
        session: database session.
        actor: the user.
        kind: ``article``, ``category`` or ``node``.
        subject: the id, or the name of the category.
        lock: whether to wait for concurrent changes of groups and restrictions.

    Raises:
        Problem: ``not-found``, also if the actor may not see it; ``forbidden``.
    """
    name = _named(session, actor, kind, subject)
    groups = select(Group.id, Group.name).order_by(Group.name)
    listed = session.execute(groups.with_for_update() if lock else groups)
    chosen = select(Reader.group_id).where(_is(kind, subject))
    return Restriction(name, {row.id: row.name for row in listed}, frozenset(session.scalars(chosen)))


def restrict(
    session: Session, actor: Actor, kind: str, subject: str, wanted: Iterable[int], *, seen: str = ""
) -> tuple[list[str], list[str]]:
    """Restrict something to groups, or open it to everybody; return the names of the groups before and after.

    Raises:
        Problem: as ``find``; ``not-found`` for an unknown group; ``conflict`` if it has changed since ``seen``;
            ``invalid`` if the actor could not read the article or see the node any more.
    """
    before, chosen = find(session, actor, kind, subject, lock=True), frozenset(wanted)
    if not chosen <= before.groups.keys():
        raise Problem("not-found")
    if seen not in {"", before.seen}:
        raise Problem("conflict")
    session.execute(delete(Reader).where(_is(kind, subject)))
    values = {KINDS[kind].key: _value(kind, subject)}
    session.add_all(Reader(group_id=group, **values) for group in sorted(chosen))
    session.flush()
    own = groups_of(actor.id)
    closed: dict[str, Any] = {
        "article": select(Article.id).where(Article.id == values.get("article_id"), ~read_by(own)),
        "node": select(TreeNode.id).where(
            TreeNode.id == values.get("node_id"), TreeNode.id.in_(select_closed_nodes(own))
        ),
    }
    if kind in closed and session.scalar(closed[kind]) is not None:
        raise Problem("invalid", errors=[FieldError("groups", "locks-out")])
    return before.names(before.chosen), before.names(chosen)


def restricted_categories(session: Session) -> dict[str, list[str]]:
    """Return the groups of each category that is restricted."""
    asked = select(Reader.category, Group.name).join(Group, Group.id == Reader.group_id)
    found: dict[str, list[str]] = {}
    for category, name in session.execute(asked.order_by(Group.name)):
        if category is not None:
            found.setdefault(category, []).append(name)
    return found


def restricted_to(session: Session, group_id: int) -> dict[str, int]:
    """Return how many articles, categories and nodes are restricted to a group, by kind."""
    numbers = (func.count(column) for column in KINDS.values())
    row = session.execute(select(*numbers).where(Reader.group_id == group_id)).one()
    return dict(zip(KINDS, row, strict=True))


def _is(kind: str, subject: str) -> Any:
    return KINDS[kind] == _value(kind, subject)


def _value(kind: str, subject: str) -> int | str:
    return subject if kind == "category" else int(subject)


def _named(session: Session, actor: Actor, kind: str, subject: str) -> str:
    if kind == "category" and subject in permissions.CATEGORIES:
        allowed, name = permissions.may_administer(actor), subject
    elif kind not in KINDS or not (
        subject.isascii() and subject.isdecimal() and len(subject) < 11 and subject[0] != "0"
    ):
        raise Problem("not-found")
    elif kind == "article":
        article = load_seen(session, actor, int(subject))
        allowed = permissions.may_restrict(actor, author_id=article.author_id, status=article.status)
        name = article.title
    else:
        allowed, name = permissions.may_arrange(actor), tree.name_of(session, actor, int(subject))
        if not name:
            raise Problem("not-found")
    if not allowed:
        raise Problem("forbidden")
    return name
