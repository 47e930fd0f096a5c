"""What a framework keeps in its session, kept in ours: one decision for all frameworks, and its execution.

A framework hands over the names and values of its session as they were loaded and as they are now. Who is signed
in stands there under a name of the framework; its change is a sign-in or a sign-out, and so a change of the id.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mks_hardening._core.web.session_data import SIGN_IN_FACTS

if TYPE_CHECKING:
    from mks_hardening.wsgi import SessionHandle

__all__ = [
    "PLAIN",
    "SessionChange",
    "SessionValues",
    "check_value",
    "decide",
    "json_text",
    "keep",
    "values_after",
]

_NOTHING: Final[Mapping[str, object]] = {}
PLAIN: Final = frozenset({str, int, bool, type(None)})  # most values are of these, and need no second look


class SessionValues(NamedTuple):
    """A framework's session at one moment.

    Attributes:
        values: as JSON values.
        user: who is signed in according to them.
    """

    values: Mapping[str, object] = _NOTHING
    user: str | None = None


class SessionChange(NamedTuple):
    """What is to be done with our session.

    Attributes:
        act: ``start`` for a user, ``begin`` a session that is nobody's, ``end``, ``restart`` (end, then begin),
            ``merge`` values, or ``nothing``.
        values: what it holds afterwards; for ``merge`` only what changed.
        removed: names that go.
        user: who signs in.
    """

    act: Literal["nothing", "merge", "start", "begin", "end", "restart"]
    values: Mapping[str, object] = _NOTHING
    removed: Collection[str] = ()
    user: str = ""


def decide(
    before: SessionValues,
    now: SessionValues,
    *,
    assigned: Collection[str],
    lives: bool,
    owner: str | None,
    moved: bool,
    cleared: bool,
) -> SessionChange:
    """Decide what becomes of our session.

    Args:
        before: as it was loaded.
        now: as it is at the end of the request.
        assigned: names that were assigned since it was loaded or emptied, also where the value is the same.
        lives: whether a session of ours lives now, of a user or of nobody.
        owner: whose it is; ``None`` where it is nobody's, or there is none.
        moved: whether the application itself has started or ended it since it was loaded; then that holds.
        cleared: whether the framework's session was emptied in between, which ends what was before.
    """
    changed = {
        name: value
        for name, value in now.values.items()
        if name not in before.values or not _same(before.values[name], value)
    }
    removed = before.values.keys() - now.values.keys()
    # Where the application has moved our session itself (sign_in, end), the framework's view of it is older.
    if not moved:
        # A change of the user is a new id (ASVS 5.0, 7.2.4), whatever the framework does about its own.
        if now.user is not None and (cleared or now.user != before.user):
            if owner == now.user:
                return SessionChange("start", now.values, user=now.user)
            # What a visitor has kept before the sign-in is the visitor's own; what another user has kept is not.
            names = now.values.keys() if owner is None else assigned
            kept = {name: value for name, value in now.values.items() if name in names}
            return SessionChange("start", _without_facts(kept), user=now.user)
        if lives and (cleared or (before.user is not None and now.user is None)):
            kept = _without_facts(now.values)
            return SessionChange("restart", kept) if kept else SessionChange("end")
    if not (changed or removed):
        return SessionChange("nothing")
    if lives:
        return (
            SessionChange("merge", changed, removed)
            if now.values or owner is not None
            else SessionChange("end")
        )
    return SessionChange("begin", changed) if changed else SessionChange("nothing")


def keep(handle: SessionHandle, change: SessionChange) -> bool:
    """Do it.

    Returns:
        Whether it was done: not when the session has ended in the meantime. What a request says that was under way
        while another gave the browser a new id is dropped without a word.

    Raises:
        BackendUnavailableError: the store did not confirm it.
        ValueError: more than 4096 bytes of JSON.
    """
    if change.act == "merge":
        merged = handle.merge_data(change.values, removed=change.removed)
        return merged or handle.session_id is not None
    if change.act == "start":
        handle.start(change.user, data=change.values)
    if change.act in {"end", "restart"}:
        handle.end()
    if change.act in {"begin", "restart"}:
        handle.start_anonymous(data=change.values)
    return True


def values_after(now: Mapping[str, object], kept: Mapping[str, object]) -> dict[str, object]:
    """What the framework's session holds once it was kept, so that it can be kept again in the same request.

    Args:
        now: its values; the objects stay the same where their value was kept.
        kept: what our session holds.
    """
    return {
        name: now[name] if name in now and _same(now[name], value) else value for name, value in kept.items()
    }


def check_value(value: object) -> None:
    """Refuse what is no JSON value.

    Raises:
        TypeError: a value that JSON has no form for.
        ValueError: NaN, infinity, or a value that contains itself.
    """
    if type(value) not in PLAIN:
        json_text(value)


def _without_facts(values: Mapping[str, object]) -> dict[str, object]:
    """The values without those of a sign-in: step-up belongs to the session it happened in (ASVS 5.0, 7.5.3)."""
    return {name: value for name, value in values.items() if name != SIGN_IN_FACTS}


def _same(before: object, now: object) -> bool:
    """Whether a value is what it was; true is not one here, and a list may hold either."""
    kind = type(now)
    # 1 == True == 1.0 in Python, and not in JSON.
    if kind is not type(before):
        return False
    return before == now if kind in PLAIN else json_text(before) == json_text(now)


def json_text(value: object) -> str:
    """A JSON value as text, as the store keeps it."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
