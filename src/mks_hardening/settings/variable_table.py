"""All variables as a table, for people and for warnings about misspelt ones."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mks_hardening.settings._variables import sources
from mks_hardening.settings.definitions import (
    CacheSettings,
    CoreSettings,
    DatabaseSettings,
    LoggingSettings,
    NotifySettings,
    SecuritySettings,
    WsgiSettings,
)

__all__ = ["Variable", "register_variables", "unknown_variables", "variables"]

_AREAS: Final = {
    "core": CoreSettings,
    "wsgi": WsgiSettings,
    "logging": LoggingSettings,
    "notify": NotifySettings,
    "cache": CacheSettings,
    "security": SecuritySettings,
    "db": DatabaseSettings,
}
_registered: Final[set[str]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable, as documented.

    Attributes:
        name: its whole name.
        area: the area it belongs to.
        field: the field of the area's settings that it sets.
        form: what may be written.
        default: the value where it is not set.
        default_text: the default as it would be written; empty where there is none.
        secret: whether it is hidden everywhere, and may come from the file that ``NAME_FILE`` names.
        help: what it means.
    """

    name: str
    area: str
    field: str
    form: str
    default: object
    default_text: str
    secret: bool
    help: str


def register_variables(*names: str) -> None:
    """Make an application's own variables known, so that they are not warned about; whole names, with prefix."""
    _registered.update(names)


def variables(prefix: str = "MKS_") -> list[Variable]:
    """Every variable, in the order of the areas and fields."""
    return [
        Variable(
            name=source.variable(prefix),
            area=area,
            field=field,
            form=source.parse.form,
            default=source.default,
            default_text="" if source.default in (None, ()) else source.parse.show(source.default),
            secret=source.secret,
            help=source.meaning,
        )
        for area, kind in _AREAS.items()
        for field, source in sources(kind)
    ]


def unknown_variables(names: Iterable[str], prefix: str) -> Iterator[str]:
    """A sentence for each name that no setting and no application knows."""
    table = variables(prefix)
    known = {variable.name for variable in table} | _registered
    # Secrets alone may come from files, so _FILE behind another name is a mistake.
    files = {f"{variable.name}_FILE" for variable in table if variable.secret}
    for name in names:
        if name not in known and name not in files:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            yield f"unknown variable {name}" + (f"; did you mean {close[0]}?" if close else "")
