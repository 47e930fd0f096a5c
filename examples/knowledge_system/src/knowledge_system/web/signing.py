"""Signing in and out, and the second factor, as steps that pages and JSON endpoints share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from flask import request

from knowledge_system.problems import Problem
from knowledge_system.services import sign_in
from knowledge_system.web import here
from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import client_key

if TYPE_CHECKING:
    from mks_hardening.security import Enrolment, RecoveryCodes, TwoFactorManager, TwoFactorStatus

__all__ = [
    "begin",
    "confirm_enrolment",
    "disable",
    "enrol",
    "finish",
    "pending_user_id",
    "recovery_codes",
    "sign_out",
    "status",
]

# Between password and code; longer than anybody needs to find a telephone.
PENDING_SECONDS = 300

R = TypeVar("R")


def begin(username: str, password: str) -> bool:
    """Check the password; whether that was all, or a code has to follow.

    Raises:
        Problem: ``bad-credentials``, ``rate-limited``.
    """
    services = here.parts()
    with services.sessions() as session:
        actor = sign_in.check_password(
            session, services.limiter, username=username, password=password, address=here.address()
        )
    factor = services.two_factor
    needs_code = factor is not None and factor.status(str(actor.id)).enabled
    here.handle().start(str(actor.id), data=_data("code" if needs_code else "full"))
    return not needs_code


def pending_user_id() -> int | None:
    """Who has given the password and not yet the code."""
    session = here.handle()
    if not session.user_id or session.data.get("stage") != "code":
        return None
    fresh = here.parts().clock.time() - float(session.data.get("since", 0)) < PENDING_SECONDS
    return int(session.user_id) if fresh else None


def finish(code: str) -> Any:
    """Check the code that follows the password; the result tells how many recovery codes are left.

    Raises:
        Problem: ``sign-in-required`` without a password before, ``bad-code``, ``rate-limited``.
    """
    user_id = pending_user_id()
    if user_id is None:
        raise Problem("sign-in-required")
    services = here.parts()
    result = sign_in.check_code(
        two_factor(), services.limiter, user_id=user_id, code=code, address=here.address()
    )
    if not here.handle().rotate(data=_data("full")):
        raise Problem("sign-in-required")
    return result


def sign_out() -> None:
    """End the session, if there is one."""
    session = here.handle()
    if session.alive:
        session.end()


def two_factor() -> TwoFactorManager:
    """The second factors.

    Raises:
        Problem: ``unavailable`` where they are switched off.
    """
    found = here.parts().two_factor
    if found is None:
        raise Problem("unavailable")
    return found


def status() -> TwoFactorStatus | None:
    """The second factor of the signed-in person; None where second factors are switched off."""
    manager = here.parts().two_factor
    return manager.status(str(here.actor().id)) if manager else None


def enrol() -> Enrolment:
    """Begin an enrolment.

    Raises:
        Problem: ``already-enabled``.
    """
    actor = here.actor()
    manager = two_factor()
    if manager.status(str(actor.id)).enabled:
        raise Problem("already-enabled")
    return manager.begin_enrolment(str(actor.id), account_name=actor.username)


def confirm_enrolment(code: str) -> RecoveryCodes:
    """Turn the second factor on; the session gets a new id, other sessions of the person end.

    Raises:
        Problem: ``enrolment-refused``, ``enrolment-missing``, ``already-enabled``, ``rate-limited``.
    """
    actor = here.actor()
    manager = two_factor()
    try:
        codes = manager.confirm_enrolment(str(actor.id), code)
    except InvalidCodeError as error:
        if error.reason in {"no_enrolment", "expired"}:
            enabled = manager.status(str(actor.id)).enabled
            raise Problem("already-enabled" if enabled else "enrolment-missing") from error
        raise sign_in.refused_code(
            locked=error.reason == "locked", retry_after=error.retry_after, code="enrolment-refused"
        ) from error
    _rights_changed()
    return codes


def disable(code: str) -> None:
    """Turn the second factor off, given a code.

    Raises:
        Problem: ``not-enabled``, ``bad-proof``, ``rate-limited``.
    """
    _proved(lambda user_id, client: two_factor().disable(user_id, proof=code, client=client))
    _rights_changed()


def recovery_codes(code: str) -> RecoveryCodes:
    """New recovery codes in place of the old ones, given a code.

    Raises:
        Problem: ``not-enabled``, ``bad-proof``, ``rate-limited``.
    """
    manager = two_factor()
    return _proved(
        lambda user_id, client: manager.regenerate_recovery_codes(user_id, proof=code, client=client)
    )


def _proved(change: Callable[[str, str], R]) -> R:
    user_id = str(here.actor().id)
    here.check_limit("auth_2fa_verify")
    if not two_factor().status(user_id).enabled:
        raise Problem("not-enabled")
    try:
        return change(user_id, client_key(here.address()))
    except InvalidCodeError as error:
        raise sign_in.refused_code(
            locked=error.reason == "locked", retry_after=error.retry_after, code="bad-proof"
        ) from error


def _rights_changed() -> None:
    session = here.handle()
    session.rotate()
    session.end_others()


def _data(stage: str) -> dict[str, Any]:
    device = (request.user_agent.string or "")[:200]
    return {"stage": stage, "since": here.parts().clock.time(), "device": device}
