"""A field of settings and the variable it is read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, TypeVar, cast, overload

from mks_hardening._core.environment.parsers import Parser
from mks_hardening._core.environment.variables import Environment

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Source", "env", "read", "sources"]

T = TypeVar("T")
A = TypeVar("A", bound="DataclassInstance")

_KEY: Final = "mks_hardening.source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the value of a field comes from.

    Attributes:
        name: name of the variable without the prefix, or with ``=`` in front a whole name.
        parse: from text to value.
        default: the value where the variable is not set.
        meaning: what the setting does.
        secret: whether it is hidden, and may come from a file.
    """

    name: str
    parse: Parser[object]
    default: object
    meaning: str
    secret: bool

    def variable(self, prefix: str) -> str:
        """The variable's whole name."""
        return self.name[1:] if self.name.startswith("=") else prefix + self.name


@overload
def env(name: str, parse: Parser[T], default: T, meaning: str, *, secret: bool = False) -> T: ...
@overload
def env(name: str, parse: Parser[T], default: None, meaning: str, *, secret: bool = False) -> T | None: ...
def env(name: str, parse: Parser[T], default: T | None, meaning: str, *, secret: bool = False) -> T | None:
    """A field of a dataclass with the variable it is read from; see ``Source``."""
    source = Source(
        name=name, parse=cast(Parser[object], parse), default=default, meaning=meaning, secret=secret
    )
    made: Callable[..., T | None] = field
    return made(default=default, repr=not secret, metadata={_KEY: source})


def sources(area: type[DataclassInstance]) -> Iterator[tuple[str, Source]]:
    """The fields of an area and where they come from, in order."""
    for item in fields(area):
        yield item.name, item.metadata[_KEY]


def read(area: type[A], variables: Environment, prefix: str) -> A:
    """An area read from variables; faults are noted by ``variables``, and the default stands in."""
    values = {
        name: variables.read(source.variable(prefix), source.parse, file=source.secret)
        for name, source in sources(area)
    }
    return area(**{name: value for name, value in values.items() if value is not None})
