"""Report pages: request, status, cancellation, download with an expiring link."""

from __future__ import annotations

import secrets
from datetime import date
from io import BytesIO

from flask import Blueprint, Response, render_template, send_file

from knowledge_system.background.report_task import DAYS_KEPT, FORMATS
from knowledge_system.domain import fields, translations
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.services import reports
from knowledge_system.services.reports import Link
from knowledge_system.web import article_changes, current_request, forms
from mks_hardening.tasks import TaskStatus

pages = Blueprint("reports", __name__, url_prefix="/reports")

_LINK_SECONDS = 600
_NOTHING = {"kind": "monthly", "subject": "", "format": "pdf"}


def _page(problem: Problem | None = None) -> str:
    actor, background = current_request.actor(), current_request.background()
    with current_request.services().reads() as session:
        ready = reports.kept(session, owner_id=actor.id, now=current_request.now())
        months = reports.months(session, actor, now=current_request.now())
        sites = reports.sites(session, actor)
    return forms.render(
        "reports.html",
        problem,
        section="reports",
        listed=background.reports_of(actor),
        ready=ready,
        values={name: forms.retyped(name) or value for name, value in _NOTHING.items()},
        months=[(month, _month(month)) for month in months],
        sites=sites,
        formats=[(name, label) for name, (label, *_) in FORMATS.items()],
        key=secrets.token_urlsafe(16),
        days_kept=DAYS_KEPT,
    )


def _month(month: str) -> str:
    return translations.written(date.fromisoformat(f"{month}-01"), "month", current_request.language())


@pages.get("")
def listing() -> str:
    """Show the user's reports, and a form to request one."""
    return _page()


@pages.post("")
@forms.form(fields.REPORT, page=_page)
def asking(**values: str) -> str:
    """Request a report, which is written in the background."""
    return f"/reports/{article_changes.request_report(values)}"


@pages.get("/<report_id>")
def following(report_id: str) -> str:
    """Show the progress of a report, and the download link when it is finished."""
    actor, status = _mine(report_id)
    with current_request.services().reads() as session:
        report = reports.find(session, report_id, owner_id=actor.id, now=current_request.now())
    return render_template(
        "report.html",
        section="reports",
        status=status,
        report=report,
        link=_link(report_id, actor) if report else "",
        link_minutes=_LINK_SECONDS // 60,
    )


@pages.post("/<report_id>/cancel")
@forms.form({})
def cancelling(*, report_id: str) -> str:
    """Cancel a report."""
    _mine(report_id)
    current_request.background().tasks.cancel(report_id)
    return f"/reports/{report_id}?done=cancelled"


@pages.get("/<report_id>/file")
def downloading(report_id: str) -> Response:
    """Send the file to its owner, if the link has a valid signature and has not expired."""
    actor, _ = _mine(report_id)
    asked = forms.query_values(fields.REPORT_LINK, strict=True)
    link = Link(report_id, actor.id, asked["until"])
    if not link.is_signed(current_request.services().link_keys, asked["signature"]):
        raise Problem("not-found")
    if link.until < current_request.now().timestamp():
        raise Problem("link-expired")
    with current_request.services().reads() as session:
        report = reports.find(session, report_id, owner_id=actor.id, now=current_request.now())
        if report is None:
            raise Problem("not-found")
        content = reports.content_of(session, report_id)
    response = send_file(
        BytesIO(content),
        mimetype=report.content_type,
        as_attachment=True,
        download_name=report.file_name,
        etag=False,
        max_age=0,
    )
    response.headers["Cache-Control"] = "no-store"
    response.headers.pop("Expires", None)
    return response


def _mine(report_id: str) -> tuple[Actor, TaskStatus]:
    """Return user and task; another user's task is reported as not found."""
    actor = current_request.actor()
    status = current_request.background().report_of(actor, report_id)
    if status is None:
        raise Problem("not-found")
    return actor, status


def _link(report_id: str, actor: Actor) -> str:
    until = int(current_request.now().timestamp()) + _LINK_SECONDS
    signed = reports.signature(current_request.services().link_keys[0], Link(report_id, actor.id, until))
    return f"/reports/{report_id}/file?until={until}&signature={signed}"
