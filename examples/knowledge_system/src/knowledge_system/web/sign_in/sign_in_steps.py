"""Sign-in, re-authentication and sign-out, shared by pages and API."""

from __future__ import annotations

from typing import cast

from knowledge_system.services.identity import sign_in_results
from knowledge_system.web import cookies, current_request
from knowledge_system.web.sign_in.factors import status
from knowledge_system.web.sign_in.passkeys import passkeys
from knowledge_system.web.sign_in.sign_in_helpers import client, session_data
from mks_hardening.protocols import SignInSession
from mks_hardening.security import PasskeyAssertion, SignInStep, VerificationResult, client_key


def begin(username: str, password: str, *, recovery_code: str = "", remember: bool = False) -> bool:
    """Check the password; return whether the sign-in is complete, or a code must follow.

    Raises:
        Problem: ``bad-credentials``, ``rate-limited``.
    """
    step = _check_password(current_request.handle(), username, password, recovery_code, remember=remember)
    cookies.keep(cookies.CHALLENGE, step.challenge)
    cookies.keep(cookies.DEVICE, step.device)
    return bool(step)


def begin_without_cookies(
    session: SignInSession, username: str, password: str, *, recovery_code: str = ""
) -> str | None:
    """Check the password for an API client; return the challenge if a code must follow.

    Raises:
        Problem: ``bad-credentials``, ``rate-limited``.
    """
    return _check_password(session, username, password, recovery_code).challenge


def finish_without_cookies(session: SignInSession, challenge: str, code: str) -> VerificationResult:
    """Check the code of an API client; the result includes the number of recovery codes left.

    Raises:
        Problem: ``sign-in-required`` if the challenge is invalid or expired, ``bad-code``, ``code-locked``,
            ``rate-limited``.
    """
    step = current_request.services().sign_in.second_factor(
        challenge, code, client=client(), session=session, data=session_data()
    )
    if not step:
        raise sign_in_results.refusal(step, refused="bad-code")
    return cast("VerificationResult", step.factor)


def pending() -> bool:
    """Whether this browser has given a password, but not the code."""
    return cookies.kept(cookies.CHALLENGE) is not None


def finish(code: str, *, answer: str = "") -> VerificationResult:
    """Check the second factor: a code, or the browser's response for a passkey.

    The result includes the number of recovery codes left.

    Raises:
        Problem: ``sign-in-required`` if no password was given before, ``bad-code``, ``code-locked``,
            ``rate-limited``.
    """
    challenge = cookies.kept(cookies.CHALLENGE)
    given = PasskeyAssertion(answer, session=challenge or "") if answer else code
    step = current_request.services().sign_in.second_factor(
        challenge, given, client=client(), session=current_request.handle(), data=session_data()
    )
    if step or step.state == "expired":
        cookies.forget(cookies.CHALLENGE)
    cookies.keep(cookies.DEVICE, step.device)
    if not step:
        raise sign_in_results.refusal(step, refused="bad-code")
    return cast("VerificationResult", step.factor)


def confirm(proof: str) -> None:
    """Re-authenticate the user, with a code if a second factor is enabled, otherwise with the password.

    Raises:
        Problem: ``bad-proof``, ``code-locked``, ``rate-limited``, ``sign-in-required``.
    """
    current_request.actor()
    factor = status()
    sign_in = current_request.services().sign_in
    check = sign_in.confirm_factor if factor and factor.enabled else sign_in.confirm_password
    _raise_unless(check(current_request.handle(), proof, client=client()))


def sign_out() -> None:
    """End the session, if there is one."""
    session = current_request.handle()
    if session.alive:
        owner = str(session.user_id)
        session.end()
        current_request.services().trail.note("sign-in.out", owner, actor=owner)


def begin_with_passkey(answer: str) -> None:
    """Sign in with a passkey alone.

    Raises:
        Problem: ``passkey-refused``, ``rate-limited``.
    """
    browser = cookies.kept(cookies.PASSKEY) or ""
    outcome = passkeys().finish_sign_in(answer, session=browser, client=client_key(current_request.address()))
    step = current_request.services().sign_in.passwordless_sign_in(
        outcome, client=client(), session=current_request.handle(), data=session_data()
    )
    if not step:
        raise sign_in_results.refusal(step, refused="passkey-refused")
    # Only after success: another tab of this browser may be waiting for its passkey.
    cookies.forget(cookies.PASSKEY)


def _check_password(
    session: SignInSession, username: str, password: str, recovery_code: str, *, remember: bool = False
) -> SignInStep:
    step = current_request.services().sign_in.password(
        username,
        password,
        client=client(),
        session=session,
        recovery_code=recovery_code or None,
        remember=remember,
        data=session_data(),
    )
    if step.state not in {"done", "challenged"}:
        raise sign_in_results.refusal(step, refused="bad-credentials")
    return step


def _raise_unless(step: SignInStep) -> None:
    if not step:
        raise sign_in_results.refusal(step, refused="bad-proof")
