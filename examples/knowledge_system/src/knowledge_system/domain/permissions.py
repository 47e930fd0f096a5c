"""Permissions: rules over roles and statuses."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta, timezone
from typing import NamedTuple

JST = timezone(timedelta(hours=9), "JST")
ROLES = {"viewer": "閲覧", "writer": "執筆", "reviewer": "承認", "admin": "管理"}
MAILS = {"each": "そのつど", "daily": "1 日 1 通にまとめる", "none": "受け取らない"}
"""How users get notices by mail."""
STATUSES = {"draft": "下書き", "review": "レビュー中", "published": "公開", "retired": "廃止"}
UNFINISHED = frozenset({"draft", "review"})
"""Statuses in which only the author and reviewers see an article."""
SEE_ALL = frozenset({"reviewer", "admin"})
"""Roles that see the unfinished articles of others."""
COMMENT_CHANGES = 900.0
"""Seconds in which a comment may be changed by its writer."""
TASK_STATES = {"waiting": "待ち", "running": "実行中", "done": "完了", "dead": "失敗", "cancelled": "中止"}
CATEGORIES = (
    "土工",
    "基礎",
    "コンクリート",
    "鉄筋",
    "型枠",
    "足場",
    "鋼構造",
    "舗装",
    "測量",
    "安全",
    "品質",
    "工程",
    "積算",
    "環境",
    "維持管理",
)

_OPEN_STATUSES = frozenset({"published", "retired"})


class Actor(NamedTuple):
    """The signed-in user, as far as the rules need it."""

    id: int
    username: str
    display_name: str
    role: str
    language: str = ""
    """The language chosen by the user; empty to use ``Accept-Language``."""
    unread: int = 0
    """Number of unread lines of the notices."""
    groups: frozenset[int] = frozenset()
    """The user's groups, as far as something is restricted to them."""


def may_write(actor: Actor) -> bool:
    """Whether the actor may create articles."""
    return actor.role != "viewer"


def sees_all(actor: Actor) -> bool:
    """Whether the actor may see other users' drafts."""
    return actor.role in SEE_ALL


def may_read(groups: frozenset[int], readers: Iterable[Collection[int]]) -> bool:
    """Whether a person may read an article: for each of its restrictions, a member of one of the groups named.

    Roles make no exception: administrators who need to read a restricted article join a group, which is audited.

    Args:
        groups: groups of the person.
        readers: the groups to which the article, its category, its place in the tree, and each place above it are
            restricted; what is open to everybody is left out.
    """
    return not any(groups.isdisjoint(each) for each in readers)


def may_see(actor: Actor, *, author_id: int, status: str, readers: Iterable[Collection[int]]) -> bool:
    """Whether the actor may see an article that the actor may read.

    Published and retired ones for all, others for the author and reviewers.
    """
    by_status = status in _OPEN_STATUSES or author_id == actor.id or sees_all(actor)
    return by_status and may_read(actor.groups, readers)


def may_edit(actor: Actor, *, author_id: int, status: str) -> bool:
    """Whether the actor may edit an article: reviewers all, writers their own until it is retired."""
    if sees_all(actor):
        return True
    return may_write(actor) and author_id == actor.id and status != "retired"


def may_see_waiting(actor: Actor, *, author_id: int, status: str, readers: Iterable[Collection[int]]) -> bool:
    """Whether the actor may see the files of the next version of an article, add some, and publish them.

    Those who may edit the article, if they may read every version that readers do not see yet: a file may belong to
    any of them. Roles make no exception, as in ``may_read``.

    Args:
        actor: a user who may see the article.
        author_id: id of its author.
        status: its status.
        readers: the groups to which the category of each of those versions is restricted, as in ``may_read``.
    """
    return may_edit(actor, author_id=author_id, status=status) and may_read(actor.groups, readers)


def may_restrict(actor: Actor, *, author_id: int, status: str) -> bool:
    """Whether the actor may choose the readers of an article: reviewers any, writers their own unapproved ones."""
    return sees_all(actor) or (may_write(actor) and author_id == actor.id and status in UNFINISHED)


def may_delete(actor: Actor, *, author_id: int, status: str) -> bool:
    """Whether the actor may delete an article: writers their own drafts only, which no reader relies on yet."""
    if may_administer(actor):
        return True
    return may_write(actor) and author_id == actor.id and status == "draft"


def is_kept(*, status: str, age: float, kept: float) -> bool:
    """Whether an article must still be kept, whoever wants to delete it.

    Args:
        status: its status; drafts need not be kept.
        age: seconds since its last change of status or text.
        kept: seconds for which an article is kept after its retirement; 0 for none.
    """
    return kept > 0 and status in _OPEN_STATUSES and (status != "retired" or age < kept)


def may_detach(actor: Actor, *, status: str, shown: bool) -> bool:
    """Whether an editor may remove a file: writers only one that readers do not see yet, reviewers any."""
    return sees_all(actor) or not shown or status in UNFINISHED


def may_change_comment(actor: Actor, *, author_id: int, age: float) -> bool:
    """Whether the actor may change a comment: one's own, in the first quarter of an hour (``age`` in seconds)."""
    return author_id == actor.id and age <= COMMENT_CHANGES


def may_remove_comment(actor: Actor, *, author_id: int) -> bool:
    """Whether the actor may remove a comment: one's own, reviewers any."""
    return author_id == actor.id or sees_all(actor)


def may_review(actor: Actor, approvers: Iterable[Collection[int]]) -> bool:
    """Whether the actor may approve, return and retire a version.

    Args:
        actor: the user.
        approvers: members of the approving group of each category of the version that has one; administrators
            may review in any case, so that an empty group does not block it.
    """
    return may_administer(actor) or (sees_all(actor) and all(actor.id in members for members in approvers))


def may_arrange(actor: Actor) -> bool:
    """Whether the actor may change the tree of articles."""
    return sees_all(actor)


def may_administer(actor: Actor) -> bool:
    """Whether the actor may manage accounts and use the diagnostic pages."""
    return actor.role == "admin"
