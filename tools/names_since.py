"""Compare the public names with those of the last release: ``python tools/names_since.py [--release]``.

A name that came later says so by ``versionadded`` in its docstring, and none that was released is gone.
``--release`` writes the list, ``docs/released_names.txt``, anew: a step of each release. Before the first there is
no list, and every name is as old as the package.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))

from public_names import MODULES  # noqa: E402 - found through the line above

RELEASED = ROOT / "docs" / "released_names.txt"


def main() -> None:
    """Check, or write the list."""
    now = names()
    if "--release" in sys.argv[1:]:
        RELEASED.write_text("\n".join([*sorted(now), ""]), encoding="utf-8")
        return
    released = RELEASED.read_text("utf-8").split() if RELEASED.exists() else now.keys()
    found = [*errors(released, renamed() | now)]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


def names() -> dict[str, str]:
    """Every public name and its docstring; data has that of its type, so it is asked for nothing."""
    found: dict[str, str] = {}
    for module in MODULES:
        package = importlib.import_module(f"mks_hardening.{module}")
        for name in package.__all__:
            item = getattr(package, name)
            is_data = not isinstance(item, type) and not inspect.isroutine(item)
            found[f"{module}.{name}"] = "versionadded::" if is_data else inspect.getdoc(item) or ""
    return found


def renamed() -> dict[str, str]:
    """Every former public name that still works; it needs no docstring."""
    return {
        f"{module}.{name}": "versionadded::"
        for module in MODULES
        for kept in ("_RENAMED", "_MOVED")
        for name in getattr(importlib.import_module(f"mks_hardening.{module}"), kept, ())
    }


def errors(released: Collection[str], now: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each name that is new without saying since when, or gone.

    Args:
        released: the names of the last release.
        now: today's, with their docstrings.
    """
    known = {*released}
    for name in sorted(now.keys() - known):
        if "versionadded::" not in now[name]:
            yield f"{name} is newer than the last release: its docstring needs `.. versionadded:: VERSION`"
    for name in sorted(known - now.keys()):
        yield f"{name} was released and is gone: keep it, with a DeprecationWarning"


if __name__ == "__main__":
    main()
