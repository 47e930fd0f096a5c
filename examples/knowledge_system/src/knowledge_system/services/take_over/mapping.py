"""The mapping file (TOML): where the old accounts, articles and files are, and which field is which.

Each of ``[accounts]``, ``[articles]`` and ``[attachments]`` names a ``csv`` file or a ``query``, in ``fields`` our
name and the old one, and in ``values`` what is the same for every row. ``database`` names the environment variable
with the URL of the old database, so that no password is in the file.
"""

from __future__ import annotations

import csv
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import create_engine, text

from mks_hardening.exceptions import ConfigurationError

FIELDS: Final[dict[str, frozenset[str]]] = {
    "accounts": frozenset({"username", "display_name", "department", "role", "email", "password_hash"}),
    "articles": frozenset(
        {"key", "title", "body", "category", "summary", "tags", "site", "author", "updated"}
    ),
    "attachments": frozenset({"article", "name", "path", "content"}),
}
"""Our fields of each section. ``key`` identifies an article in the old system, and ``article`` refers to it."""
_REQUIRED: Final = {
    "accounts": {"username", "display_name", "role"},
    "articles": {"key", "title", "body", "category"},
    "attachments": {"article"},
}
_SETTINGS: Final = {
    **{name: {"csv", "query", "fields", "values"} for name in FIELDS},
    "articles": {"csv", "query", "fields", "values", "html"},
    "attachments": {"csv", "query", "fields", "values", "folder"},
    "folder": {"path", "category", "site", "tags", "author"},
}
_MAXIMUM_CELL: Final = 2**31 - 1


class Mapped(NamedTuple):
    """A mapping file that was checked.

    Attributes:
        operator: user name of the administrator who takes over.
        publish: whether the articles are published at once, as approved by the operator.
        database: name of the environment variable with the URL of the old database.
        base: folder of the mapping file, to which its paths are relative.
        sections: the sections, as in the file.
    """

    operator: str
    publish: bool
    database: str
    base: Path
    sections: dict[str, dict[str, Any]]

    def path(self, section: str, name: str) -> Path | None:
        """Return a path of a section; ``None`` if it has none."""
        given = self.sections.get(section, {}).get(name)
        return None if given is None else self.base / given

    def rows(self, section: str, **parameters: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a section with our names; the text of a CSV file may be UTF-8 or CP932.

        Args:
            section: name of the section.
            parameters: bound parameters of its query.

        Raises:
            ConfigurationError: the file or a column is missing.
            sqlalchemy.exc.SQLAlchemyError: the query fails.
        """
        chosen = self.sections.get(section)
        if chosen is None:
            return
        for row in self._csv(section) if "csv" in chosen else self._query(chosen["query"], parameters):
            missing = sorted(set(chosen["fields"].values()) - row.keys())
            if missing:
                raise _wrong(f"{section}.fields", missing[0], f"one of {', '.join(sorted(row))}")
            yield {
                **chosen.get("values", {}),
                **{ours: row[theirs] for ours, theirs in chosen["fields"].items() if row[theirs] is not None},
            }

    def _csv(self, section: str) -> Iterator[Mapping[str, Any]]:
        path = self.path(section, "csv")
        try:
            content = path.read_bytes() if path else b""
        except OSError as error:
            raise _wrong(f"{section}.csv", str(path), f"a readable file ({error.strerror})") from error
        try:
            decoded = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            decoded = content.decode("cp932", "replace")
        csv.field_size_limit(_MAXIMUM_CELL)
        for row in csv.DictReader(decoded.splitlines(keepends=True), restkey="", restval=None):
            row.pop("", None)
            yield row

    def _query(self, query: str, parameters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        engine = create_engine(os.environ[self.database])
        try:
            with engine.connect().execution_options(stream_results=True) as connection:
                for row in connection.execute(text(query), dict(parameters)).mappings():
                    yield dict(row)
        finally:
            engine.dispose()


def read(file: Path) -> Mapped:
    """Read and check a mapping file.

    Raises:
        ConfigurationError: the file cannot be read, or a section, setting or field is missing or unknown.
    """
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong("mapping", str(file), f"a TOML file ({error})") from error
    operator, publish = given.pop("operator", ""), given.pop("publish", False)
    database = given.pop("database", "")
    _check(
        isinstance(operator, str) and operator != "",
        "operator",
        operator,
        "the user name of an administrator",
    )
    _check(isinstance(publish, bool), "publish", publish, "true or false")
    for section, values in given.items():
        _check(
            section in _SETTINGS and isinstance(values, dict), section, values, f"one of {_listed(_SETTINGS)}"
        )
        for name in values:
            _check(
                name in _SETTINGS[section], f"{section}.{name}", "", f"one of {_listed(_SETTINGS[section])}"
            )
        if section == "folder":
            _check("path" in values and "category" in values, section, values, "a path and a category")
            continue
        _check(("csv" in values) != ("query" in values), section, "", "either csv or query")
        asked = "csv" in values or database in os.environ
        _check(asked, "database", database, "the name of an environment variable that is set")
        asks = section != "attachments" or "csv" in values or ":article" in values["query"]
        _check(asks, "attachments.query", values.get("query"), "a query with the parameter :article")
        known = {*values.get("fields", {}), *values.get("values", {})}
        _check(
            not known - FIELDS[section], f"{section}.fields", _listed(known), f"of {_listed(FIELDS[section])}"
        )
        _check(
            not _REQUIRED[section] - known, f"{section}.fields", _listed(known), _listed(_REQUIRED[section])
        )
    return Mapped(operator, publish, database, file.parent, given)


def _check(fits: bool, parameter: str, value: object, allowed: str) -> None:  # noqa: FBT001 - reads as a table
    if not fits:
        raise _wrong(parameter, value, allowed)


def _wrong(parameter: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"{parameter} is {value!r}; expected {allowed}", parameter=parameter)


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
