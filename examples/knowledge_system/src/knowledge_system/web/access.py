"""Access control by endpoint: one table for all pages and API routes; anything not listed is denied.

It is checked before every view. Whether a user may see or change a particular article is checked again where the
article is read (``domain/permissions.py``), so that a new route cannot bypass these rules.
"""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlencode

from flask import Flask, redirect, request
from werkzeug.wrappers import Response

from knowledge_system.domain import permissions
from knowledge_system.domain.problems import Problem
from knowledge_system.web import current_request
from knowledge_system.web.sign_in import factors

Who = Literal["anybody", "members", "writers", "reviewers", "administrators", "own table"]

POLICY: Final[dict[str, Who]] = {
    "static": "anybody",
    # Sign-in, and the targets of mailed links.
    "account.sign_in_form": "anybody",
    "account.sign_in": "anybody",
    "account.code_form": "anybody",
    "account.code": "anybody",
    "account.sign_out": "anybody",
    "language": "anybody",
    "mailed.forgotten_form": "anybody",
    "mailed.forgotten": "anybody",
    "mailed.reset_form": "anybody",
    "mailed.reset": "anybody",
    "mailed.stop_form": "anybody",
    "mailed.stop": "anybody",
    "mailed.confirm_form": "anybody",
    "mailed.confirm": "anybody",
    "passkeys.code_options": "anybody",
    "passkeys.sign_in_options": "anybody",
    "passkeys.signing_in": "anybody",
    "provider": "anybody",
    # Cached by browsers for offline use; contains no personal data.
    "offline.manifest": "anybody",
    "offline.worker": "anybody",
    "offline.shelf": "anybody",
    # Whole blueprints, except the views listed separately.
    "account": "members",
    "mailed": "members",
    "passkeys": "members",
    "articles": "members",
    "articles.blank": "writers",
    "articles.creating": "writers",
    "attachments": "members",
    "exchange": "members",
    "exchange.form": "reviewers",
    "exchange.importing": "reviewers",
    "following": "members",
    "handbook": "members",
    "offline": "members",
    "tree": "members",
    "readers": "writers",
    "reports": "members",
    "review": "members",
    "review.overdue": "writers",
    "admin": "administrators",
    "people": "administrators",
    "caches": "administrators",
    "operations": "administrators",
    "task_admin": "administrators",
    "demo": "administrators",
    # API: each row of ``api/route_table.py`` has its own setting, because the token is checked first.
    "api": "own table",
}
"""Required role by endpoint, or by blueprint."""

BEFORE_FACTOR: Final = frozenset(
    {
        *("account", "mailed", "passkeys", "provider"),
        *(f"api.auth.{name}" for name in ("login", "verify", "renew", "logout", "me", "session", "refresh")),
        *(f"api.auth.{name}" for name in ("confirm", "setup", "enable", "disable", "change_password")),
        *("api.auth.request_reset", "api.auth.reset_password", "api.sessions.listing", "api.sessions.ending"),
    }
)
"""Endpoints available to users whose role requires a second factor that is not set up: their own account only."""


def install(app: Flask) -> None:
    """Check the table before every view, after the bearer token was read."""
    app.before_request(_check)


def required_role(endpoint: str) -> Who | None:
    """Return who may call an endpoint; ``None`` means nobody."""
    return POLICY.get(endpoint) or POLICY.get(endpoint.partition(".")[0])


def _check() -> Response | None:
    endpoint = request.endpoint
    if endpoint is None:  # no such page: handled as 404
        return None
    who = required_role(endpoint)
    if who is None:
        raise Problem("forbidden")
    if who == "anybody":
        return None
    if who != "own table":
        _check_role(who)
    return _ask_for_factor()


def _check_role(who: Who) -> None:
    actor = current_request.actor()
    allowed = {
        "members": True,
        "writers": permissions.may_write(actor),
        "reviewers": permissions.sees_all(actor),
        "administrators": permissions.may_administer(actor),
    }
    if not allowed[who]:
        raise Problem("forbidden")


def _ask_for_factor() -> Response | None:
    """Redirect users to the second-factor page if their role requires one and they have none."""
    actor = current_request.actor_or_none()
    endpoint = request.endpoint or ""
    if actor is None or not BEFORE_FACTOR.isdisjoint({endpoint, endpoint.partition(".")[0]}):
        return None
    if not factors.lacks_factor(actor):
        return None
    if current_request.wants_json() or request.method != "GET":
        raise Problem("second-factor-required")
    return redirect(f"/account/second-factor?{urlencode({'required': '1'})}", 303)
