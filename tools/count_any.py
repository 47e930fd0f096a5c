"""Count the uses of ``Any`` per area: at most ten per thousand lines, without imports for type checkers."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "mks_hardening"
MOST_PER_THOUSAND = 10.0


def main() -> None:
    """Print the table; exit status 1 if an area exceeds its limit."""
    counts = {place: count(files) for place, files in places().items()}
    for place, (found, lines) in counts.items():
        print(f"{place:<12} {found:>4} in {lines:>5} lines: {1000 * found / lines:5.1f} per thousand")
    sys.exit(any(1000 * found > MOST_PER_THOUSAND * lines for found, lines in counts.values()))


def places() -> dict[str, list[Path]]:
    """Return the areas and packages, and the top-level modules together."""
    folders = sorted(folder for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists())
    found = {folder.name: sorted(folder.rglob("*.py")) for folder in folders}
    return {**found, "top": sorted(PACKAGE.glob("*.py"))}


def count(files: list[Path]) -> tuple[int, int]:
    """Return the number of uses of ``Any``, and of lines."""
    texts = [file.read_text(encoding="utf-8") for file in files]
    return sum(1 for text in texts for _ in uses(ast.parse(text))), sum(
        len(text.splitlines()) for text in texts
    )


def uses(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the names ``Any``, also in quoted annotations."""
    for node in ast.walk(tree):
        if (isinstance(node, ast.Name) and node.id == "Any") or (
            isinstance(node, ast.Attribute) and node.attr == "Any"
        ):
            yield node


if __name__ == "__main__":
    main()
