"""A package that knows its public names and loads each one's module when the name is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module

__all__ = ["exported", "facade"]


def exported(package: str, values: Iterable[object]) -> None:
    """What is exported reports the package as its module: the path to import it from, wherever it lives within."""
    for value in values:
        if isinstance(value, type) or callable(value):
            value.__module__ = package


def facade(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
        package: its name.
        homes: the public names of each module.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> object:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(home), name)
        exported(package, [value])
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted(home_of), sorted(home_of)
