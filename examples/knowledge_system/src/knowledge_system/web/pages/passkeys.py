"""Passkeys: registration, removal, and use instead of a code or of name and password.

``static/passkeys.js`` requests the options, passes them to the browser, and submits its response with the form.
"""

from __future__ import annotations

from flask import Blueprint, Response, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.web import forms
from knowledge_system.web.pages import account
from knowledge_system.web.sign_in import passkeys, sign_in_steps
from mks_hardening.security import PasskeyOptions

pages = Blueprint("passkeys", __name__)


@pages.post("/account/passkeys/options")
def new_options() -> Response:
    """Return the options to create a passkey."""
    return _answer(passkeys.ask_for_new_passkey(forms.read(fields.PASSKEY_PROOF, ignore=("name",))["code"]))


@pages.post("/account/passkeys/proof")
def own_options() -> Response:
    """Return the options for a signed-in user to use a passkey instead of a code."""
    forms.read({}, ignore=("next", "proof", "code"))
    return _answer(passkeys.ask_for_own_passkey())


@pages.post("/account/passkeys")
def adding() -> AnyResponse:
    """Store a passkey; recovery codes are shown once, if it is the first factor."""
    try:
        values = forms.read(fields.PASSKEY, ignore=("code",))
        codes = passkeys.add_passkey(values["answer"], name=values["name"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: account.factor_page(problem=shown))
    if codes is None:
        return redirect("/account/second-factor?done=passkey-added", 303)
    return forms.private(render_template("recovery_codes.html", section="account", codes=list(codes)))


@pages.post("/account/passkeys/remove")
def removing() -> AnyResponse:
    """Remove a passkey; requires a code."""
    try:
        values = forms.read(fields.PASSKEY_REMOVAL)
        passkeys.remove_passkey(values["passkey"], values["code"])
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: account.factor_page(problem=shown))
    return redirect("/account/second-factor?done=passkey-removed", 303)


@pages.post("/sign-in/code/passkey")
def code_options() -> Response:
    """Return the options to use a passkey instead of a code at sign-in."""
    forms.read({}, ignore=("next",))
    return _answer(passkeys.ask_for_passkey())


@pages.post("/sign-in/passkey/options")
def sign_in_options() -> Response:
    """Return the options to use a passkey instead of name and password."""
    forms.read({}, ignore=("next",))
    return _answer(passkeys.ask_for_passkey_alone())


@pages.post("/sign-in/passkey")
def signing_in() -> AnyResponse:
    """Sign in with the passkey response."""
    try:
        sign_in_steps.begin_with_passkey(forms.read(fields.PASSKEY_SIGN_IN, ignore=("next",))["answer"])
    except Problem as problem:
        return forms.shown_again(problem, account.sign_in_page)
    return redirect(forms.safe_next(forms.retyped("next")), 303)


def _answer(options: PasskeyOptions) -> Response:
    response = Response(options.json, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
