"""Identifiers of PostgreSQL for SQL text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import text_of
from mks_hardening.exceptions import ConfigurationError

__all__ = ["new_name", "quoted", "quoted_list", "table_name"]

_LONGEST: Final = 63


def quoted(name: str) -> str:
    """Return a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quoted_list(names: Iterable[str]) -> str:
    """Return quoted identifiers, separated by commas."""
    return ", ".join(map(quoted, names))


def table_name(name: str, *, parameter: str = "table") -> str:
    """Return a quoted table name, with its schema if it has one.

    Raises:
        ConfigurationError: the name is empty or has too many parts.
    """
    parts = text_of(name, parameter=parameter, empty=False).split(".")
    if len(parts) > 2 or not all(parts):
        raise ConfigurationError(f"{parameter} must be table or schema.table", parameter=parameter)
    return ".".join(map(quoted, parts))


def new_name(name: str, *, parameter: str = "name") -> str:
    """Return the name of a new object.

    Raises:
        ConfigurationError: PostgreSQL would cut it.
    """
    text_of(name, parameter=parameter, empty=False)
    if len(name.encode()) > _LONGEST:
        raise ConfigurationError(f"{parameter} must have at most {_LONGEST} bytes", parameter=parameter)
    return name
