"""Pages of the user's own account: sign-in and sign-out, sessions, password, second factor."""

from __future__ import annotations

import json
import re
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

pages = Blueprint("account", __name__)

_REASONS = {"idle": "session-idle", "absolute": "session-absolute", "revoked": "session-revoked"}


@pages.get("/sign-in")
def sign_in_form() -> Any:
    """Show the sign-in page, with the reason why the last session ended."""
    if current_request.actor_or_none():
        return redirect(forms.safe_next(request.args.get("next", "/")), 303)
    return forms.private(sign_in_page())


@pages.post("/sign-in")
def sign_in() -> Response:
    """Check name and password."""
    try:
        values = forms.read(fields.SIGN_IN_FORM, ignore=("next",))
        complete = sign_in_steps.begin(
            values["username"],
            values["password"],
            recovery_code=values["recovery_code"],
            remember=values["remember"] == "on",
        )
    except Problem as problem:
        return forms.shown_again(problem, sign_in_page)
    onward = forms.safe_next(forms.retyped("next"))
    return redirect(onward if complete else f"/sign-in/code?{urlencode({'next': onward})}", 303)


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
def sign_out() -> Response:
    """End the session."""
    forms.read({})
    at_provider = provider.began_session() and provider.sign_out_url() is not None
    sign_in_steps.sign_out()
    return redirect(f"/sign-in?done={'signed-out-here' if at_provider else 'signed-out'}", 303)


@pages.post("/session/refresh")
def extend() -> Response:
    """Extend the session, for browsers without JavaScript."""
    forms.read({}, ignore=("next",))
    current_request.handle().refresh()
    path = forms.safe_next(forms.retyped("next"))
    return redirect(f"{path}{'&' if '?' in path else '?'}done=extended", 303)


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
    with current_request.services().sessions() as session:
        return digests.choice(session, current_request.actor().id)


@pages.post("/account/mails")
def choosing_mails() -> Response:
    """Choose how notices come by mail."""
    article_changes.choose_mails(forms.read(fields.MAILS)["mails"])
    return redirect("/account?done=mails-chosen", 303)


@pages.post("/account/sessions/end")
def end_session() -> Response:
    """End one of the user's sessions."""
    wanted = forms.read(fields.SESSION)["session"]
    manager, owner = current_request.services().session_manager, str(current_request.actor().id)
    if manager is None or wanted not in {item.key for item in manager.sessions(owner)}:
        raise Problem("not-found")
    manager.end(wanted)
    current_request.services().trail.note("session.end", owner, actor=owner, which="one")
    return redirect("/account?done=ended", 303)


@pages.post("/account/sessions/end-others")
def end_others() -> Response:
    """End all of the user's sessions except the current one."""
    forms.read({})
    current_request.handle().end_others()
    owner = str(current_request.actor().id)
    current_request.services().trail.note("session.end", owner, actor=owner, which="every other")
    return redirect("/account?done=others-ended", 303)


@pages.post("/account/devices/revoke")
def revoke_device() -> Response:
    """Revoke one of the user's remembered devices."""
    try:
        devices.revoke(forms.read(fields.DEVICE)["device"])
    except Problem as problem:
        return _asked_to_confirm(problem, "/account")
    return redirect("/account?done=device-revoked", 303)


@pages.post("/account/devices/revoke-all")
def revoke_devices() -> Response:
    """Revoke all of the user's remembered devices."""
    try:
        forms.read({})
        devices.revoke_all()
    except Problem as problem:
        return _asked_to_confirm(problem, "/account")
    return redirect("/account?done=devices-revoked", 303)


@pages.get("/account/confirm")
def confirm_form() -> Response:
    """Show the form for re-authentication."""
    return forms.private(_confirm_page())


@pages.post("/account/confirm")
def confirm() -> Response:
    """Re-authenticate the user, and continue."""
    try:
        given = forms.read(fields.CONFIRMATION_FORM, ignore=("next",))
        sign_in_steps.confirm(proof_of(given["proof"], given["answer"]))
    except Problem as problem:
        return forms.shown_again(problem, _confirm_page)
    return redirect(forms.safe_next(forms.retyped("next")), 303)


@pages.get("/account/password")
def password_form() -> Response:
    """Show the form to change the password."""
    return forms.private(_password_page())


@pages.post("/account/password")
def change_password() -> Response:
    """Change the password; other sessions end."""
    try:
        values = forms.read(fields.PASSWORD)
        credentials.change_password(values["password"], values["new_password"])
    except Problem as problem:
        if problem.code == "confirmation-required":
            return _asked_to_confirm(problem, "/account/password")
        return forms.shown_again(problem, _password_page)
    return redirect("/account?done=password-changed", 303)


@pages.get("/account/second-factor")
def second_factor() -> Response:
    """Show the status of the second factor and the available actions."""
    return forms.private(factor_page())


@pages.post("/account/second-factor/begin")
def begin_enrolment() -> Response:
    """Begin an enrolment, and show QR code and secret."""
    try:
        given = forms.read(fields.CODE_FORM)
        enrolment.keep(factors.enrol(proof_of(given["code"], given["answer"])))
    except Problem as problem:
        if problem.code == "confirmation-required":
            return _asked_to_confirm(problem, "/account/second-factor")
        return forms.shown_again(problem, lambda shown: factor_page(problem=shown))
    return redirect("/account/second-factor", 303)


@pages.post("/account/second-factor/cancel")
def cancel_enrolment() -> Response:
    """Cancel an enrolment."""
    actor = current_request.actor()
    forms.read({})
    factors.two_factor().cancel_enrolment(str(actor.id))
    enrolment.forget()
    return redirect("/account/second-factor", 303)


@pages.post("/account/second-factor/confirm")
def confirm_enrolment() -> Response:
    """Confirm the enrolment, and show the recovery codes once."""
    try:
        codes = factors.confirm_enrolment(forms.read(fields.CODE)["code"])
        enrolment.forget()
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: factor_page(problem=shown, confirming=True))
    return forms.private(render_template("recovery_codes.html", section="account", codes=list(codes)))


@pages.post("/account/second-factor/recovery-codes")
def new_recovery_codes() -> Response:
    """Replace the recovery codes, and show the new ones once."""
    try:
        codes = factors.recovery_codes(forms.read(fields.CODE)["code"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: factor_page(problem=shown))
    return forms.private(render_template("recovery_codes.html", section="account", codes=list(codes)))


@pages.post("/account/second-factor/disable")
def disable() -> Response:
    """Disable the second factor."""
    try:
        factors.disable(forms.read(fields.CODE)["code"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: factor_page(problem=shown))
    return redirect("/account?done=factor-off", 303)


def sign_in_page(problem: Problem | None = None) -> str:
    """Render the sign-in form for name and password or a passkey."""
    settings = current_request.services().settings
    return render_template(
        "sign_in.html",
        reason=_why_ended(request.args.get("reason", "")),
        username=forms.retyped("username")[:64],
        next_path=_next_path(),
        provider=provider.provider_name(),
        at_provider=request.args.get("done") == "signed-out-here",
        demo_people=stored_content.people() if settings.demo else (),
        demo_password=settings.demo_password,
        **forms.problem_context(problem),
    )


def _why_ended(reason: str) -> str | None:
    code = _REASONS.get(reason)
    return describe(Problem(code), language=current_request.language())["detail"] if code else None


def _next_path() -> str:
    asked = forms.safe_next(forms.retyped("next") or request.args.get("next", "/"))
    # A link cannot submit a form again, but it can open the form.
    return forms.came_from() if asked == "/" and "reason" in request.args else asked


def _code_page(problem: Problem | None = None) -> str:
    return render_template("sign_in_code.html", next_path=_next_path(), **forms.problem_context(problem))


def _confirm_page(problem: Problem | None = None) -> str:
    return render_template(
        "confirm.html",
        section="account",
        factor=factors.status(),
        next_path=_next_path(),
        provider=provider.provider_name() if provider.began_session() else "",
        with_password=current_request.services().settings.oidc_passwords,
        **forms.problem_context(problem),
    )


def _password_page(problem: Problem | None = None) -> str:
    return render_template("password.html", section="account", **forms.problem_context(problem))


def _asked_to_confirm(problem: Problem, onward: str) -> Response:
    """Redirect browsers to re-authentication and back; raise the problem for API clients."""
    if problem.code != "confirmation-required" or current_request.wants_json():
        raise problem
    return redirect(f"/account/confirm?{urlencode({'next': onward})}", 303)


def factor_page(*, problem: Problem | None = None, confirming: bool = False) -> str:
    """Render the second-factor page: authenticator app, recovery codes, passkeys."""
    factor = factors.status()
    if factor is None:
        raise Problem("unavailable")
    begun = enrolment.kept() if factor.pending else None
    return render_template(
        "second_factor.html",
        section="account",
        factor=factor,
        passkeys=passkeys.own_passkeys(),
        enrolment=begun,
        confirming=confirming or (factor.pending and begun is None),
        **forms.problem_context(problem),
    )


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
