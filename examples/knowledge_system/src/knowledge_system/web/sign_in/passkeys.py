"""Passkeys: to have them, and to be asked for one."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowledge_system.domain.problems import Problem
from knowledge_system.web import cookies, current_request
from knowledge_system.web.sign_in.shared import FRESH_SECONDS, accepted, client, rights_changed
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import client_key

if TYPE_CHECKING:
    from mks_hardening.security import (
        Passkey,
        PasskeyOptions,
        Passkeys,
        RecoveryCodes,
    )

__all__ = [
    "add_passkey",
    "ask_for_new_passkey",
    "ask_for_own_passkey",
    "ask_for_passkey",
    "ask_for_passkey_alone",
    "own_passkeys",
    "passkeys",
    "remove_passkey",
]


_GIVEN_OUT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def passkeys() -> Passkeys:
    """The passkeys.

    Raises:
        Problem: ``unavailable`` where there are none.
    """
    found = current_request.parts().passkeys
    if found is None:
        raise Problem("unavailable")
    return found


def ask_for_new_passkey(proof: str) -> PasskeyOptions:
    """What a browser is asked to make a passkey, for somebody who has just proved who it is.

    Raises:
        Problem: ``confirmation-required``; ``bad-proof`` where a factor is on and the code is wrong.
    """
    actor = current_request.actor()
    if not current_request.parts().sign_in.confirmed_within(current_request.handle(), FRESH_SECONDS):
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
    """Keep the passkey that the browser made; recovery codes where it is the first factor. Other sessions end.

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
    """Forget one, given a code.

    Raises:
        Problem: ``bad-proof``, ``not-found``, ``rate-limited``.
    """
    user_id, client = str(current_request.actor().id), client_key(current_request.address())
    if not accepted(lambda: passkeys().revoke(user_id, passkey_id, proof=proof, client=client)):
        raise Problem("not-found")
    rights_changed()


def own_passkeys() -> Sequence[Passkey]:
    """Those of the signed-in person; none where there are no passkeys."""
    found = current_request.parts().passkeys
    return found.list(str(current_request.actor().id)) if found else ()


def ask_for_own_passkey() -> PasskeyOptions:
    """What the browser of the signed-in person is asked, to prove again who it is.

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
    """What a browser is asked in the place of a code.

    Raises:
        Problem: ``sign-in-required`` without a password before, ``not-enabled`` without a passkey.
    """
    challenge = cookies.kept(cookies.CHALLENGE)
    owner = current_request.parts().sign_in.challenged_user(
        challenge, client=client(), session=current_request.handle()
    )
    if challenge is None or owner is None:
        raise Problem("sign-in-required")
    try:
        return passkeys().begin_verification(owner, session=challenge)
    except InvalidCodeError as error:
        raise Problem("not-enabled") from error


def ask_for_passkey_alone() -> PasskeyOptions:
    """What a browser is asked in the place of name and password; the same for everybody."""
    # The same for all tabs of a browser, or the one that asked last would void the others.
    browser = cookies.kept(cookies.PASSKEY) or ""
    if not _GIVEN_OUT.fullmatch(browser):
        browser = secrets.token_urlsafe(32)
    cookies.keep(cookies.PASSKEY, browser)
    return passkeys().begin_sign_in(session=browser)
