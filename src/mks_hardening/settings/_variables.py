"""Binding of settings fields to environment variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, Literal, TypeVar, cast, overload

from mks_hardening._core.environment.parsers import Parser
from mks_hardening._core.environment.variables import Environment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Required", "Source", "env", "read", "sources"]

T = TypeVar("T")
A = TypeVar("A", bound="DataclassInstance")

Required = Literal["", "always", "production"]

_KEY: Final = "mks_hardening.source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Source of the value of a field.

    Attributes:
        name: variable name without the prefix, or a whole name after a leading ``=``.
        parse: parser for the text.
        default: value if the variable is not set.
        meaning: description of the setting.
        secret: whether it is hidden, and may be read from a file.
        required: whether the variable must be set: ``always``, in ``production``, or never (empty).
    """

    name: str
    parse: Parser[object]
    default: object
    meaning: str
    secret: bool
    required: Required = ""

    def variable(self, prefix: str) -> str:
        """Return the whole name of the variable."""
        return self.name[1:] if self.name.startswith("=") else prefix + self.name


@overload
def env(name: str, parse: Parser[T], default: T, meaning: str, *, secret: bool = False) -> T: ...
@overload
def env(name: str, parse: Parser[T], default: None, meaning: str, *, secret: bool = False) -> T | None: ...
def env(name: str, parse: Parser[T], default: T | None, meaning: str, *, secret: bool = False) -> T | None:
    """Return a dataclass field that is read from a variable; see ``Source``."""
    source = Source(
        name=name, parse=cast(Parser[object], parse), default=default, meaning=meaning, secret=secret
    )
    made: Callable[..., T | None] = field
    return made(default=default, repr=not secret, metadata={_KEY: source})


def sources(area: type[DataclassInstance]) -> Iterator[tuple[str, Source]]:
    """Yield the fields of a settings class and their sources, in order."""
    for item in fields(area):
        yield item.name, item.metadata[_KEY]


def read(area: type[A], variables: Environment, prefix: str) -> A:
    """Return settings read from variables; ``variables`` collects errors, and the defaults are used instead."""
    values = {
        name: variables.read(source.variable(prefix), source.parse, file=source.secret)
        for name, source in sources(area)
    }
    return area(**{name: value for name, value in values.items() if value is not None})
