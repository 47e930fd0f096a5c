"""Administrator pages for many people at once: invitations from a CSV file, groups, and what leavers leave."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flask import Blueprint, render_template
from flask import Response as FlaskResponse

from knowledge_system.domain import fields, people_csv, permissions
from knowledge_system.domain.people_csv import Line
from knowledge_system.domain.problems import Problem
from knowledge_system.services import readers, retention
from knowledge_system.services.identity import accounts, groups
from knowledge_system.web import article_changes, current_request, forms
from knowledge_system.web.files.uploads import received
from knowledge_system.web.sign_in import credentials

pages = Blueprint("people", __name__, url_prefix="/admin")


def _invitations(problem: Problem | None = None, *, lines: list[Line] | None = None, text: str = "") -> str:
    return forms.render(
        "invitations.html",
        problem,
        section="admin",
        lines=lines or [],
        counts=Counter(line.state for line in lines or []),
        text=text,
        columns=people_csv.COLUMNS,
        can_invite=credentials.can_invite(),
        most=people_csv.MOST_PEOPLE,
        limit=people_csv.MOST_BYTES,
    )


def _groups(problem: Problem | None = None) -> str:
    with current_request.services().reads() as session:
        listed, approvers = groups.groups(session), groups.approvers(session)
        restricted = readers.restricted_categories(session)
    return forms.render(
        "groups.html",
        problem,
        section="admin",
        groups=listed,
        approvers=approvers,
        restricted=restricted,
        approvers_seen=groups.seen_approvers(approvers),
        typed={name: forms.retyped(name) for name in fields.GROUP},
    )


def _retention(problem: Problem | None = None) -> str:
    settings = current_request.services().settings
    with current_request.services().reads() as session:
        leavers = retention.leavers(session, kept=settings.leavers_kept)
    return forms.render("retention.html", problem, section="admin", settings=settings, leavers=leavers)


@pages.get("/invitations")
def form() -> str:
    """Show the form for the file."""
    return _invitations()


@pages.post("/invitations")
def checking() -> FlaskResponse:
    """Show what an import of the file would do, line by line; nothing is changed."""
    try:
        text = people_csv.decoded(received()[0][1])
        with current_request.services().reads() as session:
            lines = people_csv.report(text, accounts.for_import(session))
    except Problem as problem:
        return forms.shown_again(problem, _invitations)
    return forms.private(_invitations(lines=lines, text=text))


@pages.post("/invitations/send")
@forms.form(fields.INVITATIONS, page=_invitations, run_once=True)
def inviting(*, people: str, again: str) -> str:
    """Create the accounts of a checked file, all or none, and mail the invitations."""
    article_changes.import_people(people, again=again == "on")
    return "/admin/accounts?done=people-invited"


@pages.get("/groups")
def grouping() -> FlaskResponse:
    """Show the groups, and which of them approves which category."""
    return forms.private(_groups())


@pages.post("/groups")
@forms.form(fields.GROUP, page=_groups, run_once=True)
def changing_group(**values: Any) -> str:
    """Create, change or remove a group."""
    article_changes.change_group(values)
    return f"/admin/groups?done=group-{values['step']}"


@pages.get("/groups/<int:group_id>/removal")
def removing_group(group_id: int) -> FlaskResponse:
    """Show what the removal of a group affects, and a form to confirm it."""
    with current_request.services().reads() as session:
        group, approvers = groups.find(session, group_id), groups.approvers(session)
        restricted = readers.restricted_to(session, group_id)
    categories = [category for category, each in approvers.items() if each == group_id]
    context = {"group": group, "categories": categories, "restricted": restricted}
    return forms.private(render_template("group_remove.html", section="admin", **context))


@pages.post("/groups/approvers")
@forms.form(fields.GROUP_APPROVERS, page=_groups)
def choosing_approvers(*, seen: str, **chosen: int) -> str:
    """Choose the group that approves each category."""
    article_changes.set_approvers(dict(zip(permissions.CATEGORIES, chosen.values(), strict=True)), seen=seen)
    return "/admin/groups?done=approvers-chosen"


@pages.get("/retention")
def retaining() -> FlaskResponse:
    """Show how long data are kept, and what becomes of deactivated accounts."""
    return forms.private(_retention())


@pages.post("/retention/hand-over")
@forms.form(fields.HAND_OVER, page=_retention, run_once=True)
def handing_over(*, leaver: str, successor: str) -> str:
    """Give the articles of a deactivated account to another user."""
    article_changes.hand_over(leaver, successor)
    return "/admin/retention?done=handed-over"
