"""Parsing of ``deploy.toml`` to the settings object; all errors are collected and reported at once."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from mks_deploy.settings.application_secrets import read_secrets
from mks_deploy.settings.application_variables import read_variables
from mks_deploy.settings.consistency import consistency_errors
from mks_deploy.settings.definitions import (
    REQUIRED,
    App,
    Edge,
    Gunicorn,
    Host,
    HostOptions,
    Image,
    Logs,
    Media,
    Offsite,
    Option,
    Paths,
    Releases,
    Sandbox,
    Settings,
    Site,
    Stores,
    Tasks,
    Tls,
    Upkeep,
)
from mks_deploy.settings.value_types import a_path, a_slug

__all__ = ["DeploySettingsError", "example", "find_settings_file", "options", "read_settings"]

_TABLES: Final[dict[str, type]] = {
    "site": Site,
    "app": App,
    "paths": Paths,
    "edge": Edge,
    "tls": Tls,
    "gunicorn": Gunicorn,
    "tasks": Tasks,
    "release": Releases,
    "host": HostOptions,
    "stores": Stores,
    "upkeep": Upkeep,
    "offsite": Offsite,
    "logs": Logs,
    "sandbox": Sandbox,
    "image": Image,
    "media": Media,
}


_PLACE: Final = "+name+"  # valid in a path, but never part of one


class DeploySettingsError(ValueError):
    """The settings are invalid; nothing was written.

    Args:
        errors: all errors, in the order of the settings.
        text: content of the file, in which the errors are located.
        file: its name.
        readable: what could be read of the settings, with defaults for the rest.

    Attributes:
        errors: all errors, in the order of the settings.
        readable: as given; ``None`` if something required is missing.
    """

    def __init__(
        self,
        errors: Iterable[str],
        *,
        text: str = "",
        file: str = "deploy.toml",
        readable: Settings | None = None,
    ) -> None:
        self.errors = tuple(errors)
        self.readable = readable
        super().__init__("\n".join(_located(error, text, file) for error in self.errors))


_CULPRIT: Final = re.compile(r"\[([\w-]{1,40})\]|([a-z]+)\.([\w-]+)")
_ENTRY: Final = re.compile(r"hosts\[(\d+)\](?:\.(\w+))?")
_HEAD: Final = re.compile(r"\s*\[{1,2}\s*([\w-]+)\s*(?:\.\s*([\w-]+)\s*)?\]")
_KEY: Final = re.compile(r"""\s*(["']?)([\w./-]+)\1\s*[.=]""")


def _located(error: str, text: str, file: str) -> str:
    """Put file and line in front of an error, if it is about a table or key of the file."""
    if found := re.search(r"is not TOML: .* line (\d+)", error):
        return f"{file}:{found[1]}: {error}"
    if entry := _ENTRY.match(error):
        line = _line_of_host(text, int(entry[1]), entry[2])
        return f"{file}:{line}: {error}" if line else f"{file}: {error}"
    culprit = _CULPRIT.match(error)
    if culprit is None or not (culprit[1] or culprit[2] in {*_TABLES, *_FREE}):
        return error
    line = _line_of(text, culprit[1] or culprit[2], culprit[3])
    return f"{file}:{line}: {error}" if line else f"{file}: {error}"


def _line_of(text: str, table: str, key: str | None) -> int:
    """Return the line of a key, else of its table; 0 if the file has neither."""
    inside, opened, several = False, 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if several:  # a text of several lines may look like anything
            several = "" if several in line else several
            continue
        several = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
        if head := _HEAD.match(line):
            inside = head[1] == table and head[2] in {None, key}
            opened = opened or (number if inside else 0)
            if inside and key is not None and head[2] == key:
                return number
        elif inside and key is not None and (found := _KEY.match(line)) and found[2] == key:
            return number
    return opened


def _line_of_host(text: str, number: int, key: str | None) -> int:
    """Return the line of a key of one of the ``[[hosts]]``, else of its head; 0 if there is none."""
    opened = 0
    for at, line in enumerate(text.splitlines(), start=1):
        if head := _HEAD.match(line):
            if opened:
                break
            number -= head[1] == "hosts"
            opened = at if number == 0 and head[1] == "hosts" else 0
        elif opened and key is not None and (found := _KEY.match(line)) and found[2] == key:
            return at
    return opened


def read_settings(text: str, *, further_errors: Iterable[str] = (), file: str = "deploy.toml") -> Settings:
    """Parse and validate the settings.

    Args:
        text: content of ``deploy.toml``.
        further_errors: errors found elsewhere, to report in the same message.
        file: name of the file, for messages.

    Raises:
        DeploySettingsError: lists all errors: syntax, unknown keys, invalid values, contradictions.
    """
    try:
        given: Mapping[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DeploySettingsError([f"{file} is not TOML: {error}", *further_errors], file=file) from None
    errors = list(_unknown(given))
    tables = {}
    for name, kind in _TABLES.items():
        table = given.get(name, {})
        values, wrong = _read_table(name, kind, table if isinstance(table, Mapping) else {})
        errors.extend(wrong)
        tables[name] = values
    site_name = str(tables["site"]["name"])
    tables["paths"] = {key: value.replace("{name}", site_name) for key, value in tables["paths"].items()}
    tables["stores"]["database_name"] = tables["stores"]["database_name"].replace("{name}", site_name)
    chosen, wrong = read_variables(given.get("variables", {}), own=dict(tables["app"]["variables"]))
    errors.extend(wrong)
    secrets, wrong = read_secrets(given.get("secrets", {}))
    errors.extend(wrong)
    hosts, wrong = _read_hosts(given.get("hosts", []))
    errors.extend(wrong)
    settings = Settings(
        **{name: kind(**tables[name]) for name, kind in _TABLES.items()},
        variables=chosen,
        secrets=secrets,
        hosts=hosts,
    )
    # Contradictions are checked only if all values are valid.
    errors.extend(() if errors else consistency_errors(settings))
    errors.extend(further_errors)
    if errors:
        known = all(value is not REQUIRED for table in tables.values() for value in table.values())
        raise DeploySettingsError(errors, text=text, file=file, readable=settings if known else None)
    return settings


def find_settings_file(folder: Path) -> Path:
    """Return the only ``deploy.toml`` of this host, below ``folder``, its ``/etc``.

    Raises:
        DeploySettingsError: there is none or more than one.
    """
    found = sorted(folder.glob("*/deploy.toml"))
    if len(found) != 1:
        which = f"one of {', '.join(map(str, found))}" if found else f"there is no {folder}/*/deploy.toml"
        raise DeploySettingsError([f"--settings must name the deploy.toml of the site: {which}"])
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
        "# Variables of the application that nothing above sets; the environment file lists the library's.",
        "[variables]",
        '# DJANGO_SETTINGS_MODULE = "shop.settings"',
        "",
        '# Secrets, by the variable that the application reads: "file" if it reads NAME_FILE, else "variable".',
        '# A secret of the servers under another name: {as = "variable", from = "redis_url"}.',
        "[secrets]",
        '# SECRET_KEY = "variable"',
        "",
        f"# {Host.__doc__}",
        "# [[hosts]]",
    ]
    for key, option in options(Host):
        lines += [f"# {option.meaning} ({option.kind.form})", f"#   {key} = {option.example}"]
    return "\n".join(lines) + "\n"


_SHOWN: Final = {"name", "hosts", "kind", "target", "needs", "email", "alert_mail"}
_FREE: Final = {"variables", "secrets"}
"""Tables whose keys are names of variables."""
_NAMED: Final = (Paths, Stores)
"""Tables whose texts may hold the name of the site."""


def _unknown(given: Mapping[str, Any]) -> Iterator[str]:
    for name, table in given.items():
        if name in _FREE or name == "hosts":
            continue
        if name not in _TABLES:
            yield f"[{name[:40]}] is unknown{_suggestion(name, _TABLES)}"
        elif not isinstance(table, Mapping):
            yield f"{name} must be a table: [{name}]"
        else:
            known = dict(options(_TABLES[name]))
            for key in table:
                if key not in known:
                    yield f"{name}.{key[:40]} is unknown{_suggestion(key, known)}"


def _suggestion(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _read(option: Option, given: Any, *, named: bool) -> Any:
    """Read a value; a path may contain ``{name}``, which is replaced by the site's name later."""
    if named and isinstance(given, str) and option.kind is a_slug:
        return option.kind.read(given.replace("{name}", "name")) and given
    if named and isinstance(given, str) and option.kind is a_path:
        return option.kind.read(given.replace("{name}", _PLACE)).replace(_PLACE, "{name}")
    return option.kind.read(given)


def _read_hosts(given: Any) -> tuple[tuple[Host, ...], list[str]]:
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        return (), ["[hosts] must be a list of tables: [[hosts]] for each host"]
    hosts, errors = list[Host](), list[str]()
    known = dict(options(Host))
    for number, table in enumerate(given, start=1):
        place = f"hosts[{number}]"
        errors.extend(
            f"{place}.{key[:40]} is unknown{_suggestion(key, known)}" for key in table if key not in known
        )
        values, wrong = _read_table(place, Host, table)
        errors.extend(wrong)
        if not wrong:
            hosts.append(Host(**values))
    return tuple(hosts), errors


def _read_table(name: str, kind: type, table: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values, errors = {}, []
    for key, option in options(kind):
        values[key] = option.default
        if key not in table:
            if option.default is REQUIRED:
                errors.append(f"{name}.{key} is missing: {option.meaning} ({option.example})")
            continue
        if table[key] == "" and option.default == "":
            continue
        try:
            values[key] = _read(option, table[key], named=kind in _NAMED)
        except ValueError as error:
            errors.append(f"{name}.{key} must be {error}")
    return values, errors
