"""Write the stub of each package from its lazy exports; with --check, list the stubs that are not up to date."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE_LENGTH = 110  # of ruff, see pyproject.toml
HEADING = "# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.\n"


def main() -> None:
    """Write all stubs, or check them."""
    stale = [
        stub
        for stub, text in stubs().items()
        if not stub.exists() or stub.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for stub in stale:
            print(f"{stub.relative_to(ROOT)} is not up to date: make facades")
        sys.exit(bool(stale))
    for stub in stale:
        stub.write_text(stubs()[stub], encoding="utf-8")


def stubs() -> dict[Path, str]:
    """Return the text of every stub."""
    found = {}
    for source in (ROOT / "src", ROOT / "check" / "src"):
        for file in sorted(source.glob("*/**/__init__.py")):
            homes = getattr(import_module(".".join(file.parent.relative_to(source).parts)), "_HOME", None)
            if homes is not None:
                found[file.with_suffix(".pyi")] = stub_of(homes)
    return found


def stub_of(homes: dict[str, list[str]]) -> str:
    """Return one re-export for each name (PEP 484), in the order that the linter expects."""
    lines = [
        import_of(home, name)
        for home in sorted(homes)
        for name in sorted(homes[home], key=lambda name: (not name.isupper(), name))
    ]
    return "".join([HEADING, "\n", *lines])


def import_of(home: str, name: str) -> str:
    """Return one import, wrapped as the formatter would wrap it."""
    line = f"from {home} import {name} as {name}\n"
    return line if len(line) <= LINE_LENGTH + 1 else f"from {home} import (\n    {name} as {name},\n)\n"


if __name__ == "__main__":
    main()
