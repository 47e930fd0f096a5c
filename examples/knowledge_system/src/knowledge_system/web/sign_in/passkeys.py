"""Passkeys: registration, removal, and options for their use."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from knowledge_system.domain.problems import Problem
from knowledge_system.web import cookies, current_request
from knowledge_system.web.sign_in.sign_in_helpers import FRESH_SECONDS, accepted, client, rights_changed
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import Passkey, PasskeyOptions, Passkeys, RecoveryCodes, client_key

_GIVEN_OUT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def passkeys() -> Passkeys:
    """Return the passkey manager.

    Raises:
        Problem: ``unavailable`` if passkeys are disabled.
    """
    return current_request.enabled(current_request.services().passkeys)


def ask_for_new_passkey(proof: str) -> PasskeyOptions:
    """Return the options to create a passkey, after recent re-authentication.

    Raises:
        Problem: ``confirmation-required``; ``bad-proof`` if a factor is enabled and the code is wrong.
    """
    actor = current_request.actor()
    if not current_request.services().sign_in.confirmed_within(current_request.handle(), FRESH_SECONDS):
        raise Problem("confirmation-required")
    return accepted(
        lambda: passkeys().begin_registration(
            str(actor.id),
            session=current_request.handle().reference or "",
            account_name=actor.username,
            display_name=actor.display_name,
            proof=proof or None,
            client=client_key(current_request.address()),
        )
    )


def add_passkey(answer: str, *, name: str) -> RecoveryCodes | None:
    """Store a new passkey; return recovery codes if it is the first factor. Other sessions end.

    Raises:
        Problem: ``passkey-refused``.
    """
    user_id, session = str(current_request.actor().id), current_request.handle().reference or ""
    try:
        made = passkeys().finish_registration(user_id, answer, session=session, name=name)
    except InvalidCodeError as error:
        raise Problem("passkey-refused") from error
    rights_changed()
    return made.recovery_codes


def remove_passkey(passkey_id: str, proof: str) -> None:
    """Remove a passkey; requires a code.

    Raises:
        Problem: ``bad-proof``, ``not-found``, ``rate-limited``.
    """
    user_id, client = str(current_request.actor().id), client_key(current_request.address())
    if not accepted(lambda: passkeys().revoke(user_id, passkey_id, proof=proof, client=client)):
        raise Problem("not-found")
    rights_changed()


def own_passkeys() -> Sequence[Passkey]:
    """Return the user's passkeys; empty if passkeys are disabled."""
    found = current_request.services().passkeys
    return found.list(str(current_request.actor().id)) if found else ()


def ask_for_own_passkey() -> PasskeyOptions:
    """Return the options for a signed-in user to re-authenticate with a passkey.

    Raises:
        Problem: ``not-enabled`` without a passkey.
    """
    try:
        return passkeys().begin_verification(
            str(current_request.actor().id), session=current_request.handle().reference or ""
        )
    except InvalidCodeError as error:
        raise Problem("not-enabled") from error


def ask_for_passkey() -> PasskeyOptions:
    """Return the options to use a passkey instead of a code at sign-in.

    Raises:
        Problem: ``sign-in-required`` if no password was given before, ``not-enabled`` without a passkey.
    """
    challenge = cookies.kept(cookies.CHALLENGE)
    owner = current_request.services().sign_in.challenged_user(
        challenge, client=client(), session=current_request.handle()
    )
    if challenge is None or owner is None:
        raise Problem("sign-in-required")
    try:
        return passkeys().begin_verification(owner, session=challenge)
    except InvalidCodeError as error:
        raise Problem("not-enabled") from error


def ask_for_passkey_alone() -> PasskeyOptions:
    """Return the options to sign in with a passkey alone; they do not depend on the user."""
    # Shared by all tabs of a browser; otherwise the last request would invalidate the others.
    browser = cookies.kept(cookies.PASSKEY) or ""
    if not _GIVEN_OUT.fullmatch(browser):
        browser = secrets.token_urlsafe(32)
    cookies.keep(cookies.PASSKEY, browser)
    return passkeys().begin_sign_in(session=browser)
