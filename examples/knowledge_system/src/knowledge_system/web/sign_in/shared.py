"""What every step of signing in tells the library, and does after a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import g, request

from knowledge_system.services.identity import sign_in_results
from knowledge_system.web import cookies, current_request
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import PasskeyAssertion, SignInClient

__all__ = [
    "FRESH_SECONDS",
    "accepted",
    "client",
    "proof_of",
    "rights_changed",
    "session_data",
]

R = TypeVar("R")

# How fresh the proof of who somebody is must be, for changes of how he or she signs in.
FRESH_SECONDS = 900


def client() -> SignInClient:
    """Whom the limits count, and by which device he or she is remembered."""
    return SignInClient(address=current_request.address(), device=cookies.kept(cookies.DEVICE))


def session_data() -> dict[str, object]:
    """What the list of sessions shows of this browser."""
    return {"device": (request.user_agent.string or "")[:200]}


def rights_changed() -> None:
    """A new id for this session, the end of the person's others and of the tokens that came with them."""
    session, person = current_request.handle(), str(current_request.actor().id)
    session.rotate()
    session.end_others()
    services = current_request.parts()
    services.tokens.end_user(person, but=session.reference if "session" in g else "")
    needed = current_request.actor().role in services.settings.second_factor_roles
    if needed and services.two_factor is not None and not services.two_factor.status(person).enabled:
        session.end()  # it was begun with a factor that is gone, and would go on as if it were not


def proof_of(code: str, answer: str) -> str:
    """What proves who it is: a code, or what the browser answered for a passkey of the signed-in person."""
    return PasskeyAssertion(answer, session=current_request.handle().reference or "") if answer else code


def accepted(change: Callable[[], R]) -> R:
    """What the change returns, whose proof the library has looked at.

    Raises:
        Problem: ``bad-proof``, ``code-locked``, ``rate-limited``.
    """
    try:
        return change()
    except InvalidCodeError as error:
        raise sign_in_results.refused_code(
            locked=error.reason == "locked", retry_after=error.retry_after, code="bad-proof"
        ) from error
