"""Two versions side by side: the new one gets requests once it is healthy, the old one until it is drained.

The order of steps is here and knows no server; ``Steps`` does what is asked. Whatever fails, requests stay where
they were, and the trail says why.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from mks_deploy.files import replace_file
from mks_deploy.operations.journal import Trail
from mks_deploy.tables import Slot

__all__ = ["Refused", "Slot", "State", "Steps", "release", "rollback"]

_OTHER: Final[dict[Slot, Slot]] = {"blue": "green", "green": "blue"}
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Refused(RuntimeError):  # noqa: N818 - an outcome
    """A step could not be taken; the trail says whether requests are where they were."""


@dataclass(frozen=True, slots=True)
class State:
    """What runs where.

    Attributes:
        active: the slot that gets the requests; ``None`` before the first release.
        blue: version in the blue slot.
        green: version in the green slot.
        before: the version that was active before; rollback goes there.
    """

    active: Slot | None = None
    blue: str = ""
    green: str = ""
    before: str = ""

    @property
    def version(self) -> str:
        """The version that gets the requests."""
        return self.in_slot(self.active) if self.active else ""

    def in_slot(self, slot: Slot) -> str:
        """The version in a slot."""
        return self.blue if slot == "blue" else self.green

    def moved(self, slot: Slot, version: str) -> State:
        """With this version active in this slot."""
        filled = replace(self, blue=version) if slot == "blue" else replace(self, green=version)
        return replace(filled, active=slot, before=self.version)

    @classmethod
    def read(cls, file: Path) -> State:
        """As it was written; empty before the first release.

        Raises:
            Refused: the file is damaged; guessing which slot gets the requests could stop it.
        """
        if not file.exists():
            return cls()
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise Refused(f"{file} is damaged; the trail beside it says what was done last") from None

    def write(self, file: Path) -> None:
        """Whole or not at all."""
        words = {"active": self.active, "blue": self.blue, "green": self.green, "before": self.before}
        replace_file(file, json.dumps(words) + "\n")


class Steps(Protocol):
    """What a release asks of the host; each raises ``Refused`` with a reason when it cannot."""

    def prepare(self, slot: Slot, version: str) -> None:
        """Put a version into a slot that gets no requests, its static files beside those of the other."""

    def migrate(self, version: str) -> None:
        """Change the database so that both versions can work with it; only after a fresh backup."""

    def start(self, slot: Slot) -> None:
        """Start a slot."""

    def stop(self, slot: Slot) -> None:
        """Let a slot finish what it has begun, and end it."""

    def wait_until_healthy(self, slot: Slot) -> None:
        """Until it says several times in a row that it is ready."""

    def route(self, weights: dict[Slot, int]) -> None:
        """Send requests to the slots by their weights."""

    def remember(self, state: State) -> None:
        """Keep what runs now, before anything else: the next release must not take the active slot for idle."""

    def observe(self, slot: Slot, old: Slot) -> str:
        """Compare a slot that gets some of the requests with the old one, for a while; returns what was seen."""

    def drain(self, slot: Slot) -> None:
        """Until a slot that gets no requests any more has answered those it had."""

    def finish(self, version: str) -> None:
        """Move what is not in a slot to this version: tasks, and the link to the current one."""


def release(
    version: str, state: State, steps: Steps, trail: Trail, *, canary: int = 0, migrate: bool = False
) -> State:
    """Bring a version to the requests.

    Args:
        version: name of a folder of the releases.
        state: what runs now.
        steps: the host.
        trail: who did what.
        canary: share of the requests in percent that it gets first; 0 goes at once.
        migrate: whether the database is changed before.

    Returns:
        What runs then.

    Raises:
        Refused: it did not take place.
    """
    return _move("release", version, state, steps, trail, canary=canary, migrate=migrate)


def rollback(state: State, steps: Steps, trail: Trail) -> State:
    """Bring the version before back, by the same gates and without touching the database.

    Raises:
        Refused: there was none, or it is not healthy any more.
    """
    if not state.before:
        raise Refused("there is no version to go back to")
    return _move("rollback", state.before, state, steps, trail, canary=0, migrate=False)


def _move(
    action: str, version: str, state: State, steps: Steps, trail: Trail, *, canary: int, migrate: bool
) -> State:
    if not _VERSION.fullmatch(version):
        raise Refused("a version is named by letters, digits and . _ -")
    if not 0 <= canary <= 50:
        raise Refused("the share of a canary must be from 0 to 50 percent")
    if version == state.version:
        raise Refused(f"{version} gets the requests already")
    old = state.active
    new: Slot = _OTHER[old] if old else "blue"
    facts: dict[str, str] = {"version": version, "from": state.version, "slot": new}
    trail.add(action, outcome="begun", **facts, canary=canary, migrate=migrate)
    try:
        if old is not None:
            # A release that died with the machine may have left its canary with some of the requests.
            steps.route({old: 100})
        steps.prepare(new, version)
        if migrate:
            steps.migrate(version)
        facts |= _bring_in(new, old, steps, canary=canary)
    except BaseException as error:
        trail.add(action, outcome="refused", **facts, reason=str(error))
        raise
    moved = state.moved(new, version)
    steps.remember(moved)
    try:
        steps.finish(version)
        if old is not None:
            steps.drain(old)
            steps.stop(old)
    except BaseException as error:
        trail.add(action, outcome="unfinished", **facts, reason=str(error))
        raise
    trail.add(action, outcome="done", **facts)
    return moved


def _bring_in(new: Slot, old: Slot | None, steps: Steps, *, canary: int) -> dict[str, str]:
    """Route the requests to a slot; returns what was observed on the way."""
    seen = {}
    try:
        # What an unfinished release left running would go on with its own version, whatever the slot is linked to.
        steps.stop(new)
        steps.start(new)
        steps.wait_until_healthy(new)
        if canary and old is not None:
            steps.route({old: 100 - canary, new: canary})
            seen["observed"] = steps.observe(new, old)
        steps.route({new: 100})
    except BaseException:
        # Requests first, then the slot: nobody is sent to one that ends.
        if old is not None:
            steps.route({old: 100})
        steps.stop(new)
        raise
    return seen
