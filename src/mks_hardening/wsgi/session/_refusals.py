"""What a client gets instead of the application's answer when its session has ended or cannot be judged."""

from __future__ import annotations

import json
from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening.exceptions import BackendUnavailableError
    from mks_hardening.protocols import SessionRecord

__all__ = ["REASONS", "Answer", "detail_of", "redirect", "refusal", "retry_after", "seen_of", "unavailable"]

Answer = tuple[str, "Headers", bytes]

_RETRY_AFTER: Final = 2.0
REASONS: Final = {
    "idle": "The session ended because it was not used for some time.",
    "absolute": "The session ended because it reached its longest duration.",
    "revoked": "The session is no longer valid.",
    "store": "Sessions cannot be checked at the moment. Please try again.",
}


def detail_of(reason: str) -> str:
    """Why the application's own answer is not given, in a sentence."""
    return REASONS.get(reason, REASONS["revoked"])


def seen_of(record: SessionRecord | None, now: float) -> str:
    """What is known of a session that is over, for the request record; nothing that would let anybody in."""
    if record is None:
        return "unknown id"
    ages = f"begun {now - record.created_at:.0f} s ago, last seen {now - record.seen_at:.0f} s ago"
    return f"{ages}, {record.ended} before" if record.ended else ages


def refusal(reason: str) -> Answer:
    """401 as a problem document (RFC 9457)."""
    problem = {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": detail_of(reason),
        "reason": reason,
    }
    # RFC 9110, 11.6.1 wants a challenge with every 401; no browser opens a dialogue for this scheme.
    challenge = ("WWW-Authenticate", 'Session realm="application"')
    return _answer("401 Unauthorized", "application/problem+json", json.dumps(problem), challenge)


def redirect(location: str) -> Answer:
    """303 to the sign-in page, so that a posted form is not posted there."""
    return _answer(
        "303 See Other", "text/plain; charset=utf-8", "Please sign in again.\n", ("Location", location)
    )


def retry_after(error: BackendUnavailableError) -> tuple[str, str]:
    """The Retry-After field for an outage."""
    return "Retry-After", str(max(1, ceil(error.retry_after or _RETRY_AFTER)))


def unavailable(error: BackendUnavailableError) -> Answer:
    """503: whether the session lives cannot be told; the client keeps its cookie and comes back."""
    problem = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": detail_of("store"),
    }
    return _answer(
        "503 Service Unavailable", "application/problem+json", json.dumps(problem), retry_after(error)
    )


def _answer(status: str, content_type: str, text: str, field: tuple[str, str]) -> Answer:
    body = text.encode()
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        field,
    ]
    return status, headers, body
