"""Pages for password reset, invitation, change of the mail address and the end of mails, which use mailed links."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.knowledge import digests
from knowledge_system.web import current_request, forms
from knowledge_system.web.sign_in import credentials

pages = Blueprint("mailed", __name__)


@pages.get("/password/forgotten")
def forgotten_form() -> Response:
    """Show the form to request a password reset."""
    return forms.private(_forgotten_page())


@pages.post("/password/forgotten")
def forgotten() -> Response:
    """Mail a link if the account exists; the response is the same if it does not."""
    try:
        credentials.request_reset(forms.read(fields.FORGOTTEN)["username"])
    except Problem as problem:
        return forms.shown_again(problem, _forgotten_page)
    return redirect("/sign-in?done=reset-mailed", 303)


@pages.get("/password/reset")
def reset_form() -> Response:
    """Show the form for a new password; opening it does not use up the token, as mail scanners open links."""
    return forms.private(_reset_page())


@pages.post("/password/reset")
def reset() -> Response:
    """Set the password; all existing sessions end."""
    try:
        values = forms.read(fields.RESET_FORM)
        credentials.reset_password(values["token"], values["new_password"])
    except Problem as problem:
        refused = Problem("link-refused") if problem.code == "token-refused" else problem
        return forms.shown_again(refused, _reset_page)
    return redirect("/sign-in?done=password-set", 303)


@pages.get("/account/email")
def email_form() -> Response:
    """Show the form for a new mail address."""
    return forms.private(_email_page())


@pages.post("/account/email")
def email() -> Response:
    """Mail a link to the new address."""
    try:
        credentials.request_email_change(forms.read(fields.EMAIL)["email"])
    except Problem as problem:
        if problem.code == "confirmation-required" and not current_request.wants_json():
            return redirect(f"/account/confirm?{urlencode({'next': '/account/email'})}", 303)
        return forms.shown_again(problem, _email_page)
    return redirect("/account?done=email-mailed", 303)


@pages.get("/account/email/confirm")
def confirm_form() -> Response:
    """Show a confirmation button: opening the link alone changes nothing."""
    return forms.private(render_template("email_confirm.html", token=_token(), **forms.problem_context(None)))


@pages.post("/account/email/confirm")
def confirm() -> Response:
    """Confirm the new address."""
    try:
        credentials.confirm_email(forms.read(fields.TOKEN)["token"])
    except Problem as problem:
        return forms.shown_again(
            problem,
            lambda shown: render_template("email_confirm.html", token="", **forms.problem_context(shown)),
        )
    return redirect("/account?done=email-changed", 303)


@pages.get("/mails/stop")
def stop_form() -> Response:
    """Show a button that stops the mails with notices; the link alone changes nothing."""
    asked = forms.query_values(fields.MAILS_STOP)
    if not _is_signed(asked):
        return redirect("/account#mails-title", 303)
    return forms.private(render_template("mails_stop.html", asked=asked))


@pages.post("/mails/stop")
def stop() -> Response:
    """Unsubscribe the user of the link from notification mails, without a sign-in.

    A mail program sends ``List-Unsubscribe=One-Click`` to the address of the link (RFC 8058).
    """
    one_click = "List-Unsubscribe" in forms.remember()
    asked = forms.query_values(fields.MAILS_STOP) if one_click else forms.read(fields.MAILS_STOP)
    if not _is_signed(asked):
        raise Problem("link-refused")
    with current_request.services().sessions.begin() as session:
        digests.choose(session, asked["user"], "none")
    return forms.private(render_template("mails_stop.html", stopped=True))


def _is_signed(asked: dict[str, Any]) -> bool:
    return digests.is_signed(current_request.services().link_keys, asked["user"], asked["signature"])


def _token() -> str:
    return (forms.retyped("token") or request.args.get("token", ""))[:256]


def _forgotten_page(problem: Problem | None = None) -> str:
    return render_template(
        "password_forgotten.html", username=forms.retyped("username")[:64], **forms.problem_context(problem)
    )


def _reset_page(problem: Problem | None = None) -> str:
    return render_template("password_reset.html", token=_token(), **forms.problem_context(problem))


def _email_page(problem: Problem | None = None) -> str:
    return render_template(
        "email.html", section="account", email=forms.retyped("email")[:254], **forms.problem_context(problem)
    )
