"""State machine of a sign-in: states, events and transitions, as one table over plain values.

A sign-in starts as ``begun``. A correct password makes it ``challenged``, or ``done`` if the account has no
second factor. A correct second factor makes it ``done``. Only ``done`` starts a session. ``open`` is an
existing session whose user reauthenticates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome
    from mks_hardening.security.sign_in.sign_in_results import SignInState

__all__ = [
    "AMR",
    "AMR_PASSKEY_ONLY",
    "TRANSITIONS",
    "Event",
    "FlowState",
    "PasswordFacts",
    "Transition",
    "amr_of",
    "amr_with_password",
    "factor_event",
    "password_event",
    "risks_of",
]

FlowState: TypeAlias = Literal["begun", "challenged", "open"]
Event: TypeAlias = Literal[
    "throttled",
    "wrong",
    "factor_required",
    "complete",
    "malformed",
    "locked_now",
    "locked",
    "expired",
    "busy",
]


class Transition(NamedTuple):
    """Result of an event.

    Attributes:
        state: the state of the ``SignInStep`` returned.
        counted: whether the hits that were reserved remain counted.
        change: the name of the audit event.
    """

    state: SignInState
    counted: bool
    change: str


TRANSITIONS: Final[Mapping[tuple[FlowState, Event], Transition]] = {
    ("begun", "throttled"): Transition("limited", False, "limited"),
    ("begun", "wrong"): Transition("refused", True, "refused"),
    ("begun", "factor_required"): Transition("challenged", False, "challenged"),
    ("begun", "complete"): Transition("done", False, "signed_in"),
    ("challenged", "throttled"): Transition("limited", False, "limited"),
    ("challenged", "expired"): Transition("expired", False, "challenge_refused"),
    # Another code for the same challenge is being checked: this one is neither checked nor consumed.
    ("challenged", "busy"): Transition("limited", False, "challenge_refused"),
    ("challenged", "wrong"): Transition("refused", True, "factor_refused"),
    ("challenged", "malformed"): Transition("refused", False, "factor_refused"),
    # The guess that triggers a lock is counted; later ones are refused without a check and are not counted.
    ("challenged", "locked_now"): Transition("limited", True, "factor_refused"),
    ("challenged", "locked"): Transition("limited", False, "factor_refused"),
    ("challenged", "complete"): Transition("done", False, "signed_in"),
    ("open", "throttled"): Transition("limited", False, "limited"),
    ("open", "expired"): Transition("expired", False, "confirmation_refused"),
    ("open", "wrong"): Transition("refused", True, "confirmation_refused"),
    ("open", "malformed"): Transition("refused", False, "confirmation_refused"),
    ("open", "locked_now"): Transition("limited", True, "confirmation_refused"),
    ("open", "locked"): Transition("limited", False, "confirmation_refused"),
    ("open", "complete"): Transition("done", False, "confirmed"),
}


class PasswordFacts(NamedTuple):
    """Facts known after the password check.

    Attributes:
        known: the account exists.
        enabled: it may sign in.
        right: the password is correct.
        locked: too many failures from all clients, and nothing bypasses the lock.
        factor: a second factor is required.
    """

    known: bool
    enabled: bool
    right: bool
    locked: bool
    factor: bool

    @property
    def reason(self) -> str:
        """The reason of the refusal, only for the audit event."""
        if not self.known:
            return "unknown"
        if not self.right:
            return "wrong"
        if not self.enabled:
            return "disabled"
        return "locked" if self.locked else ""


def password_event(facts: PasswordFacts) -> Event:
    """Return the event of a password check.

    Unknown, wrong, disabled and locked give the same event, so that later code cannot tell them apart.
    """
    if facts.reason:
        return "wrong"
    return "factor_required" if facts.factor else "complete"


_ENDS: Final[Mapping[str, Event]] = {"not_enrolled": "expired", "locked": "locked"}


def factor_event(outcome: FactorOutcome | None) -> Event:
    """Return the event of a verifier's result; without a result the verifier was not called.

    Only a wrong guess is counted. If the factor was removed, the sign-in ends and does not continue without one.
    """
    if outcome is None:
        return "malformed"
    if outcome.ok:
        return "complete"
    if outcome.reason == "wrong":
        return "locked_now" if outcome.locked else "wrong"
    # An unknown reason of another library's verifier is not counted as a guess, and admits nobody.
    return _ENDS.get(outcome.reason, "malformed")


AMR: Final[Mapping[str, str]] = {"totp": "otp", "recovery": "otp", "passkey": "swk", "webauthn": "swk"}
"""Values of RFC 8176, section 2. A passkey may be synchronised, so it only counts as a software-secured key."""


AMR_PASSKEY_ONLY: Final = ("swk", "user", "mfa")
"""For a passkey that has verified its user itself."""


def amr_of(method: str | None, before: tuple[str, ...] = ("pwd",)) -> tuple[str, ...]:
    """Append the second factor of this kind to the authentication methods."""
    if method is None:
        return before
    known = AMR.get(method)
    added = (known, "mfa") if known else ("mfa",)
    return (*(name for name in before if name not in added), *added)


def amr_with_password(before: tuple[str, ...]) -> tuple[str, ...]:
    """Add the password to the methods of a session."""
    return before if "pwd" in before else ("pwd", *before)


def risks_of(
    *, trusted: bool, failures: bool, passed_lock: bool, method: str | None, factor: bool
) -> tuple[str, ...]:
    """Return the risks in a fixed order."""
    notes = {
        "new_device": not trusted,
        "recent_failures": failures,
        "account_locked": passed_lock,
        "recovery_code": method == "recovery",
        "no_second_factor": not factor,
    }
    return tuple(name for name, holds in notes.items() if holds)
