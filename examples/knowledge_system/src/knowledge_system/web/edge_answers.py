"""Refusals that the library's wrappers give before the application runs, said in the words of this application.

The status and all header fields stay; only the short English body becomes a page or a problem document in the
reader's language.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knowledge_system.problems import Problem, code_for_status
from knowledge_system.web.errors import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask

__all__ = ["InOurWords"]

_PLAIN = ("text/plain", "application/problem+json")
_BODY_FIELDS = {"content-type", "content-length", "content-language", "cache-control"}
_ENDED = {"idle": "session-idle", "absolute": "session-absolute", "revoked": "session-revoked"}


class InOurWords:
    """Wraps the hardened application ``inner`` of ``app``."""

    def __init__(self, inner: WSGIApplication, app: Flask) -> None:
        self._inner = inner
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        replaced: list[bytes] = []
        returned = False  # a body that starts its answer late is on its way and stays as it is

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            code = int(status[:3])
            if returned or not _is_edge_refusal(code, {name.lower(): value for name, value in headers}):
                return start_response(status, headers, exc_info)
            body, own = self._said(environ, code, dict(headers).get("X-Session-Timeout-Reason", ""))
            replaced.append(body)
            kept = [field for field in headers if field[0].lower() not in _BODY_FIELDS]
            return start_response(status, [*kept, *own], exc_info)

        result = self._inner(environ, start)
        returned = True
        if not replaced:
            return result
        if close := getattr(result, "close", None):
            close()
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else replaced

    def _said(self, environ: WSGIEnvironment, status: int, ended: str) -> tuple[bytes, list[tuple[str, str]]]:
        code = _ENDED.get(ended) or ("csrf" if status == 403 else code_for_status(status))
        extra = {"reason": ended} if ended else {}
        with self._app.request_context(environ):
            response = answer(Problem(code, extra=extra))
        body = response.get_data()
        own = [field for field in response.headers.items() if field[0].lower() in _BODY_FIELDS]
        return body, own


def _is_edge_refusal(status: int, headers: dict[str, str]) -> bool:
    """Ours name their language; those of the wrappers do not."""
    return (
        status >= 400
        and "content-language" not in headers
        and headers.get("content-type", "").startswith(_PLAIN)
    )
