"""Short answers that a wrapper gives by itself, built once and sent often."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

__all__ = ["FixedAnswer", "Refusal"]

Header = tuple[str, str]


class FixedAnswer:
    """One status, one body, one list of headers; a HEAD request gets them without the body."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, body: str, content_type: str, headers: Iterable[Header] = ()) -> None:
        self._status = f"{status} {HTTPStatus(status).phrase}"
        self._body = body.encode()
        self._headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(self._body))),
            *headers,
        ]

    def send(
        self, environ: dict[str, Any], start_response: StartResponse, headers: Iterable[Header] = ()
    ) -> list[bytes]:
        """Answer the request, with further headers that belong to it alone."""
        start_response(self._status, [*self._headers, *headers])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [self._body]


class Refusal:
    """A refusal as a problem document (RFC 9457), or as text for those who ask for text; never stored by caches."""

    __slots__ = ("_problem", "_text")

    def __init__(self, status: int, detail: str, headers: Iterable[Header] = ()) -> None:
        title = HTTPStatus(status).phrase
        kept = (("Cache-Control", "no-store"), ("Vary", "Accept"), *headers)
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        self._problem = FixedAnswer(status, json.dumps(problem), "application/problem+json", kept)
        self._text = FixedAnswer(status, f"{title}\n\n{detail}\n", "text/plain; charset=utf-8", kept)

    def send(
        self, environ: dict[str, Any], start_response: StartResponse, headers: Iterable[Header] = ()
    ) -> list[bytes]:
        """Refuse the request in the form its ``Accept`` prefers."""
        answer = self._text if _prefers_text(environ.get("HTTP_ACCEPT", "")) else self._problem
        return answer.send(environ, start_response, headers)


def _prefers_text(accept: str) -> bool:
    accept = accept[:1000].lower()
    return "text/" in accept and "json" not in accept
