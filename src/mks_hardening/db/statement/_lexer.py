"""SQL lexer: one pass with one regular expression per dialect.

The dialects differ in the meaning of a double quote, a backslash, ``#``, ``[`` and ``?``. Unterminated strings,
names and comments extend to the end of the text, so that hostile input hides more, never less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = [
    "LEXERS",
    "RULES",
    "VALUE",
    "WORDS_OF_VALUES",
    "add_operator",
    "add_value",
    "add_word",
    "end_of_nested_comment",
    "raw_tokens_of",
    "tokens_of",
]

VALUE: Final = "?"
_NEVER: Final = r"(?!)"  # for features that a dialect lacks

_PLAIN_STRING: Final = r"'(?:[^']|'')*(?:'|\Z)"
_ESCAPED_STRING: Final = r"'(?:[^'\\]|''|\\.)*(?:'|\\?\Z)"
_PLACEHOLDER: Final = r"%s|%\(\w+\)s|(?<![\w\]):]):(?=[^\W\d])\w+"
_QUOTED_NAME: Final = r'"(?:[^"]|"")*"(?!")'
_BACKTICK_NAME: Final = r"`(?:[^`]|``)*`(?!`)"
_NUMBER: Final = (
    r"0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*(?:\.(?!\.)[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?"
)


def _rules(
    *,
    comment: str,
    value: str,
    name: str,
    unended: str,
    marks: str = _NEVER,
    nested: str = _NEVER,
    dollar: str = _NEVER,
) -> dict[str, str]:
    marks = f"{_PLACEHOLDER}|{marks}"
    return {
        "space": r"\s+",
        "comment": comment,
        "nested": nested,
        "dollar": dollar,
        "value": f"{value}|{marks}",
        "number": rf"(?<![\w$])(?:{_NUMBER})",
        "name": name,
        # An unterminated name may be anything, so it is treated as a value.
        "unended": rf"(?:{unended}).*",
        "word": r"[^\W\d][\w$]*",
        "operator": rf"(?:(?!{comment}|{nested}|{marks})[+\-*/<>=~!@#%^&|?:])+",
        "other": r".",
    }


RULES: Final[dict[str, dict[str, str]]] = {
    "postgresql": _rules(
        comment=r"--[^\n]*",
        nested=r"/\*",
        dollar=r"\$(?:[^\W\d]\w*)?\$",
        value=rf"[eE]{_ESCAPED_STRING}|(?:[bBxXnN]|[uU]&)?{_PLAIN_STRING}|\$\d+",
        name=rf"(?:[uU]&)?{_QUOTED_NAME}",
        unended=r'(?:[uU]&)?"',
    ),
    "sqlite": _rules(
        comment=r"--[^\n]*|/\*.*?(?:\*/|\Z)",
        value=rf"[xX]?{_PLAIN_STRING}",
        marks=r"[@$](?=[^\W\d])\w+|\?\d*",
        name=rf"{_QUOTED_NAME}|{_BACKTICK_NAME}|\[[^\]]*\]",
        unended=r'["`\[]',
    ),
    "mysql": _rules(
        comment=r"(?:--(?=\s|\Z)|#)[^\n]*|/\*.*?(?:\*/|\Z)",
        value=rf"""[bBxXnN]?{_ESCAPED_STRING}|"(?:[^"\\]|""|\\.)*(?:"|\\?\Z)""",
        marks=r"\?",
        name=_BACKTICK_NAME,
        unended="`",
    ),
}
"""Regular expression of each kind of token, per dialect; the first that matches decides."""
LEXERS: Final[dict[str, re.Pattern[str]]] = {
    dialect: re.compile("|".join(f"(?P<{kind}>{rule})" for kind, rule in rules.items()), re.DOTALL)
    for dialect, rules in RULES.items()
}
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")

# After these, a sign, NULL or "?" belongs to a value and is not an operator.
_COMPARISONS: Final = frozenset({"=", "<", ">", "<=", ">=", "<>", "!="})
_BEFORE_VALUE: Final = _COMPARISONS | frozenset(
    "( , [ + - * / % || select where and or not in like ilike between then else when case return returning "  # noqa: SIM905 - a word list is easier to read as one string
    "limit offset values by on having".split()
)
_SPECIAL: Final = frozenset("~!@#%^&|?")
WORDS_OF_VALUES: Final = frozenset({"true", "false", "null"})
_SAVEPOINT: Final = frozenset(
    {
        ("savepoint",),
        ("release",),
        ("release", "savepoint"),
        ("rollback", "to"),
        ("rollback", "to", "savepoint"),
        ("rollback", "transaction", "to", "savepoint"),
    }
)


# After these, SQLite may read double-quoted text as a value: it does if no column has that name.
_BEFORE_QUOTED_VALUE: Final = _BEFORE_VALUE - {"by", "returning", "select", "["} | {
    "is",
    "glob",
    "match",
    "regexp",
}
# After these, only a name can follow, whatever characters it contains: an alias, a table, a column of a table.
_BEFORE_NAME: Final = frozenset({"as", ".", "from", "join", "into", "update", "set"})
_PLAIN_NAME: Final = re.compile(r'"[\w$]*"')
_DEFINITIONS: Final = frozenset({"create", "alter"})


def raw_tokens_of(sql: str, dialect: str) -> Iterator[tuple[str, str]]:
    """Raw tokens of a statement with their kind, without comments and whitespace."""
    lexer = LEXERS[dialect]
    position = 0
    while found := lexer.match(sql, position):
        position = found.end()
        kind, text = found.lastgroup or "", found.group()
        if kind == "nested":
            position = end_of_nested_comment(sql, position)
        elif kind == "dollar":
            closing = sql.find(text, position)
            start, position = found.start(), len(sql) if closing < 0 else closing + len(text)
            yield "value", sql[start:position]
        elif kind not in {"space", "comment"}:
            yield kind, text


def tokens_of(sql: str, dialect: str) -> list[str]:
    """Normalized tokens of a statement, with every value as ``VALUE``, without comments and whitespace."""
    tokens: list[str] = []
    quoted = _QuotedValues(tokens) if dialect == "sqlite" else None
    for kind, text in raw_tokens_of(sql, dialect):
        if quoted is not None and quoted.takes(kind, text):
            tokens.append(VALUE)
        elif kind in {"value", "number", "unended"}:
            add_value(tokens)
        elif kind in {"word", "name"}:
            add_word(tokens, text.lower() if kind == "word" else text)
        elif kind == "operator":
            add_operator(tokens, text.replace("%%", "%"))
        else:
            tokens.append(text)
    while tokens and tokens[-1] == ";":
        tokens.pop()
    return tokens


class _QuotedValues:
    """Double-quoted text that SQLite may read as a value; only the schema decides between value and name.

    It is treated as a value where a value is expected, and elsewhere if it contains characters that are rare in
    names (anything but letters, digits, ``_`` and ``$``). It is treated as a name before or after a dot, where only
    a name is possible, in the column list of an INSERT, and everywhere in a definition. A plain word in the list of
    a SELECT, RETURNING, ORDER BY or GROUP BY (``select "secret"``) is therefore kept: it is nearly always a column.
    """

    __slots__ = ("_columns", "_last", "_tokens")

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._columns: list[bool] = []  # one entry per open parenthesis: whether it lists columns
        self._last = ""  # text of the token that was just treated as a value

    def takes(self, kind: str, text: str) -> bool:
        """Whether the next token is treated as a value."""
        tokens, last, self._last = self._tokens, self._last, ""
        if last and text == ".":
            tokens[-1] = last
        elif text == "(":
            self._columns.append(self._lists_columns())
        elif text == ")" and self._columns:
            self._columns.pop()
        elif kind == "name" and text[0] == '"' and (self._is_expected() or self._is_no_name(text)):
            self._last = text
            return True
        return False

    def _is_no_name(self, text: str) -> bool:
        tokens = self._tokens
        return not (
            _PLAIN_NAME.fullmatch(text)
            or not tokens
            or tokens[0] in _DEFINITIONS
            or tokens[-1] in _BEFORE_NAME
            or (self._columns and self._columns[-1])
        )

    def _is_expected(self) -> bool:
        tokens = self._tokens
        if not tokens or tokens[0] in _DEFINITIONS or tokens[-1] not in _BEFORE_QUOTED_VALUE:
            return False
        if tokens[-1] in {"(", ","}:  # outside of parentheses a comma separates selected or assigned columns
            return bool(self._columns) and not self._columns[-1]
        return True

    def _lists_columns(self) -> bool:
        """Whether a parenthesis opened here lists columns: ``INSERT INTO t (``, ``ON CONFLICT (``."""
        before = self._tokens[-4:]
        if len(before) > 3 and before[-2] == ".":  # main.t (
            before = before[:-2]
        return before[-2:-1] == ["into"] or before[-2:] == ["on", "conflict"]


def end_of_nested_comment(sql: str, position: int) -> int:
    """Return the position after a nested comment of PostgreSQL that began before ``position``."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def add_value(tokens: list[str]) -> None:
    """Append a value; a sign before it is part of it."""
    while tokens and tokens[-1] in {"-", "+"} and (len(tokens) == 1 or tokens[-2] in _BEFORE_VALUE):
        tokens.pop()
    tokens.append(VALUE)


def add_word(tokens: list[str], word: str) -> None:
    """Append a word in lower case or a quoted name; some are values, depending on the tokens before."""
    before = tokens[-1] if tokens else ""
    if (word in {"true", "false"} and before not in {"is", "not"}) or (
        word == "null" and before in {"(", ",", "=", "["}
    ):
        add_value(tokens)
    elif len(tokens) <= 4 and word != "savepoint" and tuple(tokens) in _SAVEPOINT:
        tokens.append(VALUE)  # the name of a savepoint is treated as a value: it is often unique
    else:
        tokens.append(word)


def add_operator(tokens: list[str], run: str) -> None:
    """Append operators, split as in PostgreSQL: a final sign belongs to the operand, except after special ones."""
    operator = run.rstrip("+-") or run[0]
    if set(operator) & _SPECIAL:
        operator = run
    signs = run[len(operator) :]
    if operator[-1] == "?" and operator[:-1] in _COMPARISONS:
        tokens += [operator[:-1], VALUE]
    else:
        tokens.append(operator)
    tokens += signs
