"""Authentication facts of a session: when and how its user signed in, for step-up per session and not per user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from mks_hardening._core.checks import offers
from mks_hardening._core.web.session_data import SIGN_IN_FACTS

if TYPE_CHECKING:
    from mks_hardening.protocols import SignInSession

__all__ = ["SessionFacts", "checked_session", "is_recent", "read_session_facts"]

_SKEW: Final = 60.0
"""Seconds by which the clocks of hosts may differ; a time further ahead was written by a wrong clock."""


class SessionFacts(NamedTuple):
    """How the user of a session was authenticated.

    Attributes:
        amr: methods (RFC 8176).
        auth_time: wall time of the password check, or of the factor used instead.
        factor_time: wall time of the last second factor in this session.
    """

    amr: tuple[str, ...]
    auth_time: float
    factor_time: float | None

    def as_data(self, user_id: str) -> dict[str, object]:
        """Return the facts as session data of this user."""
        facts = {"amr": list(self.amr), "auth_time": self.auth_time, "factor_time": self.factor_time}
        # Bound to the user, because data may be copied into the session of another user, for example when an
        # administrator impersonates somebody.
        return {SIGN_IN_FACTS: {"user_id": user_id, **facts}}


def checked_session(session: SignInSession) -> SignInSession:
    """Return the session of a request.

    Raises:
        ConfigurationError: it is not a session.
    """
    return offers(session, "rotate", "update_data", parameter="session", kind="a SignInSession")


def read_session_facts(session: SignInSession) -> SessionFacts | None:
    """Return the facts of a session that was started by a sign-in of its user; ``None`` for any other session.

    Raises:
        ConfigurationError: it is not a session.
    """
    # Without a user the facts are left over from before a sign-out.
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
    """Return whether the moment is within the last ``longest`` seconds; a moment in the future is not recent."""
    return moment is not None and -_SKEW <= now - moment <= longest
