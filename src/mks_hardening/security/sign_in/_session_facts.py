"""What a session knows about its sign-in: when and how, for step-up by session and not by user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from mks_hardening._core.checks import offers
from mks_hardening._core.web.session_data import SIGN_IN_FACTS

if TYPE_CHECKING:
    from mks_hardening.protocols import SignInSession

__all__ = ["SessionFacts", "checked_session", "facts_of", "is_recent"]

_SKEW: Final = 60.0
"""Seconds by which clocks of hosts may differ; what lies further ahead was written by a clock that was wrong."""


class SessionFacts(NamedTuple):
    """How the owner of a session was authenticated.

    Attributes:
        amr: RFC 8176.
        auth_time: wall time of the password, or of what stood in its place.
        factor_time: wall time of the last second factor in this session.
    """

    amr: tuple[str, ...]
    auth_time: float
    factor_time: float | None

    def as_data(self, user_id: str) -> dict[str, object]:
        """The facts of this user's session as session data."""
        facts = {"amr": list(self.amr), "auth_time": self.auth_time, "factor_time": self.factor_time}
        # Data may be copied into the session of another user, for example when an administrator impersonates
        # somebody.
        return {SIGN_IN_FACTS: {"user_id": user_id, **facts}}


def checked_session(session: SignInSession) -> SignInSession:
    """The session of a request.

    Raises:
        ConfigurationError: this is none.
    """
    return offers(session, "rotate", "update_data", parameter="session", kind="a SignInSession")


def facts_of(session: SignInSession) -> SessionFacts | None:
    """The facts of a session that a sign-in of its owner has started; ``None`` for any other.

    Raises:
        ConfigurationError: this is no session.
    """
    # Without an owner the facts are left over from before a sign-out.
    owner = checked_session(session).user_id
    found: object = session.data.get(SIGN_IN_FACTS) if owner else None
    if not isinstance(found, dict):
        return None
    fields = cast("dict[str, object]", found)
    if fields.get("user_id") != owner:
        return None
    amr, auth_time, factor_time = (fields.get(name) for name in ("amr", "auth_time", "factor_time"))
    if not isinstance(amr, list) or not isinstance(auth_time, (int, float)):
        return None
    methods = tuple(str(method) for method in cast("list[object]", amr))
    return SessionFacts(methods, auth_time, factor_time if isinstance(factor_time, (int, float)) else None)


def is_recent(moment: float | None, *, now: float, longest: float) -> bool:
    """Whether it was so recently; a clock that steps back does not revive it."""
    return moment is not None and -_SKEW <= now - moment <= longest
