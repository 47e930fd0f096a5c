"""Spans of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["RequestSpan", "RequestTracer"]


class RequestSpan(Protocol):
    """One request in a trace, from ``RequestTracer.begin`` on."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits (W3C Trace Context); empty where there is no trace."""
        ...

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits; empty where there is no trace."""
        ...

    def end(self, fields: Mapping[str, object], /) -> None:
        """The request is over; ``fields`` are the attributes of its record, without secrets."""
        ...


class RequestTracer(Protocol):
    """Makes spans of requests; asked by the wrapper that records them."""

    def begin(self, environ: Mapping[str, Any], /) -> RequestSpan | None:
        """Begin a span, inside the request's own context; ``None`` where there is nothing to trace.

        ``HTTP_TRACEPARENT`` stands in the environ only if it is valid and comes from a trusted peer.
        """
        ...
