"""Detection of order columns that can be NULL, whose rows a plain comparison would skip."""

from __future__ import annotations

from operator import add, eq, ge, gt, le, lt, mul, ne, sub
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Select

__all__ = ["may_be_null", "optional_tables"]

Construct: TypeAlias = Any
"""An SQLAlchemy construct whose type arguments are unknown here."""

# Functions that return NULL only if an argument is NULL.
_FUNCTIONS: Final = frozenset({"abs", "char_length", "length", "lower", "trim", "upper"})
_OPERATORS: Final = frozenset({add, sub, mul, eq, ne, lt, le, gt, ge})


def optional_tables(select: Select[Construct]) -> frozenset[Construct]:
    """Tables that have no row for some rows of the select: the nullable side of outer joins."""
    found: set[Construct] = set()
    waiting: list[tuple[Construct, bool]] = [(one, False) for one in _froms(select)]
    while waiting:
        one, optional = waiting.pop()
        left, right = getattr(one, "left", None), getattr(one, "right", None)
        if left is None or right is None:
            if optional:
                found.add(one)
            continue
        waiting.append((left, optional or one.full))
        waiting.append((right, optional or one.full or one.isouter))
    return frozenset(found)


def _froms(select: Construct) -> list[Construct]:
    # SQLAlchemy assembles joins added with .join() at compile time, which takes about a millisecond.
    joins = select._setup_joins  # noqa: SLF001 - no public API
    if any(how["isouter"] or how["full"] for *_, how in joins):
        return list(select.get_final_froms())
    return [*select._from_obj, *select.columns_clause_froms]  # noqa: SLF001 - as above


def may_be_null(expression: Construct, optional: frozenset[Construct]) -> bool:
    """Whether a column or expression may be NULL; true if unknown.

    Args:
        expression: element of the sort order.
        optional: result of ``optional_tables``.
    """
    from sqlalchemy import BinaryExpression, BindParameter, Column, Label
    from sqlalchemy.sql.elements import Grouping
    from sqlalchemy.sql.functions import FunctionElement

    given: Construct = expression  # drops the unknown type arguments
    if isinstance(expression, Column):
        return bool(given.nullable) or given.table in optional or not _of_a_table(given)
    if isinstance(expression, BindParameter):
        return given.value is None
    if isinstance(expression, FunctionElement):
        name = getattr(given, "name", "")
        parts = [may_be_null(part, optional) for part in given.clauses]
        return (
            all(parts) if name == "coalesce" else name != "count" and (name not in _FUNCTIONS or any(parts))
        )
    if isinstance(expression, BinaryExpression) and given.operator not in _OPERATORS:
        return True
    if isinstance(expression, (BinaryExpression, Grouping, Label)):
        return any(may_be_null(part, optional) for part in given.get_children())
    return True


def _of_a_table(column: Construct) -> bool:
    """Whether the column belongs to a table; columns of a subquery do not show the joins inside it."""
    from sqlalchemy import Alias, Table

    table: Construct = column.table
    while issubclass(type(table), Alias):
        table = table.element
    return issubclass(type(table), Table)
