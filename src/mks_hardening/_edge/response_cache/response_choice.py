"""Decide whether a stored response may be served to a request (RFC 9111, 4; RFC 5861)."""

from __future__ import annotations

from typing import NamedTuple

from mks_hardening._edge.response_cache.http_caching import Headers, RequestDirectives, header

__all__ = ["ResponseChoice", "StoredResponse", "choose_response"]


class StoredResponse(NamedTuple):
    """A stored response with the status 200; times are on the wall clock.

    Attributes:
        headers: its header fields.
        body: its body.
        made_at: when it was made.
        fresh_until: end of its lifetime.
        stale_until: until when it may be served while a new one is made.
        error_until: until when it may be served instead of an error.
        may_be_stale: whether it may be served after its lifetime to a client that accepts it.
        can_validate: whether its validators are those of the application.
    """

    headers: Headers
    body: bytes
    made_at: float
    fresh_until: float
    stale_until: float
    error_until: float
    may_be_stale: bool
    can_validate: bool

    @property
    def kept_until(self) -> float:
        """When it is of no more use."""
        return max(self.fresh_until, self.stale_until, self.error_until)

    def age(self, now: float) -> int:
        """Return the seconds since the response was made."""
        return max(0, int(now - self.made_at))

    def validators(self) -> dict[str, str]:
        """Return the request fields with which the application can validate the response, as meta-variables."""
        if not self.can_validate:
            return {}
        found = {
            "HTTP_IF_NONE_MATCH": header(self.headers, "etag"),
            "HTTP_IF_MODIFIED_SINCE": header(self.headers, "last-modified"),
        }
        return {name: value for name, value in found.items() if value}


class ResponseChoice(NamedTuple):
    """What to do with a request.

    Attributes:
        response: the stored response to serve; None: the application makes one.
        refresh: whether a new response should be made after ``response`` was served.
        unavailable: whether to respond with 504, since the client wants a stored response only.
        fallback: the stored response to serve if the application fails.
        validate: the stored response whose validators the application gets instead of the client's. (A 304 to the
            client's conditions could not be stored for other clients.)
    """

    response: StoredResponse | None = None
    refresh: bool = False
    unavailable: bool = False
    fallback: StoredResponse | None = None
    validate: StoredResponse | None = None


def choose_response(stored: StoredResponse | None, wanted: RequestDirectives, now: float) -> ResponseChoice:
    """Return what to do with a request.

    Args:
        stored: the stored response that fits the request, if any.
        wanted: what the client asks of a cache.
        now: the time, on the wall clock.
    """
    if stored is None:
        return _UNAVAILABLE if wanted.only_if_cached else _MISS
    if _is_acceptable(stored, wanted, now):
        return ResponseChoice(stored)
    # A client that asks for a newer response waits for it.
    validate = stored if stored.can_validate else None
    if not wanted.is_demanding and stored.may_be_stale and now < stored.stale_until:
        return ResponseChoice(stored, refresh=True, validate=validate)
    if wanted.only_if_cached:
        return _UNAVAILABLE
    until = stored.error_until
    if stored.may_be_stale and wanted.stale_if_error:
        until = max(until, stored.fresh_until + wanted.stale_if_error)
    fallback = stored if not wanted.is_demanding and now < until else None
    return ResponseChoice(fallback=fallback, validate=validate)


def _is_acceptable(stored: StoredResponse, wanted: RequestDirectives, now: float) -> bool:
    if wanted.no_cache:
        return False
    allowed = wanted.max_stale if stored.may_be_stale else 0.0
    if wanted.max_age is not None and stored.age(now) > wanted.max_age + allowed:
        return False
    left = stored.fresh_until - now
    if left > 0:
        return left >= wanted.min_fresh
    return wanted.min_fresh == 0 and bool(allowed) and -left <= allowed


_MISS = ResponseChoice()
_UNAVAILABLE = ResponseChoice(unavailable=True)
