"""Statements whose effect outlasts their transaction, because it belongs to the session of PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from mks_hardening.db.statement._lexer import VALUE, raw_tokens_of

__all__ = ["SessionState", "session_state_of"]

# As many as SQLAlchemy caches compiled, and as long as the longest of this package, which runs for every task.
_MOST_CACHED: Final = 500
_LONGEST_CACHED: Final = 8192

# Most statements contain none of these, and need not be split into tokens. ``in`` takes a tenth of a search.
_PARTS: Final = ("hold", "temp", "set_config", "advisory_lock")
_SUSPECT: Final = re.compile(r"\b(?:hold|temp)|set_config|advisory_lock")
_SUSPECT_START: Final = re.compile(r"\b(?:set|reset|discard|listen|prepare|load)")
_LOCKS: Final = re.compile(r"pg_(?:try_)?advisory_lock(?:_shared)?")


class SessionState(NamedTuple):
    """State of a session that a statement changes.

    Attributes:
        name: what the statement leaves behind.
        instead: what has the same effect within a transaction.
    """

    name: str
    instead: str


_SETTING: Final = SessionState("a setting of the session", "SET LOCAL, or set_config(name, value, true)")
_LOCK: Final = SessionState("an advisory lock of the session", "pg_advisory_xact_lock")
_LISTEN: Final = SessionState("a LISTEN", "a direct connection to the server")
_PREPARE: Final = SessionState("a prepared statement", "a bound statement, which the driver prepares")
_LOAD: Final = SessionState("a loaded library", "session_preload_libraries of the server")
_CURSOR: Final = SessionState("a cursor WITH HOLD", "a cursor within the transaction")
_TEMPORARY: Final = SessionState(
    "a temporary table", "ON COMMIT DROP within the transaction, or a plain table"
)

_FIRST_WORDS: Final = {
    "set": _SETTING,
    "reset": _SETTING,
    "discard": _SETTING,
    "listen": _LISTEN,
    "prepare": _PREPARE,
    "load": _LOAD,
}
_TEMPORARY_WORDS: Final = ("temp", "temporary")
_BEFORE_TEMPORARY: Final = frozenset({"or", "replace", "global", "local"})
_WITHIN_TRANSACTION: Final = frozenset(
    {("set", "local"), ("set", "transaction"), ("set", "constraints"), ("prepare", "transaction")}
)


def session_state_of(text: str) -> SessionState | None:
    """Return what the statements of ``text`` leave in the session; None if nothing is recognized.

    Functions and DO blocks are not looked into.
    """
    return _cached(text) if len(text) <= _LONGEST_CACHED else _search(text)


def _is_harmless(text: str) -> bool:
    """Whether the text certainly changes no session; every UPDATE contains SET, but does not begin with it."""
    lower = text.lower()
    if any(part in lower for part in _PARTS) and _SUSPECT.search(lower):
        return False
    if ";" in lower or "--" in lower or "/*" in lower:
        return not _SUSPECT_START.search(lower)
    return not lower.lstrip().startswith(tuple(_FIRST_WORDS))


def _search(text: str) -> SessionState | None:
    if _is_harmless(text):
        return None
    return next(filter(None, map(_state_of_one, _statements(text))), None)


_cached = lru_cache(maxsize=_MOST_CACHED)(_search)


def _statements(text: str) -> Iterator[list[str]]:
    words: list[str] = []
    for kind, piece in raw_tokens_of(text, "postgresql"):
        if piece == ";":
            yield words
            words = []
        elif kind == "word":
            words.append(piece.lower())
        elif kind == "name":
            words.append(piece.strip('"'))
        else:
            words.append(VALUE if kind in {"value", "number", "unended"} else piece)
    yield words


def _state_of_one(tokens: list[str]) -> SessionState | None:
    first = tokens[0] if tokens else ""
    if first in _FIRST_WORDS and tuple(tokens[:2]) not in _WITHIN_TRANSACTION:
        return _FIRST_WORDS[first]
    if first == "declare" and _follow(tokens, "with", "hold"):
        return _CURSOR
    if _is_temporary(tokens) and not _follow(tokens, "on", "commit", "drop"):
        return _TEMPORARY
    for position, word in enumerate(tokens):
        if tokens[position + 1 : position + 2] != ["("]:
            continue
        if _LOCKS.fullmatch(word):
            return _LOCK
        if word == "set_config" and not _is_local(tokens[position + 2 :]):
            return _SETTING
    return None


def _is_temporary(tokens: list[str]) -> bool:
    """Whether the statement is CREATE … TEMPORARY … or SELECT … INTO TEMPORARY …."""
    if tokens[:1] == ["create"]:
        kind = next((word for word in tokens[1:] if word not in _BEFORE_TEMPORARY), "")
        return kind in _TEMPORARY_WORDS
    return any(_follow(tokens, "into", word) for word in _TEMPORARY_WORDS)


def _is_local(arguments: list[str]) -> bool:
    """Whether the last argument of ``set_config`` is the literal true."""
    depth = 1
    for position, piece in enumerate(arguments):
        depth += (piece == "(") - (piece == ")")
        if depth == 0:
            return arguments[position - 1 : position] == ["true"]
    return False


def _follow(tokens: list[str], *words: str) -> bool:
    size = len(words)
    return any(tuple(tokens[start : start + size]) == words for start in range(len(tokens) - size + 1))
