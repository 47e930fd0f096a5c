"""Password changes, password resets, invitations and address changes, shared by pages and API."""

from __future__ import annotations

from flask import g

from knowledge_system.domain.problems import Problem
from knowledge_system.services.identity import sign_in_results
from knowledge_system.web import current_request
from knowledge_system.web.sign_in.sign_in_helpers import client
from mks_hardening.security import CredentialChanges


def change_password(password: str, new_password: str) -> None:
    """Change the user's own password; other sessions end.

    Raises:
        Problem: ``invalid`` for a weak password, ``bad-proof``, ``confirmation-required``, ``rate-limited``.
    """
    current_request.actor()
    session = current_request.handle()
    result = _changes().change_password(session, password, new_password, client=client())
    if not result:
        raise sign_in_results.change_problem(result)
    if "session" in g and session.reference:
        current_request.services().tokens.keep_after_new_password(session.reference)


def request_reset(username: str) -> None:
    """Mail a reset token to the user with this name.

    Raises:
        Problem: ``rate-limited``.
    """
    result = _changes().request_reset(username, client=client())
    if not result:
        raise sign_in_results.change_problem(result)


def reset_password(token: str, new_password: str, *, refused: str) -> None:
    """Set a new password with a mailed token.

    Raises:
        Problem: ``invalid`` for a weak password, ``refused`` for a token that is not valid.
    """
    result = _changes().reset_password(token, new_password, client=client())
    if result.state == "expired":
        raise Problem(refused)
    if not result:
        raise sign_in_results.change_problem(result)


def request_email_change(email: str) -> None:
    """Mail a token to the user's new address.

    Raises:
        Problem: ``confirmation-required``, ``invalid`` for an invalid address, ``rate-limited``.
    """
    current_request.actor()
    result = _changes().request_email_change(current_request.handle(), email, client=client())
    if not result:
        raise sign_in_results.change_problem(result)


def confirm_email(token: str) -> None:
    """Change the address of the account the token belongs to.

    Raises:
        Problem: ``link-refused``.
    """
    if not _changes().confirm_email(token, client=client()):
        raise Problem("link-refused")


def can_invite() -> bool:
    """Whether an invitation can be mailed."""
    background = current_request.services().background
    return (
        current_request.services().invitations is not None
        and background is not None
        and background.sends_mail
    )


def invite(username: str) -> None:
    """Mail a token with which a user sets the first password.

    Raises:
        Problem: ``rate-limited``, or ``unavailable`` if mail is disabled.
    """
    invitations = current_request.services().invitations
    if invitations is None or not can_invite():
        raise Problem("unavailable")
    with current_request.services().trail.inviting(str(current_request.actor().id)):
        result = invitations.request_reset(username, client=client())
    if not result:
        raise sign_in_results.change_problem(result)


def _changes() -> CredentialChanges:
    return current_request.enabled(current_request.services().changes)
