"""Helpers of the sign-in steps: client data, re-authentication, actions after a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import g, request

from knowledge_system.services.identity import sign_in_results
from knowledge_system.web import cookies, current_request
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import PasskeyAssertion, SignInClient

R = TypeVar("R")

# Maximum age in seconds of an authentication that allows changes of the sign-in credentials.
FRESH_SECONDS = 900


def client() -> SignInClient:
    """Return the client's address for rate limits, and its device token."""
    return SignInClient(address=current_request.address(), device=cookies.kept(cookies.DEVICE))


def session_data() -> dict[str, object]:
    """Return the session data shown in the list of sessions."""
    return {"device": (request.user_agent.string or "")[:200]}


def rights_changed() -> None:
    """Rotate the session id, and end the user's other sessions and tokens."""
    session, person = current_request.handle(), str(current_request.actor().id)
    session.rotate()
    session.end_others()
    services = current_request.services()
    services.tokens.end_user(person, but=session.reference if "session" in g else "")
    needed = current_request.actor().role in services.settings.second_factor_roles
    if needed and services.two_factor is not None and not services.two_factor.status(person).enabled:
        session.end()  # it was begun with a factor that no longer exists


def proof_of(code: str, answer: str) -> str:
    """Return the user's proof of identity: a code, or the browser's response for a passkey."""
    return PasskeyAssertion(answer, session=current_request.handle().reference or "") if answer else code


def accepted(change: Callable[[], R]) -> R:
    """Run a change that requires a proof, and return its result.

    Raises:
        Problem: ``bad-proof``, ``code-locked``, ``rate-limited``.
    """
    try:
        return change()
    except InvalidCodeError as error:
        raise sign_in_results.code_problem(
            locked=error.reason == "locked", retry_after=error.retry_after, code="bad-proof"
        ) from error
