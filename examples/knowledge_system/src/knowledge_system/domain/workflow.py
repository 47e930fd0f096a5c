"""From draft to publication and retirement: one table of steps, and who may take them.

A version is written, reviewed and approved. While the next version of a published or retired article is written and
reviewed, readers go on seeing the article as it was.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from knowledge_system.domain import permissions
from knowledge_system.domain.permissions import Actor

__all__ = ["STEPS", "Step", "Subject", "refusal", "saved_as", "statuses_to_save", "steps_for"]


class Step(NamedTuple):
    """One step: from which status to which, as whom, and what it needs.

    Attributes:
        label: on its button.
        before: the status in which it can be taken.
        after: the status that follows.
        as_reviewer: whether it takes a reviewer; else whoever may edit the article.
        comment: whether a reason must be given.
        four_eyes: whether somebody who wrote the version may not take it.
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
    """What a step is about: a version with its status, its author and who wrote it."""

    status: str
    author_id: int
    writers: Collection[int]


def refusal(step: str, actor: Actor, subject: Subject, *, four_eyes: bool = True) -> str:
    """Why the step cannot be taken, as the code of a problem; empty when it can.

    Args:
        step: a key of ``STEPS``.
        actor: who wants to take it.
        subject: about what.
        four_eyes: whether nobody may approve what he or she wrote.
    """
    wanted = STEPS[step]
    as_reviewer = permissions.sees_all(actor)
    own = permissions.may_write(actor) and subject.author_id == actor.id
    if not (as_reviewer or (own and not wanted.as_reviewer)):
        return "forbidden"
    if subject.status != wanted.before:
        return "wrong-state"
    if wanted.four_eyes and four_eyes and actor.id in subject.writers:
        return "own-work"
    return ""


def steps_for(actor: Actor, subject: Subject, *, four_eyes: bool = True) -> dict[str, Step]:
    """The steps the actor can take now."""
    return {
        name: step for name, step in STEPS.items() if not refusal(name, actor, subject, four_eyes=four_eyes)
    }


def statuses_to_save(actor: Actor, *, four_eyes: bool = True) -> tuple[str, ...]:
    """The statuses in which the actor may save a version; published only where one may approve one's own."""
    if not permissions.may_write(actor):
        return ()
    return saved_as(four_eyes=four_eyes or not permissions.sees_all(actor))


def saved_as(*, four_eyes: bool) -> tuple[str, ...]:
    """The statuses in which anybody may save a version; all others are reached by steps alone."""
    return ("draft", "review") if four_eyes else ("draft", "review", "published")
