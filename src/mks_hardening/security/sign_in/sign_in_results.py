"""What the sign-in takes and what it answers, as plain values that do not print secrets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening._core.checks import flag, text_of
from mks_hardening.security.rate_limits.limit import DAY, DEFAULT_RATE_LIMITS, HOUR, MINUTE, Limit

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.passwords.policy import PasswordVerdict
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
    # One client at one name: less than locks the account, so that it takes more than one client to do that.
    "auth_login": (Limit("minute", 5, MINUTE), Limit("hour", 20, HOUR), Limit("day", 50, DAY)),
    # The codes of one client for one account.
    "auth_2fa_verify": DEFAULT_RATE_LIMITS["auth_2fa_verify"],
    # One account from everywhere (NIST SP 800-63B: at most 100): the account-wide lock.
    "auth_login_account": (Limit("hour", 50, HOUR), Limit("day", 100, DAY)),
    # One client at many names: an office behind one router may, a list of names may not.
    "auth_login_address": (Limit("minute", 60, MINUTE), Limit("hour", 600, HOUR)),
    "auth_login_network": (Limit("minute", 300, MINUTE), Limit("hour", 3000, HOUR)),
    # A remembered device or a session that is open: its own budget, which strangers cannot use up.
    "auth_login_device": (Limit("hour", 10, HOUR), Limit("day", 30, DAY)),
    "auth_password_reset": DEFAULT_RATE_LIMITS["auth_password_reset"],
    "auth_password_reset_address": (Limit("hour", 30, HOUR),),
}
"""Groups of limits that ``SignIn`` and ``CredentialChanges`` use; give them to the limiter beside your own.

All but those of password resets count failures alone. Addresses are single ones of IPv4 and a /64 of IPv6,
networks a /24 and a /48 (ASVS 5.0, 6.1.1 and 6.3.1).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAccount:
    """One account, as the application finds it.

    Attributes:
        user_id: the name that never changes; sessions, factors and locks belong to it.
        password_hash: the stored form, or ``None`` for an account without a password.
        disabled: no sign-in is possible; told apart from a wrong password only in events.
        name: as shown by authenticator apps and in mails.
        email: where notices go.
        stamp: changes with the password; by default a digest of the stored form. What was issued under another
            stamp (challenges, tokens, remembered devices) is void. With a column of its own for it, a stored form
            that is only renewed leaves them alone.

    Raises:
        ConfigurationError: a value of another kind; a number as ``user_id``, say.
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
        flag(self.disabled, parameter="disabled")
        for name in ("name", "email", "stamp"):
            text_of(getattr(self, name), parameter=name)
        # A digest of the stored form changes with every new password, which is what ends tokens and devices;
        # hashed, because the stored form must not travel in them.
        if not self.stamp:
            digest = hashlib.sha256((self.password_hash or "").encode("utf-8", "surrogatepass"))
            object.__setattr__(self, "stamp", digest.hexdigest()[:32])


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInClient:
    """Who asks.

    Attributes:
        address: the address of the client as far as it is trusted, as in ``RequestOrigin.client_ip``; empty where
            there is none.
        device: the token of a remembered device, if the browser sent one.

    Raises:
        ConfigurationError: the address is no text.
    """

    address: str
    device: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        text_of(self.address, parameter="address")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInStep:
    """Where a sign-in stands after one step; true only when it is done.

    A refusal does not say why: an unknown name, a wrong password, a locked and a disabled account are one answer,
    to be given in one text with one status (ASVS 5.0, 6.3.8). Events tell the reason.

    Attributes:
        state: ``done``; ``challenged``: the password was right and a second factor has to follow; ``refused``;
            ``limited``: this client has to wait; ``expired``: the challenge, token or session this step belongs to
            is not good any more, so begin again.
        user_id: who signed in; only when ``done``.
        challenge: goes back with the second factor, best in a cookie (``Secure``, ``HttpOnly``, ``SameSite=Lax``,
            ``__Host-``); only when ``challenged``.
        retry_after: seconds until the client may try again; ``None`` without a limit, and with state ``limited``
            where waiting does not help: then a recovery code does.
        amr: how the person was authenticated (RFC 8176): ``pwd``, ``otp``, ``swk``, ``mfa``.
        auth_time: wall time of the authentication, in seconds.
        risks: what is worth a second look: ``new_device``, ``recent_failures``, ``account_locked`` (passed by a
            device or a recovery code), ``recovery_code``, ``no_second_factor``.
        device: the token by which this device is known from now on, if it was to be remembered; keep it in a
            cookie like the challenge, for as long as ``device_ttl``.
        factor: what the verifier of the second factor answered, if it was asked.
        decision: of the limit of the client's address or network, if it refused this step; ``None`` for every other
            limit, as strangers must not see where an account stands. ``sign_in_headers`` makes header fields of it.
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
    """What the owner of an account is to be told, by mail.

    Attributes:
        kind: ``locked`` (once for each account-wide lock), ``unlocked``, ``factor_reset``, ``password_changed``,
            ``reset_requested`` and ``email_change_requested`` (with the token to be mailed), ``email_changed``,
            ``new_device`` (a sign-in without a remembered device, from a network that the account was not used in
            for as long as a device is remembered; ASVS 5.0, 6.3.5. The first sign-in of an account is not told).
        account: whose.
        to: the address it goes to: of the account, or the new one that has to be confirmed.
        token: part of the link to be mailed; never to be logged.
        actor: who did it, for what an administrator did.
        reason: why, likewise.
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
    """A device that is remembered, for the list that its owner sees.

    Attributes:
        id: for ``SignIn.revoke_device``; useless as a token.
        remembered_at: wall time of the sign-in that it was remembered at.
        expires_at: wall time until which it is remembered.
        current: whether it is the device whose token was given.
    """

    id: str
    remembered_at: float
    expires_at: float
    current: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeResult:
    """What became of a change; true when it is done.

    Attributes:
        state: ``done``; ``refused``: the present password was wrong; ``limited``: wait; ``expired``: the token or
            the session is not good any more; ``step_up``: prove first who you are (``SignIn.confirm_factor``, or
            ``confirm_password`` where no factor is on); ``weak``: the policy refuses the new password, and a token
            still works; ``unusable``: this is no mail address.
        retry_after: seconds to wait.
        verdict: what the policy said.
        decision: of the limit of the client's address, if it refused; see ``SignInStep.decision``.
    """

    state: Literal["done", "refused", "limited", "expired", "step_up", "weak", "unusable"]
    retry_after: float | None = None
    verdict: PasswordVerdict | None = None
    decision: LimitDecision | None = None

    def __bool__(self) -> bool:
        return self.state == "done"
