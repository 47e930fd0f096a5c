"""Pages for password reset, invitation, change of the mail address and the end of mails, which use mailed links."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.services.knowledge import digests
from knowledge_system.web import current_request, forms
from knowledge_system.web.sign_in import credentials

pages = Blueprint("mailed", __name__)


def _token() -> str:
    return (forms.retyped("token") or request.args.get("token", ""))[:256]


def _forgotten_page(problem: Problem | None = None) -> str:
    return forms.render("password_forgotten.html", problem, username=forms.retyped("username")[:64])


def _reset_page(problem: Problem | None = None) -> str:
    return forms.render("password_reset.html", problem, token=_token())


def _email_page(problem: Problem | None = None) -> str:
    return forms.render("email.html", problem, section="account", email=forms.retyped("email")[:254])


def _confirm_page(problem: Problem | None = None) -> str:
    token = "" if problem else _token()
    return forms.render("email_confirm.html", problem, token=token)


@pages.get("/password/forgotten")
def forgotten_form() -> Response:
    """Show the form to request a password reset."""
    return forms.private(_forgotten_page())


@pages.post("/password/forgotten")
@forms.form(fields.FORGOTTEN, page=_forgotten_page)
def forgotten(*, username: str) -> str:
    """Mail a link if the account exists; the response is the same if it does not."""
    credentials.request_reset(username)
    return "/sign-in?done=reset-mailed"


@pages.get("/password/reset")
def reset_form() -> Response:
    """Show the form for a new password; opening it does not use up the token, as mail scanners open links."""
    return forms.private(_reset_page())


@pages.post("/password/reset")
@forms.form(fields.RESET_FORM, page=_reset_page)
def reset(*, token: str, new_password: str) -> str:
    """Set the password; all existing sessions end."""
    credentials.reset_password(token, new_password, refused="link-refused")
    return "/sign-in?done=password-set"


@pages.get("/account/email")
def email_form() -> Response:
    """Show the form for a new mail address."""
    return forms.private(_email_page())


@pages.post("/account/email")
@forms.form(fields.EMAIL, page=_email_page, confirm_at="/account/email")
def email(*, email: str) -> str:
    """Mail a link to the new address."""
    credentials.request_email_change(email)
    return "/account?done=email-mailed"


@pages.get("/account/email/confirm")
def confirm_form() -> Response:
    """Show a confirmation button: opening the link alone changes nothing."""
    return forms.private(_confirm_page())


@pages.post("/account/email/confirm")
@forms.form(fields.TOKEN, page=_confirm_page)
def confirm(*, token: str) -> str:
    """Confirm the new address."""
    credentials.confirm_email(token)
    return "/account?done=email-changed"


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
