"""Changes of password and e-mail address, and password reset by mail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, number, offers
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import arun, run
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passwords.policy import PasswordPolicy
from mks_hardening.security.sign_in._context import checked_client
from mks_hardening.security.sign_in._credential_changes import CredentialChangeSteps
from mks_hardening.security.sign_in.sign_in import SignIn, context_of

if TYPE_CHECKING:
    from mks_hardening.protocols import SignInSession
    from mks_hardening.security.sign_in.sign_in_results import ChangeResult, SignInClient

__all__ = ["CredentialChanges"]

# One day: whoever reads the mailbox later can use the token (ASVS 5.0, 6.4.1 requires it to be short-lived).
_LONGEST_TOKEN_TTL: Final = 86400


class CredentialChanges:
    """Let users change or reset their password and change their address.

    Uses the accounts, limits and notices of a ``SignIn``. Each change requires recent authentication (ASVS 5.0,
    6.2.3 and 7.5.1) and sends a notice to the owner (6.3.7). A new password ends the other sessions (7.4.3). A
    reset does not sign the user in, so it does not bypass a second factor (6.4.3). A mailed token becomes
    invalid when the password or the address changes.

    During an outage ``BackendUnavailableError`` is raised; it is not counted as an attempt, and until the
    password is stored the token stays valid. Every method has an asyncio version with the prefix ``a``.

    Args:
        sign_in: provides accounts, limits and notices; it must have ``end_sessions`` and ``on_notice``.
        policy: which new passwords are accepted.
        set_email: called with user id and new address, changes the address; ``None`` if addresses cannot
            change. It must itself refuse an address that another account has taken. May be ``async def`` like
            ``on_notice``.
        token_ttl: lifetime of a mailed token, 5 minutes to a day, in seconds (ASVS 5.0, 6.4.1).
        confirmed_within: how recent the authentication must be, in seconds; see ``SignIn.confirmed_within``.

    Raises:
        ConfigurationError: a value is out of range, or the sign-in cannot end sessions or send notices.
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
        context = context_of(sign_in)
        # Required at construction: a reset that leaves a thief's session open, or whose token is not delivered,
        # is worse than none.
        if context.end_sessions is None or context.on_notice is None:
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
            context=context,
            policy=PasswordPolicy() if policy is None else policy,
            set_email=set_email,
            token_ttl=ttl,
            confirmed_within=seconds(confirmed_within, parameter="confirmed_within", allow_zero=False),
        )

    def change_password(
        self, session: SignInSession, current: str, new: str, *, client: SignInClient
    ) -> ChangeResult:
        """Replace the password of the session's user and end the user's other sessions.

        Args:
            session: the session of the request.
            current: the current password; wrong ones are counted for this session.
            new: the new password.
            client: the client that sends the request.
        """
        return run(self._changes.change_password(session, current, new, checked_client(client)))

    async def achange_password(
        self, session: SignInSession, current: str, new: str, *, client: SignInClient
    ) -> ChangeResult:
        """``change_password`` for asyncio."""
        return await arun(self._changes.change_password(session, current, new, checked_client(client)))

    def request_reset(self, name: str, *, client: SignInClient) -> ChangeResult:
        """Mail a reset token to the owner of an account; an unknown name gives ``done`` too."""
        return run(self._changes.request_reset(name, checked_client(client)))

    async def arequest_reset(self, name: str, *, client: SignInClient) -> ChangeResult:
        """``request_reset`` for asyncio."""
        return await arun(self._changes.request_reset(name, checked_client(client)))

    def reset_password(self, token: str, new: str, *, client: SignInClient) -> ChangeResult:
        """Set a new password with a mailed token, end all sessions, and lift an account-wide lock."""
        return run(self._changes.reset_password(token, new, checked_client(client)))

    async def areset_password(self, token: str, new: str, *, client: SignInClient) -> ChangeResult:
        """``reset_password`` for asyncio."""
        return await arun(self._changes.reset_password(token, new, checked_client(client)))

    def request_email_change(
        self, session: SignInSession, email: str, *, client: SignInClient
    ) -> ChangeResult:
        """Mail a token to the new address that the session's user wants."""
        return run(self._changes.request_email_change(session, email, checked_client(client)))

    async def arequest_email_change(
        self, session: SignInSession, email: str, *, client: SignInClient
    ) -> ChangeResult:
        """``request_email_change`` for asyncio."""
        return await arun(self._changes.request_email_change(session, email, checked_client(client)))

    def confirm_email(self, token: str, *, client: SignInClient) -> ChangeResult:
        """Change the address to the one the token was mailed to, and send a notice to the former address."""
        return run(self._changes.confirm_email(token, checked_client(client)))

    async def aconfirm_email(self, token: str, *, client: SignInClient) -> ChangeResult:
        """``confirm_email`` for asyncio."""
        return await arun(self._changes.confirm_email(token, checked_client(client)))
