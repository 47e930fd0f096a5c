"""Administrator pages: accounts and the audit log."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, redirect, render_template
from flask import Response as FlaskResponse
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from knowledge_system.domain import fields, labels, permissions
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.services import audit, audit_export, audit_heads
from knowledge_system.services.identity import accounts, factor_administration
from knowledge_system.web import article_changes, current_request, forms
from knowledge_system.web.pages.account import sessions_of
from knowledge_system.web.sign_in import credentials, provider

pages = Blueprint("admin", __name__, url_prefix="/admin")

_EMPTY = {"username": "", "display_name": "", "department": "", "role": "viewer", "email": ""}
_NOBODY = {"owner": "", "help": "unlock", "reason": ""}


@pages.get("/accounts")
def listing() -> str:
    """Show accounts by pages, a form to add one, and a form to unlock one, which a link may preselect."""
    owner = forms.query_values(fields.ACCOUNT_LIST)["owner"]
    return _page(_EMPTY, helped={**_NOBODY, "owner": owner})


@pages.post("/accounts")
def adding() -> Response:
    """Add a user."""
    return forms.submitted(
        fields.ACCOUNT,
        _registered,
        lambda shown: _page({name: forms.retyped(name) for name in _EMPTY}, shown),
    )


def _registered(values: dict[str, Any]) -> str:
    article_changes.register(values)
    return "/admin/accounts?done=registered"


@pages.get("/accounts/<username>")
def account(username: str) -> Response:
    """Show one account."""
    return forms.private(_account_page(username))


@pages.post("/accounts/<username>")
def changing(username: str) -> Response:
    """Change role, address and other fields, or deactivate the account."""
    return forms.submitted(
        fields.ACCOUNT_CHANGE,
        lambda values: _changed(username, values),
        lambda shown: _account_page(username, shown),
    )


def _changed(username: str, values: dict[str, Any]) -> str:
    article_changes.change_account(username, values)
    return f"/admin/accounts/{username}?done=account-changed"


@pages.post("/accounts/<username>/invite")
def inviting(username: str) -> Response:
    """Send another mail with the link to choose a password."""
    forms.read({})
    with current_request.services().sessions() as session:
        found = accounts.member(session, username)
    try:
        credentials.invite(found.username)
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: _account_page(username, shown))
    return redirect(f"/admin/accounts/{username}?done=invited", 303)


@pages.post("/accounts/<username>/unlink")
def unlinking(username: str) -> Response:
    """Remove the link of an account to the identity provider."""
    forms.read({})
    article_changes.unlink_account(username)
    return redirect(f"/admin/accounts/{username}?done=account-unlinked", 303)


@pages.post("/accounts/<username>/sessions/end")
def ending(username: str) -> Response:
    """End one session of a user, or all sessions and API tokens."""
    wanted = forms.read(fields.ANY_SESSION)["session"]
    services = current_request.services()
    with services.sessions() as session:
        accounts.member(session, username)  # 404 if there is no such user
        owner = str(accounts.id_of(session, username))
    manager = services.session_manager
    if not wanted:
        services.end_sessions(owner)
    elif manager is None or wanted not in {item.key for item in manager.sessions(owner)}:
        raise Problem("not-found")
    else:
        manager.end(wanted)
    services.trail.note(
        "session.end", owner, actor=str(current_request.actor().id), which="one" if wanted else "every one"
    )
    return redirect(f"/admin/accounts/{username}?done=sessions-ended", 303)


@pages.post("/second-factor")
def helping() -> Response:
    """Unlock an account, or remove its second factor."""
    services, actor = current_request.services(), current_request.actor().username
    try:
        values = forms.read(fields.FACTOR_HELP)
        with services.sessions() as session:
            owner = accounts.id_of(session, values["owner"])
        if values["help"] == "unlock":
            factor_administration.unlock(
                services.sign_in, services.two_factor, owner, actor=actor, reason=values["reason"]
            )
            return redirect("/admin/accounts?done=factor-unlocked", 303)
        factor_administration.reset(
            services.sign_in, services.two_factor, owner, actor=actor, reason=values["reason"]
        )
    except Problem as problem:
        return forms.shown_again(
            problem,
            lambda shown: _page(_EMPTY, shown, helped={name: forms.retyped(name) for name in _NOBODY}),
        )
    return redirect("/admin/accounts?done=factor-reset", 303)


@pages.get("/audit")
def audited() -> str:
    """Show the audit log with search and paging; verify its chain on request."""
    asked = forms.query_values(fields.AUDIT)
    with current_request.services().sessions() as session:
        found = audit.entries(session, query=asked["q"], before=asked["before"] or None, codes=_codes_of)
        broken, missing = _verified(session) if asked["verify"] else (None, None)
    return render_template(
        "audit.html",
        section="admin",
        entries=[_shown(entry) for entry in found],
        asked=asked,
        verified=bool(asked["verify"]),
        broken=broken,
        missing=missing,
    )


@pages.post("/audit/export")
def exporting() -> Response:
    """Download the entries of a period; the export is an entry itself, with the newest one before it."""
    asked = forms.read(fields.AUDIT_EXPORT)
    services = current_request.services()
    head = article_changes.record_audit_export(asked)
    since, until = (_midnight(asked[name]) for name in ("since", "until"))
    rows = audit_export.exported(
        services.sessions, since=since, until=until and until + timedelta(days=1), last=head.id
    )
    wanted = asked["format"]
    body = audit_export.as_csv(rows) if wanted == "csv" else audit_export.as_json_lines(rows)
    response = FlaskResponse(body, mimetype="text/csv" if wanted == "csv" else "application/jsonl")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Disposition"] = f'attachment; filename="audit-to-{head.id}.{wanted}"'
    return response


def _midnight(day: str) -> datetime | None:
    """Return the start of a day in Japan.

    Raises:
        Problem: ``invalid`` for a day that does not exist.
    """
    if not day:
        return None
    try:
        return datetime.fromisoformat(day).replace(tzinfo=permissions.JST)
    except ValueError as error:
        raise Problem("invalid", errors=[FieldError("since", "pattern")]) from error


def _codes_of(word: str) -> list[str]:
    """Return the stored codes that a word of a search may stand for."""
    say = current_request.say
    kinds = [code for code, label in (("article ", "記事"), ("user ", "利用者")) if word == say(label)]
    return [*labels.action_codes(word, say), *kinds]


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry in words of the language of the request."""
    say = current_request.say
    about, path = labels.subject_label(entry["subject"], say)
    label = labels.ACTIONS.get(entry["action"])
    return {
        **entry,
        "label": say(label) if label else entry["action"],
        "about": about,
        "path": path,
        "details": list(labels.described_detail(entry["detail"], say)),
    }


def _verified(session: Session) -> tuple[int | None, int | None]:
    """Return the ids of the first entry that breaks the chain and of the first stored head that is missing."""
    file = current_request.services().settings.audit_heads
    missing = audit_heads.first_missing(session, file) if file else None
    return audit.first_broken_entry(session), missing.id if missing else None


def _account_page(username: str, problem: Problem | None = None) -> str:
    with current_request.services().sessions() as session:
        found = accounts.member(session, username)
        owner = str(accounts.id_of(session, username))
    settings = current_request.services().settings
    kept = settings.oidc_passwords or not found.linked or username in settings.oidc_emergency_accounts
    return render_template(
        "account_admin.html",
        section="admin",
        account=found,
        by_password=found.has_password and kept,
        provider=provider.provider_name(),
        sessions=sessions_of(owner),
        programs=len(current_request.services().tokens.families(owner)),
        **forms.problem_context(problem),
    )


def _page(
    values: dict[str, str], problem: Problem | None = None, *, helped: dict[str, str] | None = None
) -> str:
    asked = forms.query_values(fields.ACCOUNT_LIST)
    with current_request.services().sessions() as session:
        listed, following = accounts.members(session, query=asked["q"], after=asked["after"] or None)
    return render_template(
        "accounts.html",
        section="admin",
        accounts=listed,
        query=asked["q"],
        following=following,
        values=values,
        helped=helped or _NOBODY,
        refused="help" if helped and problem else "account",
        **forms.problem_context(problem),
    )
