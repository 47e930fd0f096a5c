"""Parsing of ``deploy.toml`` to the settings object; all errors are collected and reported at once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from mks_deploy.settings.model import (
    REQUIRED,
    Edge,
    Gunicorn,
    Option,
    Paths,
    Settings,
    Site,
    Stores,
    Tasks,
    Tls,
    Upkeep,
)
from mks_deploy.settings.rules import consistency_errors
from mks_deploy.settings.variables import APPLICATION_VARIABLES, read_variables

__all__ = ["SettingsFault", "example", "find_settings_file", "options", "read_settings"]

_TABLES: Final[dict[str, type]] = {
    "site": Site,
    "paths": Paths,
    "edge": Edge,
    "tls": Tls,
    "gunicorn": Gunicorn,
    "tasks": Tasks,
    "stores": Stores,
    "upkeep": Upkeep,
}


_PLACE: Final = "+name+"  # valid in a path, but never part of one


class SettingsFault(ValueError):  # noqa: N818 - it carries all of them
    """The settings are invalid; nothing was written.

    Attributes:
        faults: all errors, in the order of the settings.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(f"- {fault}" for fault in self.faults))


def read_settings(text: str, *, further_faults: Iterable[str] = ()) -> Settings:
    """Parse and validate the settings.

    Args:
        text: content of ``deploy.toml``.
        further_faults: errors found elsewhere, to report in the same message.

    Raises:
        SettingsFault: lists all errors: syntax, unknown keys, invalid values, contradictions.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsFault([f"deploy.toml is not TOML: {error}", *further_faults]) from None
    faults = list(_unknown(given))
    tables = {}
    for name, kind in _TABLES.items():
        table = given.get(name, {})
        values, wrong = _read_table(name, kind, table if isinstance(table, Mapping) else {})
        faults.extend(wrong)
        tables[name] = values
    site_name = str(tables["site"]["name"])
    tables["paths"] = {key: value.replace("{name}", site_name) for key, value in tables["paths"].items()}
    chosen, wrong = read_variables(given.get("variables", {}))
    faults.extend(wrong)
    settings = Settings(**{name: kind(**tables[name]) for name, kind in _TABLES.items()}, variables=chosen)
    # Contradictions are checked only if all values are valid.
    faults.extend(() if faults else consistency_errors(settings))
    faults.extend(further_faults)
    if faults:
        raise SettingsFault(faults)
    return settings


def find_settings_file(folder: Path) -> Path:
    """Return the only ``deploy.toml`` of this host, below ``folder``, its ``/etc``.

    Raises:
        SettingsFault: there is none or more than one.
    """
    found = sorted(folder.glob("*/deploy.toml"))
    if len(found) != 1:
        which = f"one of {', '.join(map(str, found))}" if found else f"there is no {folder}/*/deploy.toml"
        raise SettingsFault([f"--settings must name the deploy.toml of the site: {which}"])
    return found[0]


def options(kind: type) -> Iterator[tuple[str, Option]]:
    """Yield the keys of one table, in order."""
    for each in fields(kind):
        yield each.name, each.metadata["option"]


def example() -> str:
    """Return an example ``deploy.toml``: required options are set, all others are comments with their defaults."""
    lines = ["# What `mks-deploy render` renders. A line that is commented out shows the default."]
    for name, kind in _TABLES.items():
        lines += ["", f"# {kind.__doc__}", f"[{name}]"]
        for key, option in options(kind):
            opened = option.default is REQUIRED or option.default == ""
            lines.append(f"# {option.meaning} ({option.kind.form})")
            lines.append(f"{'' if opened and key in _SHOWN else '# '}{key} = {option.example}")
    lines += [
        "",
        "# Variables of the application that nothing above sets; the environment file explains all.",
        "[variables]",
    ]
    for variable, own in APPLICATION_VARIABLES.items():
        lines += [f"# {own.meaning}", f'# {variable} = "{own.example}"']
    return "\n".join(lines) + "\n"


_SHOWN: Final = {"hosts", "email", "alert_mail"}


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    for name, table in given.items():
        if name == "variables":
            continue
        if name not in _TABLES:
            yield f"[{name[:40]}] is unknown{_meant(name, _TABLES)}"
        elif not isinstance(table, Mapping):
            yield f"{name} must be a table: [{name}]"
        else:
            known = dict(options(_TABLES[name]))
            for key in table:
                if key not in known:
                    yield f"{name}.{key[:40]} is unknown{_meant(key, known)}"


def _meant(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _read(option: Option, given: Any, *, named: bool) -> Any:
    """Read a value; a path may contain ``{name}``, which is replaced by the site's name later."""
    if named and isinstance(given, str):
        return option.kind.read(given.replace("{name}", _PLACE)).replace(_PLACE, "{name}")
    return option.kind.read(given)


def _read_table(name: str, kind: type, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values, faults = {}, []
    for key, option in options(kind):
        values[key] = option.default
        if key not in table:
            if option.default is REQUIRED:
                faults.append(f"{name}.{key} is missing: {option.meaning} ({option.example})")
            continue
        if table[key] == "" and option.default == "":
            continue
        try:
            values[key] = _read(option, table[key], named=kind is Paths)
        except ValueError as error:
            faults.append(f"{name}.{key} must be {error}")
    return values, faults
