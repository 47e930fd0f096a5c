"""gunicorn's configuration file, read without running it: values that are constants, or defaults of variables."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

__all__ = ["GunicornFile", "parse_gunicorn"]

_UNKNOWN: Final = object()
_MOST: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GunicornFile:
    """Settings of a ``gunicorn.conf.py``.

    Attributes:
        path: its path.
        values: known values by name.
        lines: line of each assignment, known or not.
        ours: whether ``mks_hardening.contrib.gunicorn_config`` gives further settings.
        container: whether it belongs to a container.
        error: why it could not be read.
    """

    path: str
    values: dict[str, object] = field(default_factory=dict[str, object])
    lines: dict[str, int] = field(default_factory=dict[str, int])
    ours: bool = False
    container: bool = False
    error: str = ""

    def texts(self, name: str) -> list[str]:
        """Return a value that is one text or several."""
        value = self.values.get(name)
        if isinstance(value, str):
            return [value]
        items = cast("list[object]", value) if isinstance(value, list) else []
        return [item for item in items if isinstance(item, str)]

    def integer(self, name: str) -> int | None:
        """Return a value that is a whole number."""
        value = self.values.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def parse_gunicorn(text: str, path: str, *, container: bool = False) -> GunicornFile:
    """Return the settings of a file; what is computed is unknown, not wrong."""
    if len(text) > _MOST:
        return GunicornFile(path=path, error="too long", container=container)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        return GunicornFile(
            path=path, error=f"no Python ({f'line {line}' if line else 'syntax'})", container=container
        )
    values: dict[str, object] = {}
    lines: dict[str, int] = {}
    ours = False
    for statement in tree.body:
        for name, value in _assignments(statement):
            found = _constant(value, values)
            lines[name] = statement.lineno
            values.pop(name, None)
            if found is not _UNKNOWN:
                values[name] = found
        ours = ours or (isinstance(statement, ast.Expr) and "gunicorn_config(" in ast.unparse(statement))
    return GunicornFile(path=path, values=values, lines=lines, ours=ours, container=container)


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    match statement:
        case ast.Assign(targets=targets, value=value):
            yield from ((target.id, value) for target in targets if isinstance(target, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case _:
            return


def _constant(node: ast.expr, known: dict[str, object]) -> object:
    """Return the value of an expression, with the default of a variable and one processor; else ``_UNKNOWN``."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return known.get(name, _UNKNOWN)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            found = [_constant(item, known) for item in items]
            return _UNKNOWN if any(item is _UNKNOWN for item in found) else found
        case ast.Dict(keys=[], values=[]):
            return {}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = _constant(operand, known)
            return -number if isinstance(number, (int, float)) else _UNKNOWN
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult() as operator, right=right):
            one, other = _constant(left, known), _constant(right, known)
            if not (isinstance(one, (int, float)) and isinstance(other, (int, float))):
                return _UNKNOWN
            if max(abs(one), abs(other)) > 1e9:
                return _UNKNOWN
            return one + other if isinstance(operator, ast.Add) else one * other
        case ast.BoolOp(op=ast.Or(), values=values):
            return next((value for value in (_constant(each, known) for each in values) if value), _UNKNOWN)
        case ast.Call(func=function, args=args):
            return _call(ast.unparse(function), args, known)
        case _:
            return _UNKNOWN


def _call(function: str, args: list[ast.expr], known: dict[str, object]) -> object:
    if function.endswith("cpu_count"):
        return 1
    if function in {"os.environ.get", "os.getenv", "environ.get", "getenv"} and len(args) == 2:
        return _constant(args[1], known)
    if function in {"int", "float", "str"} and len(args) == 1:
        value = _constant(args[0], known)
        try:
            converted = {"int": int, "float": float, "str": str}[function]
            return converted(value) if isinstance(value, (str, int, float)) else _UNKNOWN
        except (ValueError, OverflowError):
            return _UNKNOWN
    return _UNKNOWN
