"""Selects that a bound would change: what they say of a row depends on rows that are on other pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

__all__ = ["check_whole"]

Construct: TypeAlias = Any
"""Of SQLAlchemy: what its type arguments are nobody knows here."""


def check_whole(select: Select[Construct], order: Sequence[ColumnElement[Any]]) -> None:
    """Refuse a select whose rows would be others once those of earlier pages are left out.

    Raises:
        ConfigurationError: it has a window function, DISTINCT ON, or DISTINCT and an order by something else.
    """
    raw: list[Construct] = select._raw_columns  # noqa: SLF001 - has no public name
    if any(_has_window(one) for one in (*raw, *order)):
        raise ConfigurationError(
            "a window function sees only the rows of its page: select it in a subquery", parameter="select"
        )
    given: Construct = select
    # The second since SQLAlchemy 2.1, as an extension before the columns.
    distinct_on = given._distinct_on or getattr(given, "_pre_columns_clause", None) is not None  # noqa: SLF001 - as above
    if distinct_on:
        raise ConfigurationError(
            "DISTINCT ON picks other rows on each page: select it in a subquery", parameter="select"
        )
    if given._distinct:  # noqa: SLF001 - as above
        selected = [_bare(one) for one in select.selected_columns]
        # The order columns are selected too, and would tell rows apart that were the same.
        if not all(any(_bare(one).compare(two) for two in selected) for one in order):
            raise ConfigurationError(
                "order_by: with DISTINCT, only columns that are selected", parameter="order_by"
            )


def _has_window(element: Construct) -> bool:
    from sqlalchemy import FromClause, Over, SelectBase

    # A table, which has no expressions, or a subquery, which is not cut.
    if isinstance(element, (FromClause, SelectBase)):
        return False
    return isinstance(element, Over) or any(_has_window(part) for part in element.get_children())


def _bare(column: Construct) -> Construct:
    from sqlalchemy import Label

    given: Construct = column  # without the type arguments that nobody knows
    return given.element if isinstance(column, Label) else given
