"""Copy a response while it is streamed to the client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY, ROUTE_KEY, SESSION_KEY
from mks_hardening._edge.response_cache.http_caching import (
    header,
    is_not_modified,
    variant_names,
    without_content,
)
from mks_hardening._edge.response_cache.stored_responses import CacheableRequest, StoredResponses
from mks_hardening.cache._entry import ComputeLease

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["Recording"]


class Recording:
    """Streams a response and collects a copy; stores it at the end unless something forbids it."""

    def __init__(
        self,
        stored: StoredResponses,
        request: CacheableRequest,
        lease: ComputeLease,
        start_response: StartResponse,
    ) -> None:
        self._stored = stored
        self._environ = request.environ  # passed to the application, which may modify it
        # The original request: it determines the variant, and whether the client has the content already.
        self._request = request._replace(environ=request.environ.copy())
        self._session_before = request.environ.get(SESSION_KEY)
        self._lease: ComputeLease | None = lease
        self._start_response = start_response
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._silent = False  # the client has the content already
        self._result: Iterable[bytes] = ()
        self._steps: Iterator[bytes] = iter(())
        self._closed = False

    def answer(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application, without the client's validators, so that it returns the whole content."""
        # A 304 of the application could not be stored for other clients. The environ is not copied, because outer
        # wrappers read what the application puts into it (route, refusal).
        self._environ.pop("HTTP_IF_NONE_MATCH", None)
        self._environ.pop("HTTP_IF_MODIFIED_SINCE", None)
        try:
            self._result = app(self._environ, self.start_response)
            self._steps = iter(self._result)
        except BaseException:
            self._drop("error")
            raise
        return self

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Inspect the head, and send a 304 instead if the client has the same content."""
        self._status, self._headers = status, list(headers)
        obstacle = "error" if exc_info else self._stored.obstacle(self._request, status, headers)
        if obstacle:
            self._drop(obstacle)
        self._silent = status.startswith("200") and is_not_modified(self._request.environ, headers)
        if self._silent:
            status, headers = "304 Not Modified", without_content(headers)
        try:
            write = (
                self._start_response(status, headers, exc_info)
                if exc_info
                else self._start_response(status, headers)
            )
        finally:
            # As in PEP 3333: the traceback references this frame, and would keep it alive in a cycle.
            exc_info = None

        def counted_write(data: bytes, /) -> object:
            return write(self._take(data))

        return counted_write

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._steps)
        except StopIteration:
            self._finish()
            raise
        except BaseException:
            self._drop("error")
            raise
        return self._take(piece)

    def close(self) -> None:
        """Close the application's body, once; a response that was not read to its end is not stored."""
        if self._closed:
            return
        self._closed = True
        self._drop("cut short")
        close = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _take(self, piece: bytes) -> bytes:
        if self._lease is not None:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > self._stored.max_body:
                self._drop("size")
        return b"" if self._silent else piece

    def _finish(self) -> None:
        lease, body = self._lease, b"".join(self._pieces)
        if lease is None:
            return
        length = header(self._headers, "content-length")
        # The application stopped without an error; an incomplete page must not be stored.
        if length and length != str(len(body)):
            self._drop("cut short")
        elif self._may_hold_nonce(body):
            self._drop("nonce")
        elif self._is_for_one_visitor():
            self._drop("session")
        else:
            self._lease = None
            self._stored.keep(
                self._request,
                lease,
                status=self._status,
                headers=self._headers,
                body=body,
                route=self._environ.get(ROUTE_KEY),
            )

    def _may_hold_nonce(self, body: bytes) -> bool:
        """Return whether the page may contain this request's CSP nonce, which would be invalid in another."""
        nonce = str(self._environ.get(CSP_NONCE_KEY) or "")
        if not nonce:
            return False
        # It cannot be searched for in a compressed body.
        if header(self._headers, "content-encoding").lower() not in {"", "identity"}:
            return True
        return nonce.encode() in body or any(nonce in value for _, value in self._headers)

    def _is_for_one_visitor(self) -> bool:
        """Return whether the response depends on the visitor's session, or on the CSRF token.

        Outer wrappers add cookies, ``no-store`` and ``Vary`` too late to be seen here.
        """
        session = self._environ.get(SESSION_KEY)
        token = self._environ.get(CSRF_TOKEN_KEY)
        if getattr(token, "was_read", False) or getattr(session, "was_changed", False):
            return True
        if not getattr(session, "was_read", False):
            return False
        # With an identity, a response may depend on a session that an outer wrapper has checked, and checks again
        # before each hit: it is stored for the same cookies only.
        if not self._request.personal or session is not self._session_before:
            return True
        self._headers.append(("Vary", "Cookie"))
        return variant_names(self._headers) is None

    def _drop(self, reason: str) -> None:
        lease, self._lease = self._lease, None
        self._pieces.clear()
        if lease is not None:
            self._stored.drop(self._request, lease, reason)
