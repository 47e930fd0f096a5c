"""WSGI responses after which the costs of their requests are corrected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mks_hardening._core.request_hits import costs_of_request

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening._core.response_costs import ResponseCosts
    from mks_hardening._core.web.wsgi_head import ExcInfo, Headers, Write

__all__ = ["ResponseCostsMiddleware", "ResponseHead", "call_with_costs", "counted_body"]


class ResponseHead:
    """What an application passes to the server besides its body.

    Attributes:
        status: status code; ``None`` until the response begins.
        written: bytes passed to the legacy ``write()`` of PEP 3333.
    """

    __slots__ = ("status", "written")

    def __init__(self) -> None:
        self.status: int | None = None
        self.written = 0

    def observed(self, start_response: StartResponse) -> StartResponse:
        """Return ``start_response`` with notes of status and bytes."""

        def start(status: str, headers: Headers, exc_info: ExcInfo | None = None, /) -> Write:
            self.status = int(status[:3])
            try:
                write = (
                    start_response(status, headers)
                    if exc_info is None
                    else start_response(status, headers, exc_info)
                )
            finally:
                exc_info = None  # the traceback refers to this frame

            def counting_write(data: bytes, /) -> object:
                self.written += len(data)
                return write(data)

            return counting_write

        return start


class ResponseCostsMiddleware:
    """Corrects the costs of requests that the views of an application count."""

    __slots__ = ("_app",)

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        return call_with_costs(self._app, environ, start_response)


def call_with_costs(
    app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Call an application, and correct the costs of the request at the end of its response.

    If the application raises an error, the costs stay as reserved.
    """
    head = ResponseHead()
    return counted_body(app(environ, head.observed(start_response)), environ, head)


def counted_body(result: Iterable[bytes], environ: WSGIEnvironment, head: ResponseHead) -> Iterable[bytes]:
    """Return the body of a response, wrapped if costs of the request are to be corrected at its end."""
    costs = costs_of_request(environ)
    return result if costs is None else _CountedBody(result, costs, head)


class _CountedBody:
    """The body of a response; counts its bytes, and corrects the costs at its end."""

    def __init__(self, result: Iterable[bytes], costs: ResponseCosts, head: ResponseHead) -> None:
        self._result = result
        self._next: Callable[[], bytes] | None = None
        self._costs = costs
        self._head = head
        self._bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._next is None:
            self._next = iter(self._result).__next__
        try:
            chunk = self._next()
        except StopIteration:
            self._finalize(complete=True)
            raise
        self._bytes += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the body; called by the server, also if it has not read all of it."""
        close: Any = getattr(self._result, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._finalize(complete=False)

    def _finalize(self, *, complete: bool) -> None:
        self._costs.status = self._head.status
        self._costs.body_bytes = self._bytes + self._head.written
        self._costs.finalize(complete=complete)
