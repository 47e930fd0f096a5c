"""Invalidate stored responses after an unsafe request with a 2xx or 3xx response (RFC 9111, 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit

from mks_hardening._core.web.wsgi_head import with_step

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.web.wsgi_head import Headers

__all__ = ["Invalidation"]


class Invalidation:
    """Streams a response, and invalidates paths before its first byte and again after its end.

    Twice, because an application may commit its transaction when the body is closed: a request in between would
    store the old page again.

    Args:
        forget: called with the paths to invalidate.
        environ: the request.
        start_response: callable of the server.
    """

    def __init__(
        self,
        forget: Callable[[Iterable[str]], object],
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> None:
        self._forget = forget
        self._path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self._host: str = environ.get("HTTP_HOST", "")
        self._environ = environ
        self._start_response = start_response
        self._paths: dict[str, None] = {}
        self._is_new = self._has_head = False
        self._result: Iterable[bytes] = ()
        self._steps: Iterator[bytes] = iter(())
        self._closed = False

    def answer(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application and return the response body."""
        self._result = app(self._environ, with_step(self._start_response, self._note))
        self._forget_noted()
        if self._has_head and not self._paths:
            return self._result
        self._steps = iter(self._result)
        return self

    def _note(self, status: str, headers: Headers) -> str:
        self._paths, self._has_head = {}, True
        if status[:1] in {"2", "3"}:
            self._paths[self._path] = None
            for name, value in headers:
                if name.lower() in {"location", "content-location"}:
                    self._note_place(value)
            self._is_new = True
        return status

    def _note_place(self, value: str) -> None:
        try:
            place = urlsplit(urljoin(f"//{self._host}{quote(self._path, encoding='latin-1')}", value))
        except ValueError:  # not a URL
            return
        if place.netloc.lower() == self._host.lower() and place.path:
            self._paths[unquote(place.path, encoding="latin-1")] = None

    def _forget_noted(self) -> None:
        if self._is_new:
            self._is_new = False
            self._forget(self._paths)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._steps)
        self._forget_noted()
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
            if self._paths:
                self._forget(self._paths)
