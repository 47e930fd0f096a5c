"""Table of all environment variables, for the documentation and for warnings about misspelt names."""

import difflib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mks_hardening.settings._variables import Required, Source, sources
from mks_hardening.settings.definitions import AREAS

__all__ = ["Variable", "register_variables", "table_row", "unknown_variables", "variables"]

_registered: Final[set[str]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable, as documented.

    Attributes:
        name: whole name.
        area: package that it belongs to.
        field: field of the package's settings that it sets.
        form: accepted values.
        default: value if it is not set.
        default_text: the default as it would be written; empty if there is none.
        secret: whether it is hidden everywhere, and may be read from the file that ``NAME_FILE`` names.
        help: description.
        required: whether it must be set: ``always``, in ``production``, or never (empty).
    """

    name: str
    area: str
    field: str
    form: str
    default: object
    default_text: str
    secret: bool
    help: str
    required: Required = ""


def register_variables(*names: str) -> None:
    """Register an application's own variables (whole names), so that they cause no warning."""
    _registered.update(names)


def variables(prefix: str = "MKS_") -> list[Variable]:
    """Return every variable, in the order of the packages and fields."""
    return [
        table_row(area, field, source, prefix)
        for area, kind in AREAS.items()
        for field, source in sources(kind)
    ]


def table_row(area: str, field: str, source: Source, prefix: str) -> Variable:
    """Return the row of one field."""
    has_no_text = source.default is None or source.default in ((), frozenset(), "")
    return Variable(
        name=source.variable(prefix),
        area=area,
        field=field,
        form=source.parse.form,
        default=source.default,
        default_text="" if has_no_text else source.parse.show(source.default),
        secret=source.secret,
        help=source.meaning,
        required=source.required,
    )


def unknown_variables(names: Iterable[str], table: Collection[Variable]) -> Iterator[str]:
    """Yield a message for each name that is neither in the table nor registered."""
    known = {variable.name for variable in table} | _registered
    # Only secrets may be read from files, so _FILE after another name is a mistake.
    files = {f"{variable.name}_FILE" for variable in table if variable.secret}
    suggestions = sorted(name for name in known if name.removesuffix("_FILE") not in known - {name})
    for name in names:
        if name not in known and name not in files:
            close = difflib.get_close_matches(name, suggestions, n=1)
            yield f"unknown variable {name}" + (f"; did you mean {close[0]}?" if close else "")
