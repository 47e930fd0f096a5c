"""The machine itself: states, events and what follows, as one table over plain values.

A sign-in has begun; a right password makes it challenged, or done where no second factor is on; a right factor
makes it done. While it is under way it has no session: nothing but ``done`` starts one. ``open`` is a session whose
owner proves again who it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome
    from mks_hardening.security.sign_in.sign_in_results import SignInState

__all__ = [
    "AMR",
    "AMR_ALONE",
    "TABLE",
    "Event",
    "PasswordFacts",
    "Place",
    "Transition",
    "amr_of",
    "amr_with_password",
    "factor_event",
    "password_event",
    "risks_of",
]

Place: TypeAlias = Literal["begun", "challenged", "open"]
Event: TypeAlias = Literal[
    "throttled", "wrong", "half", "whole", "unusable", "shut", "locked", "dead", "busy"
]


class Transition(NamedTuple):
    """What follows from an event.

    Attributes:
        state: what is answered.
        counted: whether the hits that were taken before stay taken.
        change: the name of the audit event.
    """

    state: SignInState
    counted: bool
    change: str


TABLE: Final[Mapping[tuple[Place, Event], Transition]] = {
    ("begun", "throttled"): Transition("limited", False, "limited"),
    ("begun", "wrong"): Transition("refused", True, "refused"),
    ("begun", "half"): Transition("challenged", False, "challenged"),
    ("begun", "whole"): Transition("done", False, "signed_in"),
    ("challenged", "throttled"): Transition("limited", False, "limited"),
    ("challenged", "dead"): Transition("expired", False, "challenge_refused"),
    # Another code of the same challenge is being checked: this one is not looked at, and not used up.
    ("challenged", "busy"): Transition("limited", False, "challenge_refused"),
    ("challenged", "wrong"): Transition("refused", True, "factor_refused"),
    ("challenged", "unusable"): Transition("refused", False, "factor_refused"),
    # The guess that brings a lock is still a guess; those that meet the lock are not looked at and not counted.
    ("challenged", "shut"): Transition("limited", True, "factor_refused"),
    ("challenged", "locked"): Transition("limited", False, "factor_refused"),
    ("challenged", "whole"): Transition("done", False, "signed_in"),
    ("open", "throttled"): Transition("limited", False, "limited"),
    ("open", "dead"): Transition("expired", False, "confirmation_refused"),
    ("open", "wrong"): Transition("refused", True, "confirmation_refused"),
    ("open", "unusable"): Transition("refused", False, "confirmation_refused"),
    ("open", "shut"): Transition("limited", True, "confirmation_refused"),
    ("open", "locked"): Transition("limited", False, "confirmation_refused"),
    ("open", "whole"): Transition("done", False, "confirmed"),
}


class PasswordFacts(NamedTuple):
    """What is known once the password was checked.

    Attributes:
        known: there is such an account.
        enabled: it may sign in.
        right: the password is its own.
        locked: too many failures from everywhere, and nothing passes the lock.
        factor: a second factor has to follow.
    """

    known: bool
    enabled: bool
    right: bool
    locked: bool
    factor: bool

    @property
    def reason(self) -> str:
        """Why it is refused, for the audit event alone."""
        if not self.known:
            return "unknown"
        if not self.right:
            return "wrong"
        if not self.enabled:
            return "disabled"
        return "locked" if self.locked else ""


def password_event(facts: PasswordFacts) -> Event:
    """Unknown, wrong, disabled and locked are one event, so that nothing after it can tell them apart."""
    if facts.reason:
        return "wrong"
    return "half" if facts.factor else "whole"


_ENDS: Final[Mapping[str, Event]] = {"not_enrolled": "dead", "locked": "locked"}


def factor_event(outcome: FactorOutcome) -> Event:
    """Only a guess counts; a factor that is gone ends the sign-in, which must not go on without."""
    if outcome.ok:
        return "whole"
    if outcome.reason == "wrong":
        return "shut" if outcome.locked else "wrong"
    # What a verifier of another library says in words of its own is no guess, and opens nothing.
    return _ENDS.get(outcome.reason, "unusable")


AMR: Final[Mapping[str, str]] = {"totp": "otp", "recovery": "otp", "passkey": "swk", "webauthn": "swk"}
"""RFC 8176, section 2. A passkey may be synchronised, so no more than a software-secured key is claimed."""


AMR_ALONE: Final = ("swk", "user", "mfa")
"""Of a passkey that has verified its user itself."""


def amr_of(method: str | None, before: tuple[str, ...] = ("pwd",)) -> tuple[str, ...]:
    """Authentication methods after those before, and a second factor of this kind."""
    if method is None:
        return before
    known = AMR.get(method)
    added = (known, "mfa") if known else ("mfa",)
    return (*(name for name in before if name not in added), *added)


def amr_with_password(before: tuple[str, ...]) -> tuple[str, ...]:
    """The methods of a session whose owner has also given the password."""
    return before if "pwd" in before else ("pwd", *before)


def risks_of(
    *, trusted: bool, failures: bool, passed_lock: bool, method: str | None, factor: bool
) -> tuple[str, ...]:
    """What is worth a second look, in a fixed order."""
    notes = {
        "new_device": not trusted,
        "recent_failures": failures,
        "account_locked": passed_lock,
        "recovery_code": method == "recovery",
        "no_second_factor": not factor,
    }
    return tuple(name for name, holds in notes.items() if holds)
