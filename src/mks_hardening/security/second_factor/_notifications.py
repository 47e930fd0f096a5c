"""Events of second factors, and the errors raised for refusals."""

from __future__ import annotations

from mks_hardening._core import hooks
from mks_hardening.events import TwoFactorEvent
from mks_hardening.exceptions import ConfigurationError, InvalidCodeError
from mks_hardening.security._security_events import log_security_event
from mks_hardening.security.second_factor.factor_results import VerificationResult

__all__ = ["check_not_blank", "emit_and_build_error", "emit_event", "emit_result"]


def emit_event(change: str, user_id: str, *, method: str = "", reason: str = "", actor: str = "") -> None:
    """Emit and log a ``TwoFactorEvent``."""
    event = TwoFactorEvent(change, user_id, method, reason, actor)
    if hooks.observers:
        hooks.emit(event)
    log_security_event(event)


def emit_result(user_id: str, result: VerificationResult) -> None:
    """Emit the event of a check, and another one if it caused a lock or found a clone."""
    emit_event("verified" if result else "refused", user_id, method=result.method or "", reason=result.reason)
    if result.reason == "cloned":
        emit_event("passkey_cloned", user_id, method="passkey")
    if result.reason == "wrong" and result.locked:
        emit_event("locked", user_id, method=result.method or "")


def emit_and_build_error(user_id: str, result: VerificationResult) -> InvalidCodeError:
    """Emit the event of a proof that was not accepted, and return the error."""
    emit_result(user_id, result)
    return InvalidCodeError(result.reason, retry_after=result.retry_after)


def check_not_blank(text: object, *, parameter: str) -> None:
    """Check that an actor or a reason is not blank."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(f"{parameter} must be a string that is not blank", parameter=parameter)
