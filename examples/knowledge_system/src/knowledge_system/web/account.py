"""Pages about oneself: signing in and out, sessions, the second factor."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import Blueprint, make_response, redirect, render_template, request

from knowledge_system import fields
from knowledge_system.problems import Problem, describe
from knowledge_system.services import content
from knowledge_system.web import forms, here, signing

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

__all__ = ["pages"]

pages = Blueprint("account", __name__)

_REASONS = {"idle": "session-idle", "absolute": "session-absolute", "revoked": "session-revoked"}


@pages.get("/sign-in")
def sign_in_form() -> Any:
    """The sign-in page; says why the last session ended."""
    if here.actor_or_none():
        return redirect(forms.safe_next(request.args.get("next", "/")), 303)
    return _no_store(_sign_in_page())


@pages.post("/sign-in")
def sign_in() -> Response:
    """Check name and password."""
    try:
        values = forms.read(fields.SIGN_IN, ignore=("next",))
        complete = signing.begin(values["username"], values["password"])
    except Problem as problem:
        return forms.shown_again(problem, _sign_in_page)
    onward = forms.safe_next(forms.retyped("next"))
    return redirect(onward if complete else f"/sign-in/code?{urlencode({'next': onward})}", 303)


@pages.get("/sign-in/code")
def code_form() -> Any:
    """The page that asks for the code."""
    if signing.pending_user_id() is None:
        return redirect("/sign-in", 303)
    return _no_store(_code_page())


@pages.post("/sign-in/code")
def code() -> Response:
    """Check the code."""
    if signing.pending_user_id() is None:
        return redirect("/sign-in", 303)
    try:
        signing.finish(forms.read(fields.CODE, ignore=("next",))["code"])
    except Problem as problem:
        return forms.shown_again(problem, _code_page)
    return redirect(forms.safe_next(forms.retyped("next")), 303)


@pages.post("/sign-out")
def sign_out() -> Response:
    """End the session."""
    forms.read({})
    signing.sign_out()
    return redirect("/sign-in?done=signed-out", 303)


@pages.post("/session/refresh")
def extend() -> Response:
    """Keep the session alive, for browsers without JavaScript."""
    here.actor()
    forms.read({}, ignore=("next",))
    here.handle().refresh()
    path = forms.safe_next(forms.retyped("next"))
    return redirect(f"{path}{'&' if '?' in path else '?'}done=extended", 303)


@pages.get("/account")
def overview() -> Response:
    """Oneself, one's sessions, the state of the second factor."""
    here.actor()
    return _no_store(
        render_template("account.html", section="account", factor=signing.status(), sessions=_sessions())
    )


@pages.post("/account/sessions/end")
def end_session() -> Response:
    """End one of one's own sessions."""
    here.actor()
    wanted = forms.read(fields.SESSION)["session"]
    manager = here.parts().session_manager
    if manager is None or wanted not in {item.key for item in manager.sessions(here.handle().user_id)}:
        raise Problem("not-found")
    manager.end(wanted)
    return redirect("/account?done=ended", 303)


@pages.post("/account/sessions/end-others")
def end_others() -> Response:
    """End all of one's own sessions but this one."""
    here.actor()
    forms.read({})
    here.handle().end_others()
    return redirect("/account?done=others-ended", 303)


@pages.get("/account/second-factor")
def second_factor() -> Response:
    """State of the second factor and what can be done."""
    here.actor()
    return _no_store(_factor_page())


@pages.post("/account/second-factor/begin")
def begin_enrolment() -> Response:
    """Show QR code and secret."""
    here.actor()
    forms.read({})
    return _no_store(_factor_page(enrolment=signing.enrol()))


@pages.post("/account/second-factor/cancel")
def cancel_enrolment() -> Response:
    """Forget an enrolment that was begun."""
    actor = here.actor()
    forms.read({})
    signing.two_factor().cancel_enrolment(str(actor.id))
    return redirect("/account/second-factor", 303)


@pages.post("/account/second-factor/confirm")
def confirm_enrolment() -> Response:
    """Turn it on and show the recovery codes, once."""
    here.actor()
    try:
        codes = signing.confirm_enrolment(forms.read(fields.CODE)["code"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _factor_page(problem=shown, confirming=True))
    return _no_store(render_template("recovery_codes.html", section="account", codes=list(codes)))


@pages.post("/account/second-factor/recovery-codes")
def new_recovery_codes() -> Response:
    """Replace the recovery codes and show the new ones, once."""
    here.actor()
    try:
        codes = signing.recovery_codes(forms.read(fields.CODE)["code"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _factor_page(problem=shown))
    return _no_store(render_template("recovery_codes.html", section="account", codes=list(codes)))


@pages.post("/account/second-factor/disable")
def disable() -> Response:
    """Turn it off."""
    here.actor()
    try:
        signing.disable(forms.read(fields.CODE)["code"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _factor_page(problem=shown))
    return redirect("/account?done=factor-off", 303)


def _sign_in_page(problem: Problem | None = None) -> str:
    settings = here.parts().settings
    return render_template(
        "sign_in.html",
        reason=_why_ended(request.args.get("reason", "")),
        username=forms.retyped("username")[:64],
        next_path=_next_path(),
        demo_people=content.people() if settings.demo else (),
        demo_password=settings.demo_password,
        **forms.told(problem),
    )


def _why_ended(reason: str) -> str | None:
    code = _REASONS.get(reason)
    return describe(Problem(code), language=here.language())["detail"] if code else None


def _next_path() -> str:
    return forms.safe_next(forms.retyped("next") or request.args.get("next", "/"))


def _code_page(problem: Problem | None = None) -> str:
    return render_template("sign_in_code.html", next_path=_next_path(), **forms.told(problem))


def _factor_page(*, enrolment: Any = None, problem: Problem | None = None, confirming: bool = False) -> str:
    factor = signing.status()
    if factor is None:
        raise Problem("unavailable")
    return render_template(
        "second_factor.html",
        section="account",
        factor=factor,
        enrolment=enrolment,
        confirming=confirming or (factor.pending and enrolment is None),
        **forms.told(problem),
    )


def _sessions() -> list[dict[str, Any]]:
    manager = here.parts().session_manager
    current = here.handle()
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
        for item in manager.sessions(current.user_id)
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
    return " / ".join(part for part in (browser, system) if part) or plain or "不明な端末"


def _no_store(body: str) -> Response:
    response = make_response(body)
    response.headers["Cache-Control"] = "no-store"
    return response
