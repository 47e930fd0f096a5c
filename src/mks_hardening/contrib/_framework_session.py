"""Storage of a framework's session in ours: one decision for all frameworks, and its execution.

A framework passes the names and values of its session as they were loaded and as they are now. They include the
signed-in user, under a name that the framework defines. A change of the user is a sign-in or sign-out, and so
changes the session id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mks_hardening._core.web.session_data import SIGN_IN_FACTS, json_text

if TYPE_CHECKING:
    from mks_hardening.wsgi import SessionHandle

__all__ = [
    "PLAIN",
    "LoadedSession",
    "SessionChange",
    "SessionValues",
    "apply_change",
    "check_value",
    "decide",
    "values_after",
]

_NOTHING: Final[Mapping[str, object]] = {}
PLAIN: Final = frozenset({str, int, bool, type(None)})  # most values; they need no further check


class SessionValues(NamedTuple):
    """State of a framework's session at one moment.

    Attributes:
        values: its values, as JSON values.
        user: the signed-in user according to them.
    """

    values: Mapping[str, object] = _NOTHING
    user: str | None = None


class SessionChange(NamedTuple):
    """A change of our session.

    Attributes:
        act: ``start`` for a user, ``begin`` an anonymous session, ``end``, ``restart`` (end, then begin), ``merge``
            values, or ``nothing``.
        values: values of the session after the change; for ``merge`` only those that have changed.
        removed: names to remove.
        user: user who signs in.
    """

    act: Literal["nothing", "merge", "start", "begin", "end", "restart"]
    values: Mapping[str, object] = _NOTHING
    removed: Collection[str] = ()
    user: str = ""


class LoadedSession:
    """A framework's session as it was loaded, and what has been assigned since.

    Attributes:
        before: its values and user.
        assigned: names assigned since it was loaded or cleared.
        cleared: whether it was cleared.
    """

    def __init__(self) -> None:
        self.before = SessionValues()
        self.assigned: set[str] = set()
        self.cleared = False
        self._owner: tuple[str | None, bool] = None, False

    def remember(self, handle: SessionHandle, before: SessionValues) -> None:
        """Note the state at the time of loading or storing."""
        self.before = before
        self._owner = handle.user_id, handle.exists

    def decide_change(self, handle: SessionHandle, now: SessionValues) -> SessionChange:
        """Return how our session changes."""
        owner = handle.user_id, handle.exists
        return decide(
            self.before,
            now,
            assigned=self.assigned,
            exists=owner[1],
            owner=owner[0],
            moved=owner != self._owner,
            cleared=self.cleared,
        )


def decide(
    before: SessionValues,
    now: SessionValues,
    *,
    assigned: Collection[str],
    exists: bool,
    owner: str | None,
    moved: bool,
    cleared: bool,
) -> SessionChange:
    """Decide how our session changes.

    Args:
        before: the framework's session as it was loaded.
        now: the framework's session at the end of the request.
        assigned: names assigned since the session was loaded or cleared, also with an unchanged value.
        exists: whether there is a session of ours now, also an anonymous one.
        owner: user of our session; ``None`` if it is anonymous or there is none.
        moved: whether the application itself has started or ended our session since it was loaded; this takes
            precedence.
        cleared: whether the framework's session was cleared in between, which ends the previous session.
    """
    changed = {
        name: value
        for name, value in now.values.items()
        if name not in before.values or not _same(before.values[name], value)
    }
    removed = before.values.keys() - now.values.keys()
    # If the application has changed our session itself (sign_in, end), the framework's view of it is outdated.
    if not moved:
        # A change of the user needs a new id (ASVS 5.0, 7.2.4), whatever the framework does about its own.
        if now.user is not None and (cleared or now.user != before.user):
            if owner == now.user:
                return SessionChange("start", now.values, user=now.user)
            # Values that an anonymous visitor stored before the sign-in are kept; those of another user are not.
            names = now.values.keys() if owner is None else assigned
            kept = {name: value for name, value in now.values.items() if name in names}
            return SessionChange("start", _without_facts(kept), user=now.user)
        if exists and (cleared or (before.user is not None and now.user is None)):
            kept = _without_facts(now.values)
            return SessionChange("restart", kept) if kept else SessionChange("end")
    if not (changed or removed):
        return SessionChange("nothing")
    if exists:
        return (
            SessionChange("merge", changed, removed)
            if now.values or owner is not None
            else SessionChange("end")
        )
    return SessionChange("begin", changed) if changed else SessionChange("nothing")


def apply_change(handle: SessionHandle, change: SessionChange) -> bool:
    """Apply the change to our session.

    Returns:
        Whether it was applied; ``False`` if the session has ended in the meantime. Changes of a request that was in
        progress while another one gave the browser a new id are dropped silently.

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
    """Return the values of the framework's session after it was stored, so that it can be stored again.

    Args:
        now: its values; objects whose value was stored stay the same.
        kept: the values that our session holds.
    """
    return {
        name: now[name] if name in now and _same(now[name], value) else value for name, value in kept.items()
    }


def check_value(value: object, *, place: str, name: str, accepted: str) -> None:
    """Check that a value can be stored as JSON.

    Args:
        value: value to check.
        place: the framework's session in the application's code, for the error message.
        name: name of the value in it.
        accepted: what the session accepts, for the error message.

    Raises:
        TypeError: JSON cannot represent the value.
        ValueError: NaN, infinity, or a value that contains itself.
    """
    if type(value) in PLAIN:
        return
    try:
        json_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise type(error)(f"{place}[{name!r}] cannot be kept ({error}); {accepted}") from None


def _without_facts(values: Mapping[str, object]) -> dict[str, object]:
    """Omit the facts of a sign-in: a step-up belongs to the session it happened in (ASVS 5.0, 7.5.3)."""
    return {name: value for name, value in values.items() if name != SIGN_IN_FACTS}


def _same(before: object, now: object) -> bool:
    """Return whether a value is unchanged; ``True`` and 1 differ, also inside a list."""
    kind = type(now)
    # 1 == True == 1.0 in Python, and not in JSON.
    if kind is not type(before):
        return False
    return before == now if kind in PLAIN else json_text(before) == json_text(now)
