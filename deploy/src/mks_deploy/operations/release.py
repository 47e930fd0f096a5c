"""Blue-green releases: the new version gets requests once it is healthy, the old one runs until it is drained.

This module defines the order of the steps, independent of any server; ``ReleaseSteps`` performs them. If a step
fails, requests stay with the old version, and the trail records the reason.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from mks_deploy.operations.operation_log import OperationLog
from mks_deploy.template_tables import Slot

__all__ = [
    "Move",
    "ReleaseError",
    "ReleaseSteps",
    "Slot",
    "State",
    "is_version_name",
    "release",
    "restart",
    "rollback",
    "unserved_release",
]

_OTHER: Final[dict[Slot, Slot]] = {"blue": "green", "green": "blue"}
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the active version.

    Attributes:
        action: name of the operation.
        version: version that gets the requests.
        previous: version that has had them; empty at the first release.
    """

    action: Literal["release", "restart", "rollback"]
    version: str
    previous: str


class ReleaseError(RuntimeError):
    """A step was not performed; the log says whether requests are still routed as before."""


def is_version_name(text: str) -> bool:
    """Whether a text may name a version, and so a folder."""
    return _VERSION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class State:
    """Where the requests go, and the versions in the slots.

    Attributes:
        active: slot that gets the requests; ``None`` before the first release.
        blue: version in the blue slot.
        green: version in the green slot.
        before: previously active version.
        canary: percentage of the requests that the other slot gets.
    """

    active: Slot | None = None
    blue: str = ""
    green: str = ""
    before: str = ""
    canary: int = 0

    @property
    def version(self) -> str:
        """The version that gets the requests."""
        return self.in_slot(self.active) if self.active else ""

    @property
    def newest(self) -> str:
        """The version that got requests last: that of a canary whose release was interrupted, or ``version``."""
        return self.in_slot(_OTHER[self.active]) if self.active and self.canary else self.version

    @property
    def previous(self) -> str:
        """The version before the newest, the target of a rollback; empty if there is none."""
        return self.version if self.canary else self.before

    @property
    def weights(self) -> dict[Slot, int]:
        """Percentage of the requests for each slot that gets some."""
        if not self.active:
            return {}
        shares = {self.active: 100 - self.canary, _OTHER[self.active]: self.canary}
        return {slot: share for slot, share in shares.items() if share}

    def in_slot(self, slot: Slot) -> str:
        """Return the version in a slot."""
        return self.blue if slot == "blue" else self.green

    def filled(self, slot: Slot, version: str) -> State:
        """Return the state with this version in this slot."""
        return replace(self, blue=version) if slot == "blue" else replace(self, green=version)

    def moved(self, slot: Slot, version: str) -> State:
        """Return the state with this version active in this slot."""
        before = self.before if version == self.version else self.version
        return replace(self.filled(slot, version), active=slot, before=before, canary=0)


class ReleaseSteps(Protocol):
    """Interface to the host for a release; each step raises ``ReleaseError`` with a reason if it fails."""

    def run_hooks(self, moment: Literal["before", "after"], move: Move) -> None:
        """Run the commands that the settings name for this moment, until one fails."""

    def prepare(self, slot: Slot, version: str) -> None:
        """Install a version in an idle slot, and its static files next to those of the other slot."""

    def migrate(self, version: str) -> None:
        """Migrate the database in a way that both versions can use; requires a fresh backup."""

    def start(self, slot: Slot) -> None:
        """Start a slot."""

    def stop(self, slot: Slot) -> None:
        """Stop a slot after it has finished its requests."""

    def wait_until_healthy(self, slot: Slot) -> None:
        """Wait until the slot has reported several times in a row that it is ready."""

    def route(self, state: State) -> None:
        """Distribute the requests as a state says, and store it in the same step."""

    def observe(self, slot: Slot, old: Slot) -> str:
        """Compare a canary slot with the old one for a while; return what was observed."""

    def drain(self, slot: Slot) -> None:
        """Wait until a slot that no longer gets requests has finished the running ones."""

    def finish(self, version: str) -> None:
        """Switch everything outside the slots to this version: background tasks, link to the current version."""


def release(
    version: str,
    state: State,
    steps: ReleaseSteps,
    trail: OperationLog,
    *,
    canary: int = 0,
    migrate: bool = False,
    note: str = "",
) -> State:
    """Release a version.

    Args:
        version: name of a directory of the releases.
        state: current state.
        steps: release steps of the host.
        trail: log of the operations.
        canary: percentage of requests that the version gets first; 0 switches at once.
        migrate: whether to migrate the database first.
        note: release note of the version, for the log.

    Returns:
        The new state.

    Raises:
        ReleaseError: the release failed.
    """
    move = Move("release", version, state.version)
    return _carry_out(move, state, steps, trail, canary=canary, migrate=migrate, note=note)


def rollback(state: State, steps: ReleaseSteps, trail: OperationLog) -> State:
    """Return to the previous version, with the same health checks and without changing the database.

    Requests stay where they are if the last release was killed before its version got any.

    Raises:
        ReleaseError: there is no previous version, or it is unhealthy.
    """
    if state.active and (unserved := unserved_release(state, trail)):
        steps.stop(_OTHER[state.active])
        trail.add("rollback", outcome="done", version=state.version, **{"from": unserved})
        return state
    if not state.previous:
        raise ReleaseError("there is no version to go back to")
    move = Move("rollback", state.previous, state.newest)
    return _carry_out(move, state, steps, trail, canary=0, migrate=False, note="")


def unserved_release(state: State, trail: OperationLog) -> str:
    """Return the version whose release was killed before it got a request; empty if the last one was not."""
    last = trail.last_move()
    version = str(last.get("version", ""))
    begun = (last.get("action"), last.get("outcome")) == ("release", "begun")
    return version if begun and not state.canary and version != state.version else ""


def restart(state: State, steps: ReleaseSteps, trail: OperationLog) -> State:
    """Start the running version again in the other slot, with the same health checks as a release.

    Its processes read their settings and secrets again. Unlike a restart of the unit, it loses no request whichever
    the server is, and changes nothing if the version no longer starts.

    Raises:
        ReleaseError: no version is running, or it does not become healthy.
    """
    if not state.version:
        raise ReleaseError("there is no version to restart: release one")
    move = Move("restart", state.version, state.version)
    return _carry_out(move, state, steps, trail, canary=0, migrate=False, note="")


def _carry_out(
    move: Move,
    state: State,
    steps: ReleaseSteps,
    trail: OperationLog,
    *,
    canary: int,
    migrate: bool,
    note: str,
) -> State:
    action, version = move.action, move.version
    if not is_version_name(version):
        raise ReleaseError("a version is named by letters, digits and . _ -")
    if not 0 <= canary <= 50:
        raise ReleaseError("the share of a canary must be from 0 to 50 percent")
    if version == state.version and action == "release":
        raise ReleaseError(f"{version} gets the requests already; mks-deploy restart starts it again")
    old = state.active
    new: Slot = _OTHER[old] if old else "blue"
    facts: dict[str, str] = {"version": version, "from": move.previous, "slot": new}
    facts |= {"note": note} if note else {}
    trail.add(action, outcome="begun", **facts, canary=canary, migrate=migrate)
    try:
        if action == "release":
            # Not before a rollback, which must not wait for a failing command.
            steps.run_hooks("before", move)
        if old is not None:
            # An interrupted release may have left some of the requests with its canary.
            state = replace(state, canary=0)
            steps.route(state)
        steps.prepare(new, version)
        if migrate:
            steps.migrate(version)
        moved = state.moved(new, version)
        facts |= _start_version(state, moved, new, steps, canary=canary)
    except BaseException as error:
        with suppress(OSError):  # a full disk, which the error names already
            trail.add(action, outcome="refused", **facts, reason=str(error))
        raise
    try:
        steps.finish(version)
        if old is not None:
            steps.drain(old)
            steps.stop(old)
        if action != "restart":
            steps.run_hooks("after", move)
    except BaseException as error:
        with suppress(OSError):
            trail.add(action, outcome="unfinished", **facts, reason=str(error))
        raise
    trail.add(action, outcome="done", **facts)
    return moved


def _start_version(
    state: State, moved: State, new: Slot, steps: ReleaseSteps, *, canary: int
) -> dict[str, str]:
    """Route the requests to a slot; return what was observed."""
    seen, old = {}, state.active
    try:
        # Processes of an unfinished release would keep running their version, whatever the slot is linked to.
        steps.stop(new)
        steps.start(new)
        steps.wait_until_healthy(new)
        if canary and old is not None:
            steps.route(replace(state.filled(new, moved.version), canary=canary))
            seen["observed"] = steps.observe(new, old)
        steps.route(moved)
    except BaseException:
        # Requests first, then the slot: none is routed to a slot that is stopping.
        if old is not None:
            steps.route(state)
        steps.stop(new)
        raise
    return seen
