"""Normalization and fingerprints of SQL statements, independent of their values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, cast

from mks_hardening._core.checks import choice, text_of
from mks_hardening.db.statement._lexer import LEXERS
from mks_hardening.db.statement._lists import shorten
from mks_hardening.db.statement._quick_tokens import quick_tokens

__all__ = ["fingerprint", "normalize_sql"]

Dialect = Literal["postgresql", "sqlite", "mysql"]

_LONGEST_CACHED: Final = 2048  # longer texts are cached by digest, to limit the memory of the cache
_MOST_CACHED: Final = 2048
_MOST_TOKENS: Final = 256


def normalize_sql(sql: str, *, dialect: Dialect = "postgresql") -> str:
    """Replace values by ``?``, remove comments, shorten lists, and unify case and whitespace.

    Statements that differ only in their values yield the same text, and the result contains no literals. Exception:
    SQLite reads double-quoted text as a string if no column has that name, which only the schema can tell. Such
    text is kept if it consists of letters, digits, ``_`` and ``$`` and appears in the list of a SELECT, RETURNING,
    GROUP BY or ORDER BY; where only a name is possible and in CREATE and ALTER, it is always kept. Write text in
    single quotes, or bind it.

    Args:
        sql: the statement, with literals or with placeholders of any DB-API style.
        dialect: ``postgresql``, ``sqlite`` or ``mysql``, as in SQLAlchemy's ``dialect.name``.

    Raises:
        ConfigurationError: the dialect is unknown.
    """
    return _join(shorten(_checked_tokens(sql, dialect)))


def fingerprint(sql: str, *, dialect: Dialect = "postgresql") -> str:
    """Return 16 hexadecimal digits that identify a statement regardless of its values; see ``normalize_sql``."""
    try:
        if len(sql) <= _LONGEST_CACHED:
            return _cached_digest(sql, dialect)
    except TypeError:  # validated only after a failure, not for every statement
        text_of(sql, parameter="sql")
        choice(dialect, sorted(LEXERS), parameter="dialect")
        raise
    key = (text_key(sql), dialect)
    found = _long_digests.get(key)
    if found is None:
        found = _digest(sql, dialect)
        # Cleared, not trimmed: LRU order would have to be updated on every hit.
        if len(_long_digests) >= _MOST_CACHED:
            _long_digests.clear()
        _long_digests[key] = found
    return found


def text_key(sql: str) -> str | bytes:
    """Cache key of a statement: its text, or a digest if the text is long."""
    if len(sql) <= _LONGEST_CACHED:
        return sql
    return blake2b(sql.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def known_dialect(name: str) -> Dialect:
    """Map SQLAlchemy's dialect name to a lexer dialect; unknown names map to PostgreSQL."""
    if name == "mariadb":
        return "mysql"
    return cast("Dialect", name) if name in LEXERS else "postgresql"


def _checked_tokens(sql: str, dialect: Dialect) -> list[str]:
    given: tuple[object, object] = (sql, dialect)
    if not (isinstance(given[0], str) and isinstance(given[1], str) and dialect in LEXERS):  # costs less
        choice(dialect, sorted(LEXERS), parameter="dialect")
        text_of(sql, parameter="sql")
    return quick_tokens(sql, dialect)


def _digest(sql: str, dialect: Dialect) -> str:
    tokens = tuple(_checked_tokens(sql, dialect))
    return _cached_token_digest(tokens) if len(tokens) <= _MOST_TOKENS else _token_digest(tokens)


def _token_digest(tokens: tuple[str, ...]) -> str:
    text = _join(shorten(tokens))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


# New texts of a known statement, with other literals.
_cached_token_digest = lru_cache(maxsize=_MOST_CACHED // 2)(_token_digest)
_cached_digest = lru_cache(maxsize=_MOST_CACHED)(_digest)
_long_digests: Final[dict[tuple[str | bytes, Dialect], str]] = {}


_TIGHT_BEFORE: Final = frozenset({",", ")", "]", "[", ".", ";", "::"})
_TIGHT_AFTER: Final = frozenset({"(", "[", ".", "::"})
_SPACED_CALL: Final = frozenset(
    "in values and or not as on from where select exists any all over using set".split()  # noqa: SIM905 - as above
)


def _join(tokens: Sequence[str]) -> str:
    parts: list[str] = []
    before = "("
    for piece in tokens:
        call = piece == "(" and (before.isidentifier() or before[-1] == '"') and before not in _SPACED_CALL
        if not (call or before in _TIGHT_AFTER or piece in _TIGHT_BEFORE):
            parts.append(" ")
        parts.append(piece)
        before = piece
    return "".join(parts)
