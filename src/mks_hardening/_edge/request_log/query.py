"""Query strings for log records: redacted and of limited length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["LONGEST_QUERY", "QueryText"]

# Redaction takes linear time, but 260 kB took 0.6 s; usual queries have a few hundred characters.
LONGEST_QUERY: Final = 2048
_CUT: Final = "..."
_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 128


class QueryText:
    """Redaction of query strings, with a cache of those without secrets, so that common ones cost one look-up.

    A query that contains a secret is never cached.
    """

    __slots__ = ("_harmless", "_redact")

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._harmless: set[str] = set()

    def __call__(self, query: str) -> str:
        """Return the query as logged."""
        if query in self._harmless:
            return query
        if len(query) > LONGEST_QUERY:
            return self._redact(_as_sent(_whole_parameters(query))) + _CUT
        if not query.isascii():
            return self._redact(_as_sent(query))
        shown = self._redact(query)
        if shown == query and len(query) <= _LONGEST_KNOWN:
            if len(self._harmless) >= _MOST_KNOWN:
                self._harmless.clear()
            self._harmless.add(query)
        return shown


def _as_sent(query: str) -> str:
    """Decode UTF-8 bytes that WSGI passes as Latin-1 (PEP 3333), so that redaction recognizes the names."""
    return query.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")


def _whole_parameters(query: str) -> str:
    """Cut to whole parameters: half a secret might not be recognized as one."""
    kept, mark, _ = query[:LONGEST_QUERY].rpartition("&")
    return kept + mark
