"""Who may see and change what: pure rules over roles and statuses."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "CATEGORIES",
    "ROLES",
    "STATUSES",
    "Actor",
    "may_administer",
    "may_edit",
    "may_see",
    "may_write",
    "sees_all",
    "statuses_for",
]

ROLES = {"viewer": "閲覧", "writer": "執筆", "reviewer": "承認", "admin": "管理"}
STATUSES = {"draft": "下書き", "review": "レビュー中", "published": "公開", "retired": "廃止"}
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

    @property
    def role_label(self) -> str:
        """The role in Japanese."""
        return ROLES[self.role]


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


def statuses_for(actor: Actor) -> tuple[str, ...]:
    """The statuses in which the actor may save an article: publishing takes a second pair of eyes."""
    if sees_all(actor):
        return tuple(STATUSES)
    return ("draft", "review") if may_write(actor) else ()


def may_administer(actor: Actor) -> bool:
    """Whether the actor may manage accounts and look at the demonstration's inside."""
    return actor.role == "admin"
