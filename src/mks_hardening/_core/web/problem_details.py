"""Problem documents (RFC 9457), and detection of clients that prefer text."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

__all__ = ["PROBLEM_TYPE", "prefers_text", "problem_document"]

PROBLEM_TYPE: Final = "application/problem+json"


def problem_document(status: int, detail: str, **members: object) -> str:
    """Return the document as JSON text.

    Args:
        status: status code of the response.
        detail: one sentence for the client.
        members: further members.
    """
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Refused"
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, **members})


def prefers_text(accept: str) -> bool:
    """Return whether an ``Accept`` field asks for HTML or text rather than JSON."""
    # Browsers send about 150 characters.
    accept = accept[:1000].lower()
    return "text/" in accept and "json" not in accept
