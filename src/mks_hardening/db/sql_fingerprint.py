"""One statement, one name: SQL with its values taken out, and a short digest of that.

A single pass over the text with one regular expression per dialect; the dialects differ in what a double quote, a
backslash, a ``#``, a ``[`` and a ``?`` mean. Unterminated strings and comments reach to the end, so that hostile
text hides more, never less.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, cast

from mks_hardening.exceptions import ConfigurationError

__all__ = ["Dialect", "fingerprint", "known_dialect", "normalize_sql"]

Dialect = Literal["postgresql", "sqlite", "mysql"]

_VALUE: Final = "?"
_LONGEST_CACHED: Final = 8192
_NEVER: Final = r"(?!)"

_PLAIN_STRING: Final = r"'(?:[^']|'')*(?:'|\Z)"
_ESCAPED_STRING: Final = r"'(?:[^'\\]|''|\\.)*(?:'|\\?\Z)"
_PLACEHOLDER: Final = r"%s|%\(\w+\)s|(?<![\w\]):]):(?=[^\W\d])\w+"
_QUOTED_NAME: Final = r'"(?:[^"]|"")*(?:"|\Z)'
_BACKTICK_NAME: Final = r"`(?:[^`]|``)*(?:`|\Z)"
_NUMBER: Final = (
    r"0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|(?:\d[\d_]*(?:\.(?!\.)[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?"
)


def _lexer(
    *, comment: str, value: str, name: str, marks: str = _NEVER, nested: str = _NEVER, dollar: str = _NEVER
) -> re.Pattern[str]:
    marks = f"{_PLACEHOLDER}|{marks}"
    groups = {
        "space": r"\s+",
        "comment": comment,
        "nested": nested,
        "dollar": dollar,
        "value": f"{value}|{marks}",
        "number": rf"(?<![\w$])(?:{_NUMBER})",
        "name": name,
        "word": r"[^\W\d][\w$]*",
        "operator": rf"(?:(?!{comment}|{nested}|{marks})[+\-*/<>=~!@#%^&|?:])+",
        "other": r".",
    }
    return re.compile("|".join(f"(?P<{group}>{rule})" for group, rule in groups.items()), re.DOTALL)


_LEXERS: Final[dict[str, re.Pattern[str]]] = {
    "postgresql": _lexer(
        comment=r"--[^\n]*",
        nested=r"/\*",
        dollar=r"\$(?:[^\W\d]\w*)?\$",
        value=rf"[eE]{_ESCAPED_STRING}|(?:[bBxXnN]|[uU]&)?{_PLAIN_STRING}|\$\d+",
        name=rf"(?:[uU]&)?{_QUOTED_NAME}",
    ),
    "sqlite": _lexer(
        comment=r"--[^\n]*|/\*.*?(?:\*/|\Z)",
        value=rf"[xX]?{_PLAIN_STRING}",
        marks=r"[@$](?=[^\W\d])\w+|\?\d*",
        name=rf"{_QUOTED_NAME}|{_BACKTICK_NAME}|\[[^\]]*(?:\]|\Z)",
    ),
    "mysql": _lexer(
        comment=r"(?:--(?=\s|\Z)|#)[^\n]*|/\*.*?(?:\*/|\Z)",
        value=rf"""[bBxXnN]?{_ESCAPED_STRING}|"(?:[^"\\]|""|\\.)*(?:"|\\?\Z)""",
        marks=r"\?",
        name=_BACKTICK_NAME,
    ),
}
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")

# After these a sign, NULL or "?" belongs to a value and is not an operator.
_COMPARISONS: Final = frozenset({"=", "<", ">", "<=", ">=", "<>", "!="})
_BEFORE_VALUE: Final = _COMPARISONS | frozenset(
    "( , [ + - * / % || select where and or not in like ilike between then else when case return returning "  # noqa: SIM905 - a list of words reads best as one
    "limit offset values by on having".split()
)
_SPECIAL: Final = frozenset("~!@#%^&|?")
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


def normalize_sql(sql: str, *, dialect: Dialect = "postgresql") -> str:
    """The statement with values as ``?``, comments removed, lists shortened, case and blanks unified.

    Two statements that differ only in their values give the same text, and no literal is left in it.

    Args:
        sql: the statement, with literals or with placeholders of any DB-API style.
        dialect: ``postgresql``, ``sqlite`` or ``mysql``, as SQLAlchemy's ``dialect.name`` says.

    Raises:
        ConfigurationError: the dialect is unknown.
    """
    if dialect not in _LEXERS:
        raise ConfigurationError(f"dialect must be one of {', '.join(sorted(_LEXERS))}", parameter="dialect")
    return _join(_shorten(_tokens(sql, _LEXERS[dialect])))


def fingerprint(sql: str, *, dialect: Dialect = "postgresql") -> str:
    """Sixteen hexadecimal digits that name a statement whatever its values are; see ``normalize_sql``."""
    return (_digest if len(sql) > _LONGEST_CACHED else _cached_digest)(sql, dialect)


def known_dialect(name: str) -> Dialect:
    """The dialect to read statements in, for a name of SQLAlchemy's; unknown ones are read as PostgreSQL."""
    if name == "mariadb":
        return "mysql"
    return cast("Dialect", name) if name in _LEXERS else "postgresql"


def _digest(sql: str, dialect: Dialect) -> str:
    text = normalize_sql(sql, dialect=dialect)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


_cached_digest = lru_cache(maxsize=2048)(_digest)


def _tokens(sql: str, lexer: re.Pattern[str]) -> list[str]:
    tokens: list[str] = []
    position = 0
    while found := lexer.match(sql, position):
        position = found.end()
        kind, text = found.lastgroup, found.group()
        if kind == "nested":
            position = _end_of_nested_comment(sql, position)
        elif kind == "dollar":
            closing = sql.find(text, position)
            position = len(sql) if closing < 0 else closing + len(text)
            _add_value(tokens)
        elif kind in {"value", "number"}:
            _add_value(tokens)
        elif kind in {"word", "name"}:
            _add_word(tokens, text.lower() if kind == "word" else text)
        elif kind == "operator":
            _add_operator(tokens, text.replace("%%", "%"))
        elif kind == "other":
            tokens.append(text)
    while tokens and tokens[-1] == ";":
        tokens.pop()
    return tokens


def _end_of_nested_comment(sql: str, position: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, position)
        if edge is None:
            return len(sql)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def _add_value(tokens: list[str]) -> None:
    while tokens and tokens[-1] in {"-", "+"} and (len(tokens) == 1 or tokens[-2] in _BEFORE_VALUE):
        tokens.pop()
    tokens.append(_VALUE)


def _add_word(tokens: list[str], word: str) -> None:
    before = tokens[-1] if tokens else ""
    if (word in {"true", "false"} and before not in {"is", "not"}) or (
        word == "null" and before in {"(", ",", "=", "["}
    ):
        _add_value(tokens)
    elif len(tokens) <= 4 and word != "savepoint" and tuple(tokens) in _SAVEPOINT:
        tokens.append(_VALUE)  # every savepoint has a name of its own
    else:
        tokens.append(word)


def _add_operator(tokens: list[str], run: str) -> None:
    """Split a run as PostgreSQL does: a trailing sign belongs to what follows unless the operator is special."""
    operator = run.rstrip("+-") or run[0]
    if set(operator) & _SPECIAL:
        operator = run
    signs = run[len(operator) :]
    if operator[-1] == "?" and operator[:-1] in _COMPARISONS:
        tokens += [operator[:-1], _VALUE]
    else:
        tokens.append(operator)
    tokens += signs


def _shorten(tokens: list[str]) -> list[str]:
    """Drop list items and parenthesised groups that repeat the one before: the length of a list is a value."""
    out: list[str] = []
    frames: list[_Frame] = []
    for piece in tokens:
        if piece in {"(", "["}:
            frames.append(_Frame(len(out), is_list=piece == "[" or out[-1:] == ["in"]))
        elif frames and piece in {",", ")", "]"}:
            frame = frames[-1]
            frame.end_item(out)
            if piece != ",":
                frames.pop()
                out.append(piece)
                _drop_repeated(out, frame.start, len(out) - frame.start)
                continue
        out.append(piece)
        if frames and piece in {"(", "[", ","}:
            frames[-1].item = len(out)
    return out


class _Frame:
    __slots__ = ("is_list", "item", "start")

    def __init__(self, start: int, *, is_list: bool) -> None:
        self.start = start
        self.item = start + 1
        self.is_list = is_list

    def end_item(self, out: list[str]) -> None:
        if self.is_list and _drop_repeated(out, self.item, len(out) - self.item):
            self.item = len(out)


def _drop_repeated(out: list[str], start: int, length: int) -> bool:
    """Remove ``out[start:]`` and the comma before it when it repeats what stands before that comma."""
    before = start - 1 - length
    if length > 0 and before >= 0 and out[start - 1] == "," and out[before : start - 1] == out[start:]:
        del out[start - 1 :]
        return True
    return False


_TIGHT_BEFORE: Final = frozenset({",", ")", "]", "[", ".", ";", "::"})
_TIGHT_AFTER: Final = frozenset({"(", "[", ".", "::"})
_SPACED_CALL: Final = frozenset(
    "in values and or not as on from where select exists any all over using set".split()  # noqa: SIM905 - as above
)


def _join(tokens: list[str]) -> str:
    parts: list[str] = []
    before = "("
    for piece in tokens:
        call = piece == "(" and (before.isidentifier() or before[-1] == '"') and before not in _SPACED_CALL
        if not (call or before in _TIGHT_AFTER or piece in _TIGHT_BEFORE):
            parts.append(" ")
        parts.append(piece)
        before = piece
    return "".join(parts)
