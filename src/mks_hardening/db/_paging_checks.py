"""Checks for selects that cannot be paged because a row's values depend on rows of other pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from mks_hardening.db._nullable import Construct

__all__ = ["check_pageable"]


def check_pageable(select: Select[Construct], order: Sequence[ColumnElement[Construct]]) -> None:
    """Reject a select whose rows would change if the rows of earlier pages are filtered out.

    Raises:
        ConfigurationError: it uses a window function or DISTINCT ON, DISTINCT with an order column that is not
            selected, or ``contains_eager`` for a collection, whose members a limit would cut.
    """
    if any(map(_is_joined_collection, _loads(select))):
        raise ConfigurationError(
            "contains_eager() of a collection: the limit would cut it; load it with selectinload() or joinedload()",
            parameter="select",
        )
    raw: list[Construct] = select._raw_columns  # noqa: SLF001 - no public API
    if any(_has_window(one) for one in (*raw, *order)):
        raise ConfigurationError(
            "a window function sees only the rows of its page: select it in a subquery", parameter="select"
        )
    given: Construct = select
    # Since SQLAlchemy 2.1, DISTINCT ON is an extension before the columns (_pre_columns_clause).
    distinct_on = given._distinct_on or getattr(given, "_pre_columns_clause", None) is not None  # noqa: SLF001 - as above
    if distinct_on:
        raise ConfigurationError(
            "DISTINCT ON picks other rows on each page: select it in a subquery", parameter="select"
        )
    if given._distinct:  # noqa: SLF001 - as above
        selected = [_bare(one) for one in select.selected_columns]
        # The order columns are selected too and would make equal rows distinct.
        if not all(any(_bare(one).compare(two) for two in selected) for one in order):
            raise ConfigurationError(
                "order_by: with DISTINCT, only columns that are selected", parameter="order_by"
            )


def _loads(select: Construct) -> Iterator[Construct]:
    for option in select._with_options:  # noqa: SLF001 - no public API
        yield from getattr(option, "context", ())


def _is_joined_collection(load: Construct) -> bool:
    return "eager_from_alias" in getattr(load, "local_opts", ()) and any(
        getattr(step, "uselist", False) for step in load.path
    )


def _has_window(element: Construct) -> bool:
    from sqlalchemy import FromClause, Over, SelectBase

    # Tables contain no expressions, and subqueries are not limited to a page.
    if isinstance(element, (FromClause, SelectBase)):
        return False
    return isinstance(element, Over) or any(_has_window(part) for part in element.get_children())


def _bare(column: Construct) -> Construct:
    from sqlalchemy import Label

    given: Construct = column  # drops the unknown type arguments
    return given.element if isinstance(column, Label) else given
