"""A package that knows its public names and loads each one's module when the name is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["facade"]


def facade(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    What is exported reports the package as its module: that is the path to import it from, and where it lives
    within may change.

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
        if isinstance(value, type) or callable(value):
            value.__module__ = package
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted(home_of), sorted(home_of)
