"""Access control by endpoint: one table for all pages and API routes; anything not listed is denied.

It is checked before every view. Whether a user may see or change a particular article is checked again where the
article is read (``domain/permissions.py``), so that a new route cannot bypass these rules. A second table has the
rate limits of forms.
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

_ALLOWED: Final[dict[Who, tuple[str, ...]]] = {
    "anybody": (
        "static",
        "language",
        "account.sign_in_form",
        "account.sign_in",
        "account.code_form",
        "account.code",
        "account.sign_out",
        "passkeys.code_options",
        "passkeys.sign_in_options",
        "passkeys.signing_in",
        "provider",
        # Targets of mailed links.
        "mailed.forgotten_form",
        "mailed.forgotten",
        "mailed.reset_form",
        "mailed.reset",
        "mailed.stop_form",
        "mailed.stop",
        "mailed.confirm_form",
        "mailed.confirm",
        # Cached by browsers for offline use; contains no personal data.
        "offline.manifest",
        "offline.worker",
        "offline.shelf",
    ),
    "members": (
        "account",
        "mailed",
        "passkeys",
        "articles",
        "attachments",
        "exchange",
        "following",
        "handbook",
        "offline",
        "tree",
        "reports",
        "review",
    ),
    "writers": ("articles.blank", "articles.creating", "readers", "review.overdue"),
    "reviewers": ("exchange.form", "exchange.importing"),
    "administrators": ("admin", "people", "caches", "operations", "task_admin", "demo"),
    # API: each row of ``api/route_table.py`` has its own setting, because the token is checked first.
    "own table": ("api",),
}
_POLICY: Final = {name: who for who, names in _ALLOWED.items() for name in names}
"""Required role by endpoint, or by blueprint; a blueprint stands for its endpoints that are not listed."""

_LIMITS: Final = {
    **dict.fromkeys(("admin", "people", "caches", "task_admin"), "admin"),
    **dict.fromkeys(("attachments", "following", "readers", "tree"), "api_write"),
    **dict.fromkeys(("account.choosing_mails", "reports.asking"), "api_write"),
    **dict.fromkeys(("review.stepping", "review.restoring"), "api_write"),
    **dict.fromkeys(("attachments.adding", "exchange.importing", "people.checking"), "file_upload"),
    "admin.adding": "auth_register",
    "passkeys.removing": "auth_2fa_verify",
}
"""Group of rate limits against which a submitted form counts, by endpoint, or by blueprint.

Sign-in, and forms that are shown again when a limit is reached, count for themselves.
"""

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
    return _POLICY.get(endpoint) or _POLICY.get(endpoint.partition(".")[0])


def limit_group(endpoint: str) -> str | None:
    """Return the rate limits against which a form counts before its view; ``None`` without any."""
    return _LIMITS.get(endpoint) or _LIMITS.get(endpoint.partition(".")[0])


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
    if asked := _ask_for_factor():
        return asked
    if request.method == "POST" and (group := limit_group(endpoint)):
        current_request.check_limit(group)
    return None


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
