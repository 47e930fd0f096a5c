"""SQL scripts: statements with their tokens, their lines, and the comments between them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mks_hardening.db.statement._lexer import LEXERS, end_of_nested_comment

__all__ = ["SqlComment", "SqlScript", "SqlStatement", "SqlToken", "read_script"]

_LEXER: Final = LEXERS["postgresql"]
_OPENING: Final = frozenset("([")
_CLOSING: Final = frozenset(")]")


@dataclass(frozen=True, slots=True)
class SqlToken:
    """One token.

    Attributes:
        kind: group of the lexer: ``word``, ``name`` (quoted), ``value``, ``number``, ``operator``, ``other``.
        text: text as written.
        key: a word in lower case, the content of a quoted name, otherwise the text: what names are compared by.
        line: line in the script, from 1.
    """

    kind: str
    text: str
    key: str
    line: int

    def is_word(self, *words: str) -> bool:
        """Whether this is one of some keywords, which are never quoted."""
        return self.kind == "word" and self.key in words


@dataclass(frozen=True, slots=True)
class SqlStatement:
    """One statement without its semicolon."""

    tokens: tuple[SqlToken, ...]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class SqlComment:
    """One comment, with its marks."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class SqlScript:
    """All statements and comments of a script, in order."""

    statements: tuple[SqlStatement, ...]
    comments: tuple[SqlComment, ...]


def read_script(sql: str) -> SqlScript:
    """Split a script into statements at the semicolons outside of strings, comments and parentheses."""
    ends = [index for index, character in enumerate(sql) if character == "\n"]
    statements: list[SqlStatement] = []
    comments: list[SqlComment] = []
    tokens: list[SqlToken] = []
    begin = depth = 0
    for kind, start, end in _spans(sql):
        text = sql[start:end]
        line = bisect_left(ends, start) + 1
        if kind == "comment":
            comments.append(SqlComment(text, line))
            continue
        if text == ";" and depth == 0:
            if tokens:
                statements.append(SqlStatement(tuple(tokens), sql[begin:start].strip(), tokens[0].line))
            tokens = []
            continue
        if not tokens:
            begin = start
        depth = max(0, depth + (text in _OPENING) - (text in _CLOSING))
        tokens.append(SqlToken(kind, text, _key(kind, text), line))
    if tokens:
        statements.append(SqlStatement(tuple(tokens), sql[begin:].strip(), tokens[0].line))
    return SqlScript(tuple(statements), tuple(comments))


def _spans(sql: str) -> Iterator[tuple[str, int, int]]:
    position = 0
    while found := _LEXER.match(sql, position):
        kind, start, position = found.lastgroup or "", found.start(), found.end()
        if kind == "nested":
            kind, position = "comment", end_of_nested_comment(sql, position)
        elif kind == "dollar":
            closing = sql.find(found.group(), position)
            kind, position = "value", len(sql) if closing < 0 else closing + len(found.group())
        if kind != "space":
            yield kind, start, position


def _key(kind: str, text: str) -> str:
    if kind == "word":
        return text.lower()
    if kind == "name":
        return text[text.index('"') + 1 : -1].replace('""', '"')
    return text
