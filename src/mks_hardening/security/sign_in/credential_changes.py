"""Changing a password or an address, and getting in again after forgetting one, for ``def`` and ``async def``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, number, offers
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import arun, run
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passwords.policy import PasswordPolicy
from mks_hardening.security.sign_in._context import asking
from mks_hardening.security.sign_in._credential_changes import CredentialChangeSteps
from mks_hardening.security.sign_in.sign_in import SignIn, kit_of

if TYPE_CHECKING:
    from mks_hardening.protocols import SignInSession
    from mks_hardening.security.sign_in.sign_in_results import ChangeResult, SignInClient

__all__ = ["CredentialChanges"]

# A day: the token opens the account for who reads the mailbox later (ASVS 5.0, 6.4.1 wants it short-lived).
_LONGEST_TOKEN_TTL: Final = 86400


class CredentialChanges:
    """What somebody does about the own password and address, over the parts of a ``SignIn``.

    Each change asks for a fresh proof (ASVS 5.0, 6.2.3 and 7.5.1) and is told to the owner (6.3.7); a new password
    ends other sessions (7.4.3). A reset does not sign in, so it does not pass a second factor (6.4.3). A mailed
    token ends with the password and the address it was issued under.

    A server that is away raises ``BackendUnavailableError``, and costs neither a try nor, before the password is
    stored, the token. Each method has a twin for asyncio whose name begins with ``a``.

    Args:
        sign_in: whose accounts, limits and notices are used; it must have ``end_sessions`` and ``on_notice``.
        policy: which new passwords are accepted.
        set_email: given user id and address, changes it; ``None`` where addresses do not change. An address that
            another account has by now is its own matter to refuse. May be ``async def`` like ``on_notice``.
        token_ttl: how long a mailed token works, 5 minutes to a day, in seconds (ASVS 5.0, 6.4.1).
        confirmed_within: how fresh the proof must be, in seconds; see ``SignIn.confirmed_within``.

    Raises:
        ConfigurationError: a value is out of its range, or the sign-in cannot end sessions or send notices.
    """

    __slots__ = ("_changes",)

    def __init__(
        self,
        sign_in: SignIn,
        *,
        policy: PasswordPolicy | None = None,
        set_email: Callable[[str, str], object] | None = None,
        token_ttl: float | timedelta = 1800,
        confirmed_within: float | timedelta = 300,
    ) -> None:
        kit = kit_of(sign_in)
        # Refused at construction: a reset that leaves a thief's session alive, or whose token reaches nobody, is
        # worse than none.
        if kit.end_sessions is None or kit.on_notice is None:
            raise ConfigurationError(
                "sign_in must have end_sessions, and on_notice to mail tokens", parameter="sign_in"
            )
        if policy is not None:
            offers(policy, "check", parameter="policy", kind="a PasswordPolicy or None")
        if set_email is not None:
            function(set_email, parameter="set_email")
        ttl = number(
            seconds(token_ttl, parameter="token_ttl"),
            parameter="token_ttl",
            minimum=300,
            maximum=_LONGEST_TOKEN_TTL,
        )
        self._changes = CredentialChangeSteps(
            kit=kit,
            policy=PasswordPolicy() if policy is None else policy,
            set_email=set_email,
            token_ttl=ttl,
            confirmed_within=seconds(confirmed_within, parameter="confirmed_within", allow_zero=False),
        )

    def change_password(
        self, session: SignInSession, current: str, new: str, *, client: SignInClient
    ) -> ChangeResult:
        """Replace the password of the session's owner; other sessions end.

        Args:
            session: of the request.
            current: the present password; wrong ones count for this session.
            new: the new one.
            client: who asks.
        """
        return run(self._changes.change_password(session, current, new, asking(client)))

    async def achange_password(
        self, session: SignInSession, current: str, new: str, *, client: SignInClient
    ) -> ChangeResult:
        """``change_password`` for asyncio."""
        return await arun(self._changes.change_password(session, current, new, asking(client)))

    def request_reset(self, name: str, *, client: SignInClient) -> ChangeResult:
        """Mail a token to the owner of an account; ``done`` is answered for a name that nobody has, too."""
        return run(self._changes.request_reset(name, asking(client)))

    async def arequest_reset(self, name: str, *, client: SignInClient) -> ChangeResult:
        """``request_reset`` for asyncio."""
        return await arun(self._changes.request_reset(name, asking(client)))

    def reset_password(self, token: str, new: str, *, client: SignInClient) -> ChangeResult:
        """Set a new password with a mailed token: all sessions end, and so does an account-wide lock."""
        return run(self._changes.reset_password(token, new, asking(client)))

    async def areset_password(self, token: str, new: str, *, client: SignInClient) -> ChangeResult:
        """``reset_password`` for asyncio."""
        return await arun(self._changes.reset_password(token, new, asking(client)))

    def request_email_change(
        self, session: SignInSession, email: str, *, client: SignInClient
    ) -> ChangeResult:
        """Mail a token to the address that the session's owner wants to have."""
        return run(self._changes.request_email_change(session, email, asking(client)))

    async def arequest_email_change(
        self, session: SignInSession, email: str, *, client: SignInClient
    ) -> ChangeResult:
        """``request_email_change`` for asyncio."""
        return await arun(self._changes.request_email_change(session, email, asking(client)))

    def confirm_email(self, token: str, *, client: SignInClient) -> ChangeResult:
        """Change the address to the one the token was mailed to; the former one is told."""
        return run(self._changes.confirm_email(token, asking(client)))

    async def aconfirm_email(self, token: str, *, client: SignInClient) -> ChangeResult:
        """``confirm_email`` for asyncio."""
        return await arun(self._changes.confirm_email(token, asking(client)))
