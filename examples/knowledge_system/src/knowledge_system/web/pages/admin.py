"""Administrator pages: accounts and the audit log."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, render_template
from flask import Response as FlaskResponse
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from knowledge_system.domain import fields, labels, permissions
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.services import audit, audit_export, audit_heads
from knowledge_system.services.identity import accounts
from knowledge_system.web import article_changes, current_request, forms
from knowledge_system.web.pages.account import sessions_of
from knowledge_system.web.sign_in import credentials, provider

pages = Blueprint("admin", __name__, url_prefix="/admin")

_EMPTY = {"username": "", "display_name": "", "department": "", "role": "viewer", "email": ""}
_NOBODY = {"owner": "", "help": "unlock", "reason": ""}


def _account_page(username: str, problem: Problem | None = None) -> str:
    with current_request.services().reads() as session:
        found = accounts.member(session, username)
        owner = str(accounts.id_of(session, username))
    settings = current_request.services().settings
    kept = settings.oidc_passwords or not found.linked or username in settings.oidc_emergency_accounts
    return forms.render(
        "account_admin.html",
        problem,
        section="admin",
        account=found,
        by_password=found.has_password and kept,
        provider=provider.provider_name(),
        sessions=sessions_of(owner),
        programs=len(current_request.services().tokens.families(owner)),
    )


def _page(problem: Problem | None = None) -> str:
    asked = forms.query_values(fields.ACCOUNT_LIST)
    with current_request.services().reads() as session:
        listed, following = accounts.members(session, query=asked["q"], after=asked["after"] or None)
    return forms.render(
        "accounts.html",
        problem,
        section="admin",
        accounts=listed,
        query=asked["q"],
        following=following,
        values={name: forms.retyped(name) or value for name, value in _EMPTY.items()},
        helped={
            name: forms.retyped(name) or value for name, value in {**_NOBODY, "owner": asked["owner"]}.items()
        },
        refused="help" if forms.retyped("help") else "account",
    )


@pages.get("/accounts")
def listing() -> str:
    """Show accounts by pages, a form to add one, and a form to unlock one, which a link may preselect."""
    return _page()


@pages.post("/accounts")
@forms.form(fields.ACCOUNT, page=_page, run_once=True)
def adding(**values: Any) -> str:
    """Add a user."""
    article_changes.register(values)
    return "/admin/accounts?done=registered"


@pages.get("/accounts/<username>")
def account(username: str) -> Response:
    """Show one account."""
    return forms.private(_account_page(username))


@pages.post("/accounts/<username>")
@forms.form(fields.ACCOUNT_CHANGE, page=_account_page, run_once=True)
def changing(*, username: str, **values: Any) -> str:
    """Change role, address and other fields, or deactivate the account."""
    article_changes.change_account(username, values)
    return f"/admin/accounts/{username}?done=account-changed"


@pages.post("/accounts/<username>/invite")
@forms.form({}, page=_account_page)
def inviting(*, username: str) -> str:
    """Send another mail with the link to choose a password."""
    with current_request.services().reads() as session:
        found = accounts.member(session, username)
    credentials.invite(found.username)
    return f"/admin/accounts/{username}?done=invited"


@pages.post("/accounts/<username>/unlink")
@forms.form({})
def unlinking(*, username: str) -> str:
    """Remove the link of an account to the identity provider."""
    article_changes.unlink_account(username)
    return f"/admin/accounts/{username}?done=account-unlinked"


@pages.post("/accounts/<username>/sessions/end")
@forms.form(fields.ANY_SESSION)
def ending(*, username: str, session: str) -> str:
    """End one session of a user, or all sessions and API tokens."""
    services = current_request.services()
    with services.reads() as database_session:
        accounts.member(database_session, username)  # 404 if there is no such user
        owner = str(accounts.id_of(database_session, username))
    manager = services.session_manager
    if not session:
        services.end_sessions(owner)
    elif manager is None or session not in {item.key for item in manager.sessions(owner)}:
        raise Problem("not-found")
    else:
        manager.end(session)
    services.trail.note(
        "session.end", owner, actor=str(current_request.actor().id), which="one" if session else "every one"
    )
    return f"/admin/accounts/{username}?done=sessions-ended"


@pages.post("/second-factor")
@forms.form(fields.FACTOR_HELP, page=_page)
def helping(*, owner: str, reason: str, **values: str) -> str:
    """Unlock an account, or remove its second factor; the administrator verifies by other means who it is."""
    services, actor = current_request.services(), current_request.actor().username
    with services.reads() as session:
        user_id = accounts.id_of(session, owner)
    current_request.enabled(services.two_factor)
    unlocks = values["help"] == "unlock"
    change = services.sign_in.unlock if unlocks else services.sign_in.admin_reset
    change(str(user_id), actor=actor, reason=reason)
    return f"/admin/accounts?done={'factor-unlocked' if unlocks else 'factor-reset'}"


@pages.get("/audit")
def audited() -> str:
    """Show the audit log with search and paging; verify its chain on request."""
    asked = forms.query_values(fields.AUDIT)
    with current_request.services().reads() as session:
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
@forms.form(fields.AUDIT_EXPORT)
def exporting(**asked: str) -> Response:
    """Download the entries of a period; the export is an entry itself, with the newest one before it."""
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
