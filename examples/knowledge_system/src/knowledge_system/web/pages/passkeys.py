"""Passkeys: registration, removal, and use instead of a code or of name and password.

``static/passkeys.js`` requests the options, passes them to the browser, and submits its response with the form.
"""

from __future__ import annotations

from flask import Blueprint, Response
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain import fields
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
@forms.form(fields.PASSKEY, page=account.factor_page, ignore=("code",))
def adding(*, answer: str, name: str) -> str | AnyResponse:
    """Store a passkey; recovery codes are shown once, if it is the first factor."""
    codes = passkeys.add_passkey(answer, name=name)
    return account.shown_once(codes) if codes else "/account/second-factor?done=passkey-added"


@pages.post("/account/passkeys/remove")
@forms.form(fields.PASSKEY_REMOVAL, page=account.factor_page)
def removing(*, passkey: str, code: str) -> str:
    """Remove a passkey; requires a code."""
    passkeys.remove_passkey(passkey, code)
    return "/account/second-factor?done=passkey-removed"


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
@forms.form(fields.PASSKEY_SIGN_IN, page=account.sign_in_page, ignore=("next",))
def signing_in(*, answer: str) -> str:
    """Sign in with the passkey response."""
    sign_in_steps.begin_with_passkey(answer)
    return forms.safe_next(forms.retyped("next"))


def _answer(options: PasskeyOptions) -> Response:
    response = Response(options.json, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
