"""Compare the public names with those of the last release: ``python tools/names_since.py [--release]``.

The docstring of a name that was added later must contain ``versionadded``, and no released name may be missing.
``--release`` rewrites the list, ``docs/released_names.txt``, as a step of each release. Before the first release
there is no list, and no name needs ``versionadded``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))

from public_names import MODULES, full_name  # noqa: E402 - found through the line above

RELEASED = ROOT / "docs" / "released_names.txt"


def main() -> None:
    """Check the names, or write the list."""
    now = names()
    if "--release" in sys.argv[1:]:
        RELEASED.write_text("\n".join([*sorted(now), ""]), encoding="utf-8")
        return
    released = RELEASED.read_text("utf-8").split() if RELEASED.exists() else now.keys()
    found = [*errors(released, still_there(released) | now)]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))


def names() -> dict[str, str]:
    """Return every public name with its docstring; data is skipped, as its docstring is that of its type."""
    found: dict[str, str] = {}
    for module in MODULES:
        package = importlib.import_module(full_name(module))
        for name in package.__all__:
            item = getattr(package, name)
            is_data = not isinstance(item, type) and not inspect.isroutine(item)
            found[f"{module}.{name}"] = "versionadded::" if is_data else inspect.getdoc(item) or ""
    return found


def still_there(released: Iterable[str]) -> dict[str, str]:
    """Return those of the released names that can be imported, whether listed in ``__all__`` or deprecated."""
    found = (name.rpartition(".") for name in released)
    return {
        f"{module}.{name}": ""
        for module, _, name in found
        if module in MODULES and hasattr(importlib.import_module(full_name(module)), name)
    }


def errors(released: Collection[str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence for each new name without ``versionadded``, and for each missing name.

    Args:
        released: names of the last release.
        now: current names with their docstrings.
    """
    known = {*released}
    for name in sorted(now.keys() - known):
        if "versionadded::" not in now[name]:
            yield f"{name} is newer than the last release: its docstring needs `.. versionadded:: VERSION`"
    for name in sorted(known - now.keys()):
        yield f"{name} was released and is gone: keep it, with a DeprecationWarning"


if __name__ == "__main__":
    main()
