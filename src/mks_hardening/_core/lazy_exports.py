"""Lazy exports of a package: the module of a public name is imported on first access."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module

__all__ = ["exported", "facade"]


def exported(package: str, values: Iterable[object]) -> None:
    """Set ``__module__`` of exported objects to the package, their public import path."""
    for value in values:
        if isinstance(value, type) or callable(value):
            value.__module__ = package


def facade(
    package: str,
    homes: Mapping[str, Sequence[str]],
    *,
    documented_in: Mapping[str, str] | None = None,
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
        package: name of the package.
        homes: public names by module.
        documented_in: packages by names that several packages export; that one is their ``__module__``.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> object:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(home), name)
        exported((documented_in or {}).get(name, package), [value])
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted(home_of), sorted(home_of)
