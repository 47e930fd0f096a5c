"""Workflow from draft to publication and retirement: a table of steps and their permissions.

While the next version of a published or retired article is written and reviewed, readers continue to see the
current one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from knowledge_system.domain import permissions
from knowledge_system.domain.permissions import Actor


class Step(NamedTuple):
    """A workflow step.

    Attributes:
        label: label of its button.
        before: status in which it is available.
        after: status it leads to.
        as_reviewer: whether it requires a reviewer; otherwise authors may take it for their own articles too.
        comment: whether a reason is required.
        four_eyes: whether users who wrote the version may not take it.
    """

    label: str
    before: str
    after: str
    as_reviewer: bool = False
    comment: bool = False
    four_eyes: bool = False


STEPS: Final = {
    "submit": Step("レビューに出す", "draft", "review"),
    "withdraw": Step("下書きに戻す", "review", "draft"),
    "return": Step("修正を依頼する", "review", "draft", as_reviewer=True, comment=True),
    "approve": Step("承認して公開する", "review", "published", as_reviewer=True, four_eyes=True),
    "confirm": Step("内容を確認した", "published", "published"),
    "retire": Step("廃止する", "published", "retired", as_reviewer=True, comment=True),
}


class Subject(NamedTuple):
    """The version a step applies to: status, author, users who wrote it, and members of the approving groups."""

    status: str
    author_id: int
    writers: Collection[int]
    approvers: Collection[Collection[int]] = ()


def refusal(step: str, actor: Actor, subject: Subject, *, four_eyes: bool = True) -> str:
    """Return the problem code that prevents the step; empty if it is allowed.

    Args:
        step: key of ``STEPS``.
        actor: user who wants to take the step.
        subject: version the step applies to.
        four_eyes: whether users may not approve a version they wrote.
    """
    wanted = STEPS[step]
    as_reviewer = permissions.sees_all(actor)
    own = permissions.may_write(actor) and subject.author_id == actor.id
    if not (as_reviewer or (own and not wanted.as_reviewer)):
        return "forbidden"
    if wanted.as_reviewer and not permissions.may_review(actor, subject.approvers):
        return "forbidden"
    if subject.status != wanted.before:
        return "wrong-state"
    if wanted.four_eyes and four_eyes and actor.id in subject.writers:
        return "own-work"
    return ""


def steps_for(actor: Actor, subject: Subject, *, four_eyes: bool = True) -> dict[str, Step]:
    """Return the steps that the actor can take now."""
    return {
        name: step for name, step in STEPS.items() if not refusal(name, actor, subject, four_eyes=four_eyes)
    }


def statuses_to_save(actor: Actor, *, four_eyes: bool = True) -> tuple[str, ...]:
    """Return the statuses in which the actor may save; published only if users may approve their own version."""
    if not permissions.may_write(actor):
        return ()
    return saveable_statuses(four_eyes=four_eyes or not permissions.sees_all(actor))


def saveable_statuses(*, four_eyes: bool) -> tuple[str, ...]:
    """Return the statuses in which a version may be saved; all others are reached through steps only."""
    return ("draft", "review") if four_eyes else ("draft", "review", "published")
