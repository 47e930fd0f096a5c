"""Input and result values of a sign-in, whose ``repr`` hides secrets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening._core.checks import boolean, text_of
from mks_hardening.security.rate_limits.limit import DAY, DEFAULT_RATE_LIMITS, HOUR, MINUTE, Limit

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.passwords.password_policy import PasswordVerdict
    from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome

__all__ = [
    "SIGN_IN_LIMITS",
    "ChangeResult",
    "SignInAccount",
    "SignInClient",
    "SignInDevice",
    "SignInNotice",
    "SignInStep",
]

SignInState = Literal["done", "challenged", "refused", "limited", "expired"]
Notice = Literal[
    "locked",
    "unlocked",
    "factor_reset",
    "password_changed",
    "reset_requested",
    "email_change_requested",
    "email_changed",
    "new_device",
]

SIGN_IN_LIMITS: Final[dict[str, tuple[Limit, ...]]] = {
    # One client and one name: lower than the account-wide limit, so that one client alone cannot lock an account.
    "auth_login": (Limit("minute", 5, MINUTE), Limit("hour", 20, HOUR), Limit("day", 50, DAY)),
    # Codes of one client for one account.
    "auth_2fa_verify": DEFAULT_RATE_LIMITS["auth_2fa_verify"],
    # One account from all clients (NIST SP 800-63B: at most 100): the account-wide lock.
    "auth_login_account": (Limit("hour", 50, HOUR), Limit("day", 100, DAY)),
    # One client and many names: enough for an office behind one router, too little for trying a list of names.
    "auth_login_address": (Limit("minute", 60, MINUTE), Limit("hour", 600, HOUR)),
    "auth_login_network": (Limit("minute", 300, MINUTE), Limit("hour", 3000, HOUR)),
    # A remembered device or an open session: a separate limit, which strangers cannot use up.
    "auth_login_device": (Limit("hour", 10, HOUR), Limit("day", 30, DAY)),
    "auth_password_reset": DEFAULT_RATE_LIMITS["auth_password_reset"],
    "auth_password_reset_address": (Limit("hour", 30, HOUR),),
}
"""Groups of limits that ``SignIn`` and ``CredentialChanges`` use; pass them to the limiter together with your own.

All groups except those of password resets count failures only. An address is a single IPv4 address or an IPv6
/64, a network is an IPv4 /24 or an IPv6 /48 (ASVS 5.0, 6.1.1 and 6.3.1).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAccount:
    """An account as the application loads it.

    Attributes:
        user_id: permanent id; sessions, factors and locks refer to it.
        password_hash: the stored hash, or ``None`` for an account without a password.
        disabled: whether sign-in is blocked; only events distinguish this from a wrong password.
        name: as shown by authenticator apps and in mails.
        email: where notices are sent.
        stamp: changes with the password; by default a digest of the stored hash. Challenges, tokens and
            remembered devices that were issued under another stamp are void. If you keep the stamp in a column
            of its own, a rehash of the same password does not void them.

    Raises:
        ConfigurationError: a value has the wrong type, for example a number as ``user_id``.
    """

    user_id: str
    password_hash: str | None = field(repr=False)
    disabled: bool = False
    name: str = field(default="", repr=False)
    email: str = field(default="", repr=False)
    stamp: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        text_of(self.user_id, parameter="user_id", empty=False)
        if self.password_hash is not None:
            text_of(self.password_hash, parameter="password_hash")
        boolean(self.disabled, parameter="disabled")
        for name in ("name", "email", "stamp"):
            text_of(getattr(self, name), parameter=name)
        # A digest of the hash changes with every new password, which voids tokens and devices. It is a digest
        # because tokens must not contain the hash itself.
        if not self.stamp:
            digest = hashlib.sha256((self.password_hash or "").encode("utf-8", "surrogatepass"))
            object.__setattr__(self, "stamp", digest.hexdigest()[:32])


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInClient:
    """The client that sends a request.

    Attributes:
        address: the trusted address of the client, as in ``RequestOrigin.client_ip``; empty if there is none.
        device: the token of a remembered device, if the browser sent one.

    Raises:
        ConfigurationError: the address is not a string.
    """

    address: str
    device: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        text_of(self.address, parameter="address")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInStep:
    """State of a sign-in after one step; true only if the sign-in is complete.

    A refusal does not reveal its reason: for an unknown name, a wrong password, a locked and a disabled
    account, send the same text with the same status (ASVS 5.0, 6.3.8). Events contain the reason.

    Attributes:
        state: ``done``; ``challenged``: the password was correct and a second factor is required; ``refused``;
            ``limited``: this client has to wait; ``expired``: the challenge, token or session of this step is
            no longer valid, so start again.
        user_id: the user who signed in; only if ``done``.
        challenge: send it back with the second factor, preferably in a cookie (``Secure``, ``HttpOnly``,
            ``SameSite=Lax``, ``__Host-``); only if ``challenged``.
        retry_after: seconds until the client may try again; ``None`` without a limit. ``None`` with state
            ``limited`` means that waiting does not help: a recovery code is required.
        amr: how the user was authenticated (RFC 8176): ``pwd``, ``otp``, ``swk``, ``mfa``.
        auth_time: wall time of the authentication, in seconds.
        risks: reasons for a closer look: ``new_device``, ``recent_failures``, ``account_locked`` (bypassed with
            a recovery code), ``recovery_code``, ``no_second_factor``.
        device: token that identifies this device from now on, if it was to be remembered; store it in a cookie
            like the challenge, for ``device_ttl``.
        factor: result of the second-factor verifier, if it was called.
        decision: decision of the limit of the client's address or network, if that limit refused this step;
            ``None`` for every other limit, because strangers must not see the state of an account.
            ``sign_in_headers`` converts it to header fields.
    """

    state: SignInState
    user_id: str | None = None
    challenge: str | None = field(default=None, repr=False)
    retry_after: float | None = None
    amr: tuple[str, ...] = ()
    auth_time: float | None = None
    risks: tuple[str, ...] = ()
    device: str | None = field(default=None, repr=False)
    factor: FactorOutcome | None = None
    decision: LimitDecision | None = None

    def __bool__(self) -> bool:
        return self.state == "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInNotice:
    """A message to the owner of an account, to be sent by mail.

    Attributes:
        kind: ``locked`` (once for each account-wide lock), ``unlocked``, ``factor_reset``,
            ``password_changed``, ``reset_requested`` and ``email_change_requested`` (with the token to be
            mailed), ``email_changed``, ``new_device`` (a sign-in without a remembered device, from a network
            that the account has not been used from for as long as a device is remembered; ASVS 5.0, 6.3.5. The
            first sign-in of an account sends no notice).
        account: the account it concerns.
        to: the recipient: the address of the account, or the new address that has to be confirmed.
        token: part of the link to be mailed; never log it.
        actor: the administrator, if one made the change.
        reason: the administrator's reason.
        client: the address that a new device signed in from.
    """

    kind: Notice
    account: SignInAccount
    to: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    actor: str = ""
    reason: str = ""
    client: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInDevice:
    """A remembered device, for the list shown to its owner.

    Attributes:
        id: for ``SignIn.revoke_device``; useless as a token.
        remembered_at: wall time of the sign-in that remembered it.
        expires_at: wall time until which it is remembered.
        current: whether it is the device whose token was given.
    """

    id: str
    remembered_at: float
    expires_at: float
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeResult:
    """Result of a change of credentials; true if the change is complete.

    Attributes:
        state: ``done``; ``refused``: the current password was wrong; ``limited``: wait; ``expired``: the token
            or the session is no longer valid; ``step_up``: reauthentication is required first
            (``SignIn.confirm_factor``, or ``confirm_password`` if the account has no factor); ``weak``: the
            policy refuses the new password, and a token stays valid; ``unusable``: not a mail address.
        retry_after: seconds to wait.
        verdict: the result of the password policy.
        decision: decision of the limit of the client's address, if that limit refused; see ``SignInStep.decision``.
    """

    state: Literal["done", "refused", "limited", "expired", "step_up", "weak", "unusable"]
    retry_after: float | None = None
    verdict: PasswordVerdict | None = None
    decision: LimitDecision | None = None

    def __bool__(self) -> bool:
        return self.state == "done"
