"""Addresses of the sign-in at the company's identity provider."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Blueprint, redirect, request
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.web import current_request, forms
from knowledge_system.web.pages.account import sign_in_page
from knowledge_system.web.sign_in import provider

pages = Blueprint("provider", __name__, url_prefix="/sign-in/provider")


@pages.get("")
def begin() -> Response:
    """Redirect to the provider. A link, no form: ``form-action 'self'`` blocks forms that lead elsewhere."""
    onward = forms.safe_next(request.args.get("next", "/"))
    try:
        address = provider.begin(onward, confirm=request.args.get("confirm") == "1")
    except Problem as problem:
        return forms.shown_again(problem, sign_in_page)
    return _away(address)


@pages.get("/callback")
def callback() -> Response:
    """Complete the sign-in with the provider's response, or ask for the second factor."""
    try:
        complete, onward = provider.finish(forms.query_values(fields.PROVIDER_RESPONSE))
    except Problem as problem:
        if problem.code == "provider-expired" and current_request.actor_or_none():
            return _away("/")  # the page was loaded again
        return forms.shown_again(problem, sign_in_page)
    return _away(onward if complete else f"/sign-in/code?{urlencode({'next': onward})}")


@pages.get("/end-session")
def sign_out() -> Response:
    """Redirect to the provider's own sign-out (OpenID Connect RP-Initiated Logout 1.0)."""
    return _away(provider.sign_out_url() or "/sign-in")


def _away(address: str) -> Response:
    response = redirect(address, 303)
    response.headers["Cache-Control"] = "no-store"
    return response
