"""Responses sent in place of the application's when a session has ended or cannot be checked."""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Final

from mks_hardening._edge.refusal_response import FixedResponse

if TYPE_CHECKING:
    from mks_hardening.exceptions import BackendUnavailableError
    from mks_hardening.protocols import SessionRecord

__all__ = [
    "REASONS",
    "detail_of",
    "redirect",
    "refusal",
    "retry_after",
    "seen_of",
    "setting_of",
    "unavailable",
]

_RETRY_AFTER: Final = 2.0
REASONS: Final = {
    "idle": "The session expired after a period of inactivity.",
    "absolute": "The session reached its maximum duration.",
    "revoked": "The session is no longer valid.",
    "store": "Sessions cannot be checked at the moment. Please try again.",
}
_SETTINGS: Final = {
    "idle": "MKS_SESSION_IDLE_TIMEOUT, MKS_PUBLIC_PATHS",
    "absolute": "MKS_SESSION_ABSOLUTE_TIMEOUT, MKS_PUBLIC_PATHS",
    "store": "",
}


def setting_of(reason: str) -> str:
    """Return the settings with which such a request is served; empty if there is none."""
    return _SETTINGS.get(reason, "MKS_PUBLIC_PATHS")


def detail_of(reason: str) -> str:
    """Return the reason of a refusal as a sentence for the client."""
    return REASONS.get(reason, REASONS["revoked"])


def seen_of(record: SessionRecord | None, now: float) -> str:
    """Describe an ended session for the request log, without anything that would give access."""
    if record is None:
        return "unknown id"
    ages = f"begun {now - record.created_at:.0f} s ago, last seen {now - record.seen_at:.0f} s ago"
    return f"{ages}, {record.ended} before" if record.ended else ages


def refusal(reason: str) -> FixedResponse:
    """Return a 401 response with a problem document (RFC 9457)."""
    problem = {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": detail_of(reason),
        "reason": reason,
        "setting": setting_of(reason),
    }
    # RFC 9110, 11.6.1 requires a challenge with every 401; browsers open no dialogue for this scheme.
    challenge = ("WWW-Authenticate", 'Session realm="application"')
    return _response(401, "application/problem+json", json.dumps(problem), challenge)


def redirect(location: str) -> FixedResponse:
    """Return a 303 redirect to the sign-in page; 303 makes browsers follow it with GET after a POST."""
    return _response(303, "text/plain; charset=utf-8", "Please sign in again.\n", ("Location", location))


def retry_after(error: BackendUnavailableError) -> tuple[str, str]:
    """Return the ``Retry-After`` field for an outage."""
    return "Retry-After", str(max(1, ceil(error.retry_after or _RETRY_AFTER)))


def unavailable(error: BackendUnavailableError) -> FixedResponse:
    """Return a 503 response for a session that cannot be checked; the client keeps its cookie and can retry."""
    problem = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": detail_of("store"),
    }
    return _response(503, "application/problem+json", json.dumps(problem), retry_after(error))


def _response(status: int, content_type: str, text: str, field: tuple[str, str]) -> FixedResponse:
    return FixedResponse(status, text, content_type, (("Cache-Control", "no-store"), field))
