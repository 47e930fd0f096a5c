"""What a client gets instead of the application's answer when its session has ended or cannot be judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mks_hardening._core.wsgi_iter import Headers
    from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["Answer", "redirect", "refusal", "retry_after", "send", "unavailable", "wants_html"]

Answer = tuple[str, "Headers", bytes]

_RETRY_AFTER: Final = 2.0
_LONGEST_ACCEPT: Final = 2048  # browsers send about 150 characters
_TITLES: Final = {
    "idle": "The session ended because it was not used for some time.",
    "absolute": "The session ended because it reached its longest duration.",
    "revoked": "The session is no longer valid.",
}


def wants_html(environ: Mapping[str, Any]) -> bool:
    """Whether the request comes from a page that is being opened, not from a script or another service."""
    if environ.get("HTTP_X_REQUESTED_WITH", "").lower() == "xmlhttprequest":
        return False
    quality = _qualities(environ.get("HTTP_ACCEPT", ""))
    html = max(quality.get("text/html", 0.0), quality.get("application/xhtml+xml", 0.0))
    json_like = max(quality.get("application/json", 0.0), quality.get("application/problem+json", 0.0))
    return html > 0 and html >= json_like


def _qualities(accept: str) -> dict[str, float]:
    result: dict[str, float] = {}
    for item in accept[:_LONGEST_ACCEPT].lower().split(","):
        kind, *parameters = item.split(";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.strip().partition("=")
            if name == "q":
                weight = _weight(value.strip())
        result[kind.strip()] = weight
    return result


def _weight(text: str) -> float:
    """RFC 9110, 12.4.2; what is not readable counts as 0."""
    whole, _, fraction = text.partition(".")
    if (
        whole not in ("0", "1")
        or len(fraction) > 3
        or not (fraction + "0").isascii()
        or not (fraction + "0").isdecimal()
    ):
        return 0.0
    return min(1.0, float(f"{whole}.{fraction or 0}"))


def refusal(reason: str) -> Answer:
    """401 as a problem document (RFC 9457)."""
    problem = {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": _TITLES.get(reason, _TITLES["revoked"]),
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
        "detail": "Sessions cannot be checked at the moment. Please try again.",
    }
    return _answer(
        "503 Service Unavailable", "application/problem+json", json.dumps(problem), retry_after(error)
    )


def send(
    environ: WSGIEnvironment, start_response: StartResponse, answer: Answer, *, after_error: bool = False
) -> list[bytes]:
    """Give an answer instead of the application's; ``after_error`` while an exception of it is handled."""
    status, headers, body = answer
    if after_error:
        start_response(status, headers, sys.exc_info())
    else:
        start_response(status, headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


def _answer(status: str, content_type: str, text: str, field: tuple[str, str]) -> Answer:
    body = text.encode()
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        field,
    ]
    return status, headers, body
