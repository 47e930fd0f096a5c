"""Changes of password and e-mail address, and password reset by a mailed token.

A token is random, stored as a digest, short-lived and valid once, and becomes invalid when the password or the
address changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, number, offers
from mks_hardening._core.durations import seconds
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Call, Op
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.store_calls import call_store
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security.passwords.password_policy import PasswordPolicy, PasswordVerdict
from mks_hardening.security.sign_in import _reauthentication
from mks_hardening.security.sign_in._attempt_hits import AttemptHits, account_limit_key
from mks_hardening.security.sign_in._context import (
    SignInTrace,
    authenticated_hashing_client,
    checked_client,
    emit_event,
    hashing_for,
    normalize_name,
    notify_owner,
)
from mks_hardening.security.sign_in._one_time_tokens import digest_of
from mks_hardening.security.sign_in._password_step import lift_lock
from mks_hardening.security.sign_in.sign_in import SignIn, context_of
from mks_hardening.security.sign_in.sign_in_results import ChangeResult, SignInNotice

if TYPE_CHECKING:
    from mks_hardening.protocols import SignInSession
    from mks_hardening.security.sign_in._one_time_tokens import TokenEntry
    from mks_hardening.security.sign_in.sign_in_results import Notice, SignInAccount, SignInClient

__all__ = ["CredentialChanges"]

_NOT_IN_ADDRESSES: Final = frozenset(',;:<>()[]"\\')  # the specials of RFC 5322, 3.2.3, except dot and @
_LONGEST_ADDRESS: Final = 254  # RFC 5321, 4.5.3.1.3
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

    __slots__ = ("_confirmed_within", "_context", "_policy", "_set_email", "_token_ttl")

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
            function(set_email, parameter="set_email", may_be_async=True)
        self._context = context
        self._policy = PasswordPolicy() if policy is None else policy
        self._set_email = set_email
        self._token_ttl = number(
            seconds(token_ttl, parameter="token_ttl"),
            parameter="token_ttl",
            minimum=300,
            maximum=_LONGEST_TOKEN_TTL,
        )
        self._confirmed_within = seconds(confirmed_within, parameter="confirmed_within", allow_zero=False)

    @sync_method
    def change_password(
        self, session: SignInSession, current: str, new: str, *, client: SignInClient
    ) -> Op[ChangeResult]:
        """Replace the password of the session's user and end the user's other sessions.

        Args:
            session: the session of the request.
            current: the current password; wrong ones are counted for this session.
            new: the new password.
            client: the client that sends the request.
        """
        checked_client(client)
        context = self._context
        # Checked here, before the password is stored.
        offers(session, "end_others", parameter="session", kind="a SignInSession")
        account = yield from _reauthentication.owner_of(context, session)
        if account is None:
            return ChangeResult(state="expired")
        # Before the password check: a thief of the session learns nothing about the password without the factor.
        if (yield from context.has_factor(account.user_id)) and not (
            yield from _reauthentication.confirmed_within(context, session, self._confirmed_within)
        ):
            return ChangeResult(state="step_up")
        # Before the check of the current password, so that a weak new one costs neither a hit nor a second of
        # hashing.
        verdict = self._verdict(account, new)
        if not isinstance(new, str) or not verdict:
            return ChangeResult(state="weak", verdict=verdict)
        step = yield from _reauthentication.confirm_password(context, session, current, client)
        if step.state in ("refused", "limited", "expired"):
            return ChangeResult(state=step.state, retry_after=step.retry_after)
        stored = yield from self._hashed(account, f"session {session.reference}", new)
        # Rotation fails if the session ended during the hashing, for example because its user found a thief in
        # it.
        if not (yield from call_store(session.rotate)):
            return ChangeResult(state="expired")
        # Before the password is stored: an interruption must not leave a thief's session open after a new password.
        yield from call_store(session.end_others)
        replaced = yield from self._replace(account, stored, client, call_store(session.end_others))
        return ChangeResult(state="done" if replaced else "expired")

    @async_method(change_password)
    def achange_password(self) -> None:
        """``change_password`` for asyncio."""

    @sync_method
    def request_reset(self, name: str, *, client: SignInClient) -> Op[ChangeResult]:
        """Mail a reset token to the owner of an account; an unknown name gives ``done`` too."""
        checked_client(client)
        context = self._context
        typed, counted_as = normalize_name(name)
        key = client_key(client.address)
        hits = AttemptHits(context.limiter)
        # By address and by name: one mailbox must not be flooded, and one client must not try a list of names.
        if not (
            yield from hits.reserve(
                ("auth_password_reset_address", key), ("auth_password_reset", f"name {counted_as}")
            )
        ):
            emit_event("limited", SignInTrace(client=key, method="reset"))
            return ChangeResult(state="limited", retry_after=hits.retry_after, decision=hits.disclosed)
        try:
            return (yield from self._requested(typed, key))
        except BaseException:  # nothing was mailed during an outage, so nothing is counted
            yield from hits.give_back()
            raise

    @async_method(request_reset)
    def arequest_reset(self) -> None:
        """``request_reset`` for asyncio."""

    @sync_method
    def reset_password(self, token: str, new: str, *, client: SignInClient) -> Op[ChangeResult]:
        """Set a new password with a mailed token, end all sessions, and lift an account-wide lock."""
        checked_client(client)
        context = self._context
        found = yield from context.entries.find("reset", token)
        account = None if found is None else (yield from self._owner(found))
        if found is None or account is None:
            emit_event("reset_refused", SignInTrace(client=client_key(client.address)))
            return ChangeResult(state="expired")
        verdict = self._verdict(account, new)
        if not isinstance(new, str) or not verdict:
            return ChangeResult(state="weak", verdict=verdict)
        # Steps that can fail without a change come first: a busy hasher or an unavailable session store must
        # neither consume the token nor leave a thief's session open after a new password.
        stored = yield from self._hashed(account, "reset", new)
        account = yield from self._owner(found)  # again, because hashing is slow
        if account is None:
            return ChangeResult(state="expired")
        yield from context.end_all_sessions(account.user_id)
        # Consumed before the password is stored: of two requests with one token, one sets a password.
        if not (yield from context.entries.use(found)):
            return ChangeResult(state="expired")
        end = context.end_all_sessions(account.user_id)
        if not (yield from self._replace(account, stored, client, end, method="reset")):
            return ChangeResult(state="expired")
        # Otherwise a stranger who locked the account would keep the owner out even after a reset. Lifting the
        # lock is safe, because a reset requires the mailbox.
        yield from lift_lock(context, account_limit_key(account.user_id, ""))
        return ChangeResult(state="done")

    @async_method(reset_password)
    def areset_password(self) -> None:
        """``reset_password`` for asyncio."""

    @sync_method
    def request_email_change(
        self, session: SignInSession, email: str, *, client: SignInClient
    ) -> Op[ChangeResult]:
        """Mail a token to the new address that the session's user wants."""
        checked_client(client)
        context = self._context
        account = yield from _reauthentication.owner_of(context, session)
        if account is None:
            return ChangeResult(state="expired")
        if not (yield from _reauthentication.confirmed_within(context, session, self._confirmed_within)):
            return ChangeResult(state="step_up")
        if not isinstance(email, str) or not _is_address(email):
            return ChangeResult(state="unusable")
        key = client_key(client.address)
        hits = AttemptHits(context.limiter)
        if not (yield from hits.reserve(("auth_password_reset", f"user {account.user_id}"))):
            emit_event("limited", SignInTrace(client=key, user_id=account.user_id, method="email"))
            return ChangeResult(state="limited", retry_after=hits.retry_after)
        facts = {**self._facts(account), "email": email}
        try:
            token = yield from context.entries.issue("email", facts, ttl=self._token_ttl)
        except BaseException:  # as in request_reset
            yield from hits.give_back()
            raise
        emit_event("email_change_requested", SignInTrace(client=key, user_id=account.user_id))
        notice = SignInNotice(kind="email_change_requested", account=account, to=email, token=token)
        yield from notify_owner(context, notice)
        return ChangeResult(state="done")

    @async_method(request_email_change)
    def arequest_email_change(self) -> None:
        """``request_email_change`` for asyncio."""

    @sync_method
    def confirm_email(self, token: str, *, client: SignInClient) -> Op[ChangeResult]:
        """Change the address to the one the token was mailed to, and send a notice to the former address."""
        checked_client(client)
        context, set_email = self._context, self._set_email
        found = yield from context.entries.find("email", token)
        account = None if found is None else (yield from self._owner(found))
        # The token comes last in the condition: it is consumed only if the change follows.
        if (
            found is None
            or account is None
            or set_email is None
            or not (yield from context.entries.use(found))
        ):
            emit_event("email_change_refused", SignInTrace(client=client_key(client.address)))
            return ChangeResult(state="expired")
        email = found.text("email")
        yield Call(lambda: set_email(account.user_id, email))
        yield from self._changed("email_changed", account, client)
        return ChangeResult(state="done")

    @async_method(confirm_email)
    def aconfirm_email(self) -> None:
        """``confirm_email`` for asyncio."""

    def _requested(self, typed: str | None, key: str) -> Op[ChangeResult]:
        context = self._context
        account = None if typed is None else (yield from call_store(context.accounts.find, typed))
        alive = account is not None and not account.disabled and bool(account.email)
        facts = self._facts(account if alive else None)
        # Issued for unknown names too: the write takes time, and its absence would reveal who has an account.
        token = yield from context.entries.issue("reset", facts, ttl=self._token_ttl)
        user_id = "" if account is None else account.user_id
        emit_event(
            "reset_requested", SignInTrace(client=key, user_id=user_id, reason="" if alive else "unknown")
        )
        if account is not None and alive:
            notice = SignInNotice(kind="reset_requested", account=account, to=account.email, token=token)
            yield from notify_owner(context, notice)
        return ChangeResult(state="done")

    def _verdict(self, account: SignInAccount, new: object) -> PasswordVerdict:
        if not isinstance(new, str):
            return PasswordVerdict(errors=("not_text",))
        # The address and its local part, because an attacker tries both first (NIST SP 800-63B, 3.1.1.2).
        local = account.email.partition("@")[0]
        words = [word for word in (account.email, local) if word]
        return self._policy.check(new, username=account.name, context=words)

    def _hashed(self, account: SignInAccount, by: str, password: str) -> Op[str]:
        return hashing_for(
            authenticated_hashing_client(account.user_id, by),
            call_store(self._context.passwords.hash, password),
        )

    def _facts(self, account: SignInAccount | None) -> dict[str, object]:
        """Return what a token is bound to; a token issued for an unknown name matches no account."""
        if account is None:
            return {"user": "", "stamp": "", "address": ""}
        # The address too: after it changes, no token issued before may work, neither in the former mailbox nor in
        # that of a stranger whose address was typed by mistake.
        return {"user": account.user_id, "stamp": account.stamp, "address": digest_of(account.email)}

    def _owner(self, found: TokenEntry) -> Op[SignInAccount | None]:
        """Return the account of a token, if nothing has changed since it was issued."""
        user_id = found.text("user")
        account = (yield from call_store(self._context.accounts.get, user_id)) if user_id else None
        if account is None or account.disabled:
            return None
        now = (account.stamp, digest_of(account.email))
        return account if now == (found.text("stamp"), found.text("address")) else None

    def _replace(
        self, account: SignInAccount, stored: str, client: SignInClient, end: Op[object], *, method: str = ""
    ) -> Op[bool]:
        """Store a password hash, end sessions that began with the old one, and notify the owner.

        An error or a cancellation does not tell whether the hash is stored, and must spare neither a session that
        began since the sessions were ended, nor the notice.
        """
        replaced = False
        try:
            try:
                replaced = yield from self._context.set_password(account, stored)
            finally:
                yield from end
        finally:
            if replaced:
                yield from self._changed("password_changed", account, client, method=method)
        return replaced

    def _changed(
        self, kind: Notice, account: SignInAccount, client: SignInClient, *, method: str = ""
    ) -> Op[None]:
        emit_event(
            kind, SignInTrace(client=client_key(client.address), user_id=account.user_id, method=method)
        )
        yield from notify_owner(self._context, SignInNotice(kind=kind, account=account, to=account.email))


def _is_address(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    plain = (
        text.isprintable()
        and not any(letter.isspace() for letter in text)
        # "a@example.com,b@example.net" would make two recipients of every later token, and text in brackets may
        # be another address than the one displayed.
        and not _NOT_IN_ADDRESSES & set(text)
        and len(text) <= _LONGEST_ADDRESS
    )
    return bool(local and at and domain) and "@" not in local and plain
