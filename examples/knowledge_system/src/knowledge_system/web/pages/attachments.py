"""Attachment pages: upload, download, removal."""

from __future__ import annotations

from flask import Blueprint, Response, redirect
from werkzeug.wrappers import Response as AnyResponse

from knowledge_system.domain.problems import Problem
from knowledge_system.services.attachments import article_attachments
from knowledge_system.web import article_changes, current_request, forms
from knowledge_system.web.files.downloads import sent
from knowledge_system.web.files.uploads import digest, received
from knowledge_system.web.pages.articles import form_page

pages = Blueprint("attachments", __name__)

_AT_ONCE = 30


@pages.post("/articles/<int:article_id>/attachments")
def adding(article_id: int) -> AnyResponse:
    """Attach files, all or none."""
    try:
        with current_request.services().reads() as session:  # before the files are read
            article_attachments.check_can_attach(session, current_request.actor(), article_id)
        files = received(most=_AT_ONCE)
        place = forms.once(lambda: _attached(article_id, files), content=digest(files))
    except Problem as problem:
        return forms.shown_again(problem, lambda shown: form_page(article_id, shown))
    return redirect(place, 303)


def _attached(article_id: int, files: list[tuple[str, bytes]]) -> str:
    article_changes.attach(article_id, lambda: files)
    return f"/articles/{article_id}/edit?done=attached#attachments-title"


@pages.post("/articles/<int:article_id>/attachments/<int:attachment_id>/delete")
@forms.form({}, run_once=True)
def removing(*, article_id: int, attachment_id: int) -> str:
    """Remove a file."""
    article_changes.detach(article_id, attachment_id)
    return f"/articles/{article_id}/edit?done=detached#attachments-title"


@pages.get("/files/<int:attachment_id>")
def file(attachment_id: int) -> Response:
    """Send a file to users who may see its article."""
    return _sent(attachment_id)


@pages.get("/files/<int:attachment_id>/small")
def thumbnail(attachment_id: int) -> Response:
    """Send the thumbnail of a file."""
    return _sent(attachment_id, small=True)


def _sent(attachment_id: int, *, small: bool = False) -> Response:
    with current_request.services().reads() as session:
        found = article_attachments.find(session, current_request.actor(), attachment_id)
    return sent(found, small=small)
