"""Who may see and change what: pure rules over roles and statuses."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import NamedTuple

__all__ = [
    "CATEGORIES",
    "JST",
    "ROLES",
    "STATUSES",
    "TASK_STATES",
    "UNFINISHED",
    "Actor",
    "may_administer",
    "may_delete",
    "may_detach",
    "may_edit",
    "may_see",
    "may_write",
    "sees_all",
]

JST = timezone(timedelta(hours=9), "JST")
ROLES = {"viewer": "閲覧", "writer": "執筆", "reviewer": "承認", "admin": "管理"}
STATUSES = {"draft": "下書き", "review": "レビュー中", "published": "公開", "retired": "廃止"}
UNFINISHED = frozenset({"draft", "review"})
"""Statuses in which an article is there for its author and for reviewers."""
TASK_STATES = {
    "waiting": "待ち",
    "running": "実行中",
    "done": "完了",
    "dead": "失敗",
    "cancelled": "中止",
}
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
    """The signed-in person, as far as the rules need to know."""

    id: int
    username: str
    display_name: str
    role: str
    language: str = ""
    """The language that the person chose; empty: none, so the browser tells."""


def may_write(actor: Actor) -> bool:
    """Whether the actor may create articles."""
    return actor.role != "viewer"


def sees_all(actor: Actor) -> bool:
    """Whether the actor may see other people's drafts."""
    return actor.role in {"reviewer", "admin"}


def may_see(actor: Actor, *, author_id: int, status: str) -> bool:
    """Published and retired articles are for everybody; drafts for their author and for reviewers."""
    return status in _OPEN_STATUSES or author_id == actor.id or sees_all(actor)


def may_edit(actor: Actor, *, author_id: int, status: str) -> bool:
    """Writers edit their own articles until these are retired; reviewers edit all."""
    if sees_all(actor):
        return True
    return may_write(actor) and author_id == actor.id and status != "retired"


def may_delete(actor: Actor, *, author_id: int, status: str) -> bool:
    """Writers remove their own drafts, on which nobody relies yet; what others may have read, administrators."""
    if may_administer(actor):
        return True
    return may_write(actor) and author_id == actor.id and status == "draft"


def may_detach(actor: Actor, *, status: str, shown: bool) -> bool:
    """Of those who may edit: writers take away a file that readers do not rely on yet, reviewers any."""
    return sees_all(actor) or not shown or status in UNFINISHED


def may_administer(actor: Actor) -> bool:
    """Whether the actor may manage accounts and look at the demonstration's inside."""
    return actor.role == "admin"
