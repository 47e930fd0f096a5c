"""HTTP methods that do not request a change."""

from __future__ import annotations

from typing import Final

__all__ = ["SAFE_METHODS"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND", "QUERY", "REPORT", "SEARCH", "TRACE"})
"""Safe methods of the IANA registry (RFC 9110, 9.2.1), as clients send them. PRI is omitted: it is no request."""
