"""Lazy exports of a package: the module of a public name is imported on first access."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module

__all__ = ["deprecated_names", "exported", "facade"]


def exported(package: str, values: Iterable[object]) -> None:
    """Set ``__module__`` of exported objects to the package, their public import path."""
    for value in values:
        if isinstance(value, type) or callable(value):
            value.__module__ = package


def facade(
    package: str,
    homes: Mapping[str, Sequence[str]],
    *,
    renamed: Mapping[str, str] | None = None,
    documented_in: Mapping[str, str] | None = None,
    moved: Mapping[str, str] | None = None,
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
        package: name of the package.
        homes: public names by module.
        renamed: current names by former names; each use of a former name emits a ``DeprecationWarning``. Keep it in
            ``_RENAMED`` of the package, from which the stub is generated.
        documented_in: packages by names that several packages export; that one is their ``__module__``.
        moved: packages by names that were exported here before; they are still found, without a warning. Keep it in
            ``_MOVED`` of the package, from which the stub is generated.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> object:
        home = home_of.get(name, (moved or {}).get(name))
        if home is None:
            return _renamed_value(package, renamed or {}, name)
        value: object = getattr(import_module(home), name)
        if name in home_of:
            exported((documented_in or {}).get(name, package), [value])
        setattr(sys.modules[package], name, value)
        return value

    return find, lambda: sorted(home_of), sorted(home_of)


def deprecated_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], object]:
    """Return ``__getattr__`` of a module whose public names were renamed.

    Args:
        module: name of the module.
        renamed: current names by former names; each use of a former name emits a ``DeprecationWarning``.
    """

    def find(name: str) -> object:
        return _renamed_value(module, renamed, name)

    return find


def _renamed_value(module: str, renamed: Mapping[str, str], name: str) -> object:
    """Return the value of a former name, with a warning for the line that called ``__getattr__``."""
    current = renamed.get(name)
    if current is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    value: object = getattr(sys.modules[module], current)
    warnings.warn(f"{module}.{name} is now called {current}", DeprecationWarning, stacklevel=3)
    return value
