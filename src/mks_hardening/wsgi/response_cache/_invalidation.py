"""Invalidate stored responses after an unsafe request with a 2xx or 3xx response (RFC 9111, 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mks_hardening._core.operations import run
from mks_hardening._core.web.wsgi_head import with_step
from mks_hardening._edge.response_cache.cacheable_request import RequestHead
from mks_hardening._edge.response_cache.response_cache import ResponseCache

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers

__all__ = ["Invalidation"]


class Invalidation:
    """Streams a response, and invalidates paths before its first byte and again after its end.

    Twice, because an application may commit its transaction when the body is closed: a request in between would
    store the old page again.

    Args:
        responses: the stored responses.
        head: the request.
        start_response: callable of the server.
    """

    def __init__(self, responses: ResponseCache, head: RequestHead, start_response: StartResponse) -> None:
        self._responses = responses
        self._head = head
        self._start_response = start_response
        self._tags: tuple[str, ...] = ()
        self._is_new = self._has_head = False
        self._result: Iterable[bytes] = ()
        self._steps: Iterator[bytes] = iter(())
        self._closed = False

    def answer(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Call the application and return the response body."""
        self._result = app(environ, with_step(self._start_response, self._note))
        self._invalidate_new()
        if self._has_head and not self._tags:
            return self._result
        self._steps = iter(self._result)
        return self

    def _note(self, status: str, headers: Headers) -> str:
        self._has_head = True
        code = status[:3]
        self._tags = self._responses.changed_tags(self._head, int(code) if code.isdecimal() else 0, headers)
        self._is_new = bool(self._tags)
        return status

    def _invalidate_new(self) -> None:
        if self._is_new:
            self._is_new = False
            run(self._responses.invalidate(self._tags))

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._steps)
        self._invalidate_new()
        return piece

    def close(self) -> None:
        """Close the application's body, once, and invalidate the paths again."""
        if self._closed:
            return
        self._closed = True
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            if self._tags:
                run(self._responses.invalidate(self._tags))
