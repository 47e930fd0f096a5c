"""Protocols for request tracing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["RequestSpan", "RequestTracer"]


class RequestSpan(Protocol):
    """Span of one request, returned by ``RequestTracer.begin``."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits (W3C Trace Context); empty without a trace."""
        ...

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits; empty without a trace."""
        ...

    def end(self, fields: Mapping[str, object], /) -> None:
        """End the span; ``fields`` are the attributes of the request's log record, without secrets."""
        ...


class RequestTracer(Protocol):
    """Creates spans for requests; called by the request logging middleware."""

    def begin(self, environ: Mapping[str, Any], /) -> RequestSpan | None:
        """Start a span, inside the request's own context; ``None`` if the request is not traced.

        ``HTTP_TRACEPARENT`` is in the environ only if it is valid and comes from a trusted peer.
        Under ASGI, the environ has the method, scheme, path, origin and trace fields only.
        """
        ...
