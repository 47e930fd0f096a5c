"""Copy a response while it is sent to the client, and store it at the end unless something forbids it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.operations import Op
from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY, ROUTE_KEY, SESSION_KEY
from mks_hardening._edge.response_cache.cacheable_request import CacheableRequest, RequestHead
from mks_hardening._edge.response_cache.http_caching import (
    ERRORS,
    Headers,
    header,
    is_not_modified,
    updated_headers,
    variant_names,
    without_content,
)
from mks_hardening._edge.response_cache.request_flights import RequestFlight, RequestFlights
from mks_hardening._edge.response_cache.response_choice import ResponseChoice, StoredResponse
from mks_hardening._edge.response_cache.stored_responses import StoredResponses

if TYPE_CHECKING:
    from mks_hardening.cache._compute_lease import ComputeLease

__all__ = ["ResponseRecorder", "ServedResponse", "served_response"]

_logger: Final = logging.getLogger("mks_hardening.response_cache")


class ServedResponse(NamedTuple):
    """A response to send.

    Attributes:
        status: status code.
        headers: header fields.
        body: the whole body; None: the body that the application makes.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | None


def served_response(head: RequestHead, stored: StoredResponse, now: float) -> ServedResponse:
    """Return what a client gets of a stored response: all of it, its head, or 304 if it has the content already."""
    headers = [(name, value) for name, value in stored.headers]
    headers.append(("Age", str(stored.age(now))))
    if is_not_modified(head.variables, headers):
        return ServedResponse(304, without_content(headers), b"")
    return ServedResponse(200, headers, b"" if head.method == "HEAD" else stored.body)


class ResponseRecorder:
    """One response of the application: what the client gets of it, and the copy that is stored.

    Args:
        stored: the stored responses.
        flights: the responses that are being made.
        request: the request.
        choice: what is stored already.
        lease: the right to store the response; None: it is not stored.
        flight: the flight that others wait for.
        shared: the environ or the scope that the application may modify.
        now: the time on the wall clock.

    Attributes:
        request: the original request: it determines the variant, and whether the client has the content already.
        has_replaced: whether a stored response is sent instead of the application's.
    """

    def __init__(
        self,
        stored: StoredResponses,
        flights: RequestFlights,
        request: CacheableRequest,
        *,
        choice: ResponseChoice,
        lease: ComputeLease | None,
        flight: RequestFlight | None,
        shared: Mapping[str, Any],
        now: float,
    ) -> None:
        self._stored = stored
        self._flights = flights
        self.request = request
        self._choice = choice
        self._lease = lease
        self._flight = flight
        self._shared = shared
        self._session_before = shared.get(SESSION_KEY)
        self._now = now
        self.has_replaced = False
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def can_replace_errors(self) -> bool:
        """Whether a stale response can be served instead of an error."""
        return self._choice.fallback is not None and not self.has_replaced

    def start(self, status: int, headers: Headers) -> Op[ServedResponse]:
        """Inspect the head of the application's response; return what the client gets.

        If that has a body, the application's body is not sent.

        Args:
            status: status code of the application.
            headers: its header fields.
        """
        if status in ERRORS and self.can_replace_errors:
            _logger.warning(
                "the application responded with %d; a stored response is served instead (stale-if-error)",
                status,
            )
            return (yield from self.replace_error())
        if status == 304 and self._choice.validate is not None:
            return (yield from self._validated(self._choice.validate, headers))
        self._headers = list(headers)
        obstacle = self._stored.obstacle(self.request, status, headers)
        if obstacle:
            yield from self.drop(obstacle)
        if status == 200 and is_not_modified(self.request.head.variables, headers):
            return ServedResponse(304, without_content(headers), b"")
        return ServedResponse(status, list(headers), None)

    def log_error(self, error: Exception) -> None:
        """Log an exception of the application that the client does not get."""
        _logger.error(
            "the application raised an exception; a stored response is served instead (stale-if-error)",
            exc_info=error,
        )

    def replace_error(self) -> Op[ServedResponse]:
        """Return the stale response, and store nothing."""
        fallback = self._choice.fallback
        assert fallback is not None  # noqa: S101 - see can_replace_errors
        self.has_replaced = True
        yield from self.drop("error")
        return served_response(self.request.head, fallback, self._now)

    def _validated(self, stored: StoredResponse, headers: Headers) -> Op[ServedResponse]:
        """The application has confirmed a stored response (RFC 9111, 4.3.4)."""
        self.has_replaced = True
        merged = updated_headers(stored.headers, headers)
        made = self._stored.made(self.request, merged, stored.body)
        obstacle = self._stored.obstacle(self.request, 200, [*merged, *_cookies(headers)])
        self._headers, self._pieces = merged, [stored.body]
        if obstacle:
            yield from self.drop(obstacle)
        else:
            yield from self.finish()
        return served_response(self.request.head, made, self._now)

    def append(self, piece: bytes) -> bool:
        """Copy a part of the body; return whether the whole is too large by now, and must be dropped."""
        if self._lease is None:
            return False
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size > self._stored.max_body

    def finish(self) -> Op[None]:
        """Store the response, whose body is complete."""
        lease, body = self._lease, b"".join(self._pieces)
        if lease is None:
            yield from self.drop("")
            return
        length = header(self._headers, "content-length")
        # The application stopped without an error; an incomplete page must not be stored.
        if length and length != str(len(body)):
            yield from self.drop("cut short")
        elif self._may_hold_nonce(body):
            yield from self.drop("nonce")
        elif self._is_for_one_visitor():
            yield from self.drop("session")
        else:
            self._lease = None
            made = self._stored.made(self.request, self._headers, body)
            try:
                yield from self._stored.keep(self.request, lease, made, self._shared.get(ROUTE_KEY))
            finally:
                self._leave(worth_waiting=True)

    def drop(self, reason: str) -> Op[None]:
        """Store nothing, and let the waiting requests make their own responses; later calls do nothing."""
        lease, self._lease = self._lease, None
        self._pieces.clear()
        try:
            if lease is not None:
                yield from self._stored.drop(self.request, lease, reason)
        finally:
            # A client that left says nothing about the response.
            self._leave(worth_waiting=None if reason in _NOT_ABOUT_THE_RESPONSE else False)

    def _leave(self, *, worth_waiting: bool | None) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            self._flights.leave(flight, worth_waiting=worth_waiting)

    def _may_hold_nonce(self, body: bytes) -> bool:
        """Return whether the page may contain this request's CSP nonce, which would be invalid in another."""
        nonce = str(self._shared.get(CSP_NONCE_KEY) or "")
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
        session = self._shared.get(SESSION_KEY)
        token = self._shared.get(CSRF_TOKEN_KEY)
        if getattr(token, "was_read", False) or getattr(session, "was_changed", False):
            return True
        if not getattr(session, "was_read", False):
            return False
        # With an identity, a response may depend on a session that an outer wrapper has checked, and checks again
        # before each hit: it is stored for the same cookies only.
        if not self.request.personal or session is not self._session_before:
            return True
        self._headers.append(("Vary", "Cookie"))
        return variant_names(self._headers) is None


_NOT_ABOUT_THE_RESPONSE: Final = frozenset({"", "cut short"})


def _cookies(headers: Headers) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() == "set-cookie"]
