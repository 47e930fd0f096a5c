"""Authenticator codes, and what applies to every second factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.services.identity import sign_in_results
from knowledge_system.web import current_request
from knowledge_system.web.sign_in.sign_in_helpers import FRESH_SECONDS, accepted, rights_changed
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import Enrolment, RecoveryCodes, TwoFactorManager, TwoFactorStatus, client_key

R = TypeVar("R")

_LONGEST_SESSION = 30 * 86_400


def two_factor() -> TwoFactorManager:
    """Return the second-factor manager.

    Raises:
        Problem: ``unavailable`` if second factors are disabled.
    """
    return current_request.enabled(current_request.services().two_factor)


def status() -> TwoFactorStatus | None:
    """Return the user's second-factor status; ``None`` if second factors are disabled."""
    manager = current_request.services().two_factor
    return manager.status(str(current_request.actor().id)) if manager else None


def lacks_factor(actor: Actor) -> bool:
    """Whether the user's role requires a second factor that is not set up."""
    services = current_request.services()
    if services.two_factor is None or actor.role not in services.settings.second_factor_roles:
        return False
    # A second factor used in this session proves that there is one, without a query.
    if services.sign_in.factor_within(current_request.handle(), _LONGEST_SESSION):
        return False
    return not services.two_factor.status(str(actor.id)).enabled


def enrol(proof: str = "") -> Enrolment:
    """Begin an enrolment, after recent re-authentication.

    Args:
        proof: a passkey response or a recovery code, if passkeys are already registered.

    Raises:
        Problem: ``already-enabled``, ``confirmation-required``, ``bad-proof``, ``rate-limited``.
    """
    actor = current_request.actor()
    manager = two_factor()
    if manager.status(str(actor.id)).totp:
        raise Problem("already-enabled")
    if not current_request.services().sign_in.confirmed_within(current_request.handle(), FRESH_SECONDS):
        raise Problem("confirmation-required")
    client = client_key(current_request.address())
    return accepted(
        lambda: manager.begin_enrolment(
            str(actor.id), account_name=actor.username, proof=proof or None, client=client
        )
    )


def confirm_enrolment(code: str) -> RecoveryCodes:
    """Enable the second factor; the session id changes, and the user's other sessions end.

    Raises:
        Problem: ``enrolment-refused``, ``enrolment-missing``, ``already-enabled``, ``rate-limited``.
    """
    actor = current_request.actor()
    manager = two_factor()
    try:
        codes = manager.confirm_enrolment(str(actor.id), code, client=client_key(current_request.address()))
    except InvalidCodeError as error:
        if error.reason in {"no_enrolment", "expired"}:
            enrolled = manager.status(str(actor.id)).totp
            raise Problem("already-enabled" if enrolled else "enrolment-missing") from error
        raise sign_in_results.code_problem(
            locked=error.reason == "locked", retry_after=error.retry_after, code="enrolment-refused"
        ) from error
    rights_changed()
    return codes


def disable(code: str) -> None:
    """Disable the second factor; requires a code.

    Raises:
        Problem: ``not-enabled``, ``bad-proof``, ``rate-limited``.
    """
    _proved(lambda user_id, client: two_factor().disable(user_id, proof=code, client=client))
    rights_changed()


def recovery_codes(code: str) -> RecoveryCodes:
    """Replace the recovery codes; requires a code.

    Raises:
        Problem: ``not-enabled``, ``bad-proof``, ``rate-limited``.
    """
    manager = two_factor()
    return _proved(
        lambda user_id, client: manager.regenerate_recovery_codes(user_id, proof=code, client=client)
    )


def _proved(change: Callable[[str, str], R]) -> R:
    user_id = str(current_request.actor().id)
    current_request.check_limit("auth_2fa_verify")
    if not two_factor().status(user_id).enabled:
        raise Problem("not-enabled")
    return accepted(lambda: change(user_id, client_key(current_request.address())))
