"""Pages of the user's own account: sign-in and sign-out, sessions, password, second factor."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem, describe
from knowledge_system.services.knowledge import digests, stored_content
from knowledge_system.web import article_changes, current_request, forms
from knowledge_system.web.sign_in import (
    credentials,
    devices,
    enrolment,
    factors,
    passkeys,
    provider,
    sign_in_steps,
)
from knowledge_system.web.sign_in.sign_in_helpers import proof_of
from mks_hardening.security import RecoveryCodes

pages = Blueprint("account", __name__)

_REASONS = {"idle": "session-idle", "absolute": "session-absolute", "revoked": "session-revoked"}


def sign_in_page(problem: Problem | None = None) -> str:
    """Render the sign-in form for name and password or a passkey."""
    settings = current_request.services().settings
    return forms.render(
        "sign_in.html",
        problem,
        reason=_why_ended(request.args.get("reason", "")),
        username=forms.retyped("username")[:64],
        next_path=_next_path(),
        provider=provider.provider_name(),
        at_provider=request.args.get("done") == "signed-out-here",
        demo_people=stored_content.people() if settings.demo else (),
        demo_password=settings.demo_password,
    )


def _why_ended(reason: str) -> str | None:
    code = _REASONS.get(reason)
    return describe(Problem(code), language=current_request.language())["detail"] if code else None


def _next_path() -> str:
    asked = forms.safe_next(forms.retyped("next") or request.args.get("next", "/"))
    # A link cannot submit a form again, but it can open the form.
    return forms.came_from() if asked == "/" and "reason" in request.args else asked


def _code_page(problem: Problem | None = None) -> str:
    return forms.render("sign_in_code.html", problem, next_path=_next_path())


def _confirm_page(problem: Problem | None = None) -> str:
    return forms.render(
        "confirm.html",
        problem,
        section="account",
        factor=factors.status(),
        next_path=_next_path(),
        provider=provider.provider_name() if provider.began_session() else "",
        with_password=current_request.services().settings.oidc_passwords,
    )


def _password_page(problem: Problem | None = None) -> str:
    return forms.render("password.html", problem, section="account")


def factor_page(*, problem: Problem | None = None, confirming: bool = False) -> str:
    """Render the second-factor page: authenticator app, recovery codes, passkeys."""
    factor = factors.status()
    if factor is None:
        raise Problem("unavailable")
    begun = enrolment.kept() if factor.pending else None
    return forms.render(
        "second_factor.html",
        problem,
        section="account",
        factor=factor,
        passkeys=passkeys.own_passkeys(),
        enrolment=begun,
        confirming=confirming or (factor.pending and begun is None),
    )


@pages.get("/sign-in")
def sign_in_form() -> Any:
    """Show the sign-in page, with the reason why the last session ended."""
    if current_request.actor_or_none():
        return redirect(forms.safe_next(request.args.get("next", "/")), 303)
    return forms.private(sign_in_page())


@pages.post("/sign-in")
@forms.form(fields.SIGN_IN_FORM, page=sign_in_page, ignore=("next",))
def sign_in(*, username: str, password: str, recovery_code: str, remember: str) -> str:
    """Check name and password."""
    complete = sign_in_steps.begin(username, password, recovery_code=recovery_code, remember=remember == "on")
    onward = forms.safe_next(forms.retyped("next"))
    return onward if complete else f"/sign-in/code?{urlencode({'next': onward})}"


@pages.get("/sign-in/code")
def code_form() -> Any:
    """Show the form for the code."""
    if not sign_in_steps.pending():
        return redirect("/sign-in", 303)
    return forms.private(_code_page())


@pages.post("/sign-in/code")
def code() -> Response:
    """Check the code."""
    if not sign_in_steps.pending():
        return redirect("/sign-in", 303)
    try:
        given = forms.read(fields.CODE_FORM, ignore=("next",))
        sign_in_steps.finish(given["code"], answer=given["answer"])
    except Problem as problem:
        if problem.code == "sign-in-required" and not current_request.wants_json():
            return redirect("/sign-in", 303)
        return forms.shown_again(problem, _code_page)
    return redirect(forms.safe_next(forms.retyped("next")), 303)


@pages.post("/sign-out")
@forms.form({})
def sign_out() -> str:
    """End the session."""
    at_provider = provider.began_session() and provider.sign_out_url() is not None
    sign_in_steps.sign_out()
    return f"/sign-in?done={'signed-out-here' if at_provider else 'signed-out'}"


@pages.post("/session/refresh")
@forms.form({}, ignore=("next",))
def extend() -> str:
    """Extend the session, for browsers without JavaScript."""
    current_request.handle().refresh()
    path = forms.safe_next(forms.retyped("next"))
    return f"{path}{'&' if '?' in path else '?'}done=extended"


@pages.get("/account")
def overview() -> Response:
    """Show the user's profile, sessions, remembered devices and second-factor status."""
    return forms.private(
        render_template(
            "account.html",
            section="account",
            factor=factors.status(),
            sessions=sessions_of(str(current_request.actor().id)),
            devices=devices.own_devices(),
            mails=_mails(),
            provider=provider.provider_name() if provider.began_session() else "",
            with_password=current_request.services().settings.oidc_passwords,
        )
    )


def _mails() -> str:
    with current_request.services().reads() as session:
        return digests.choice(session, current_request.actor().id)


@pages.post("/account/mails")
@forms.form(fields.MAILS)
def choosing_mails(*, mails: str) -> str:
    """Choose how notices come by mail."""
    article_changes.choose_mails(mails)
    return "/account?done=mails-chosen"


@pages.post("/account/sessions/end")
@forms.form(fields.SESSION)
def end_session(*, session: str) -> str:
    """End one of the user's sessions."""
    manager, owner = current_request.services().session_manager, str(current_request.actor().id)
    if manager is None or session not in {item.key for item in manager.sessions(owner)}:
        raise Problem("not-found")
    manager.end(session)
    current_request.services().trail.note("session.end", owner, actor=owner, which="one")
    return "/account?done=ended"


@pages.post("/account/sessions/end-others")
@forms.form({})
def end_others() -> str:
    """End all of the user's sessions except the current one."""
    current_request.handle().end_others()
    owner = str(current_request.actor().id)
    current_request.services().trail.note("session.end", owner, actor=owner, which="every other")
    return "/account?done=others-ended"


@pages.post("/account/devices/revoke")
@forms.form(fields.DEVICE, confirm_at="/account")
def revoke_device(*, device: str) -> str:
    """Revoke one of the user's remembered devices."""
    devices.revoke(device)
    return "/account?done=device-revoked"


@pages.post("/account/devices/revoke-all")
@forms.form({}, confirm_at="/account")
def revoke_devices() -> str:
    """Revoke all of the user's remembered devices."""
    devices.revoke_all()
    return "/account?done=devices-revoked"


@pages.get("/account/confirm")
def confirm_form() -> Response:
    """Show the form for re-authentication."""
    return forms.private(_confirm_page())


@pages.post("/account/confirm")
@forms.form(fields.CONFIRMATION_FORM, page=_confirm_page, ignore=("next",))
def confirm(*, proof: str, answer: str) -> str:
    """Re-authenticate the user, and continue."""
    sign_in_steps.confirm(proof_of(proof, answer))
    return forms.safe_next(forms.retyped("next"))


@pages.get("/account/password")
def password_form() -> Response:
    """Show the form to change the password."""
    return forms.private(_password_page())


@pages.post("/account/password")
@forms.form(fields.PASSWORD, page=_password_page, confirm_at="/account/password")
def change_password(*, password: str, new_password: str) -> str:
    """Change the password; other sessions end."""
    credentials.change_password(password, new_password)
    return "/account?done=password-changed"


@pages.get("/account/second-factor")
def second_factor() -> Response:
    """Show the status of the second factor and the available actions."""
    return forms.private(factor_page())


@pages.post("/account/second-factor/begin")
@forms.form(fields.CODE_FORM, page=factor_page, confirm_at="/account/second-factor")
def begin_enrolment(*, code: str, answer: str) -> str:
    """Begin an enrolment, and show QR code and secret."""
    enrolment.keep(factors.enrol(proof_of(code, answer)))
    return "/account/second-factor"


@pages.post("/account/second-factor/cancel")
@forms.form({})
def cancel_enrolment() -> str:
    """Cancel an enrolment."""
    factors.two_factor().cancel_enrolment(str(current_request.actor().id))
    enrolment.forget()
    return "/account/second-factor"


@pages.post("/account/second-factor/confirm")
@forms.form(fields.CODE, page=partial(factor_page, confirming=True))
def confirm_enrolment(*, code: str) -> Response:
    """Confirm the enrolment, and show the recovery codes once."""
    codes = factors.confirm_enrolment(code)
    enrolment.forget()
    return shown_once(codes)


@pages.post("/account/second-factor/recovery-codes")
@forms.form(fields.CODE, page=factor_page)
def new_recovery_codes(*, code: str) -> Response:
    """Replace the recovery codes, and show the new ones once."""
    return shown_once(factors.recovery_codes(code))


@pages.post("/account/second-factor/disable")
@forms.form(fields.CODE, page=factor_page)
def disable(*, code: str) -> str:
    """Disable the second factor."""
    factors.disable(code)
    return "/account?done=factor-off"


def shown_once(codes: RecoveryCodes) -> Response:
    """Show new recovery codes, which no page shows again."""
    return forms.private(render_template("recovery_codes.html", section="account", codes=list(codes)))


def sessions_of(user_id: str) -> list[dict[str, Any]]:
    """Return a user's browser sessions, for the account page and the administrator's page."""
    manager = current_request.services().session_manager
    current = current_request.handle()
    if manager is None:
        return []
    return [
        {
            "key": item.key,
            "started": item.created_at,
            "active": item.seen_at,
            "device": _device(str(json.loads(item.data).get("device", ""))),
            "current": item.key == current.reference,
        }
        for item in manager.sessions(user_id)
    ]


_BROWSERS = (("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
)


def _device(agent: str) -> str:
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    plain = re.sub(r"[^\w./ -]", "", agent.partition(" ")[0])[:40]
    return (
        " / ".join(part for part in (browser, system) if part) or plain or current_request.say("不明な端末")
    )
