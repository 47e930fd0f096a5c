"""Parsed Python files of a source tree, without installed packages."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

__all__ = ["Module", "SourceTree", "called_name", "walk_top"]

_SKIPPED: Final = frozenset(
    {
        "build",
        "dist",
        "doc",
        "docs",
        "env",
        "examples",
        "htmlcov",
        "migrations",
        "node_modules",
        "site-packages",
        "static",
        "test",
        "tests",
        "venv",
    }
)
_KIT: Final = frozenset({"mks-check", "mks-deploy", "mks-hardening"})
_BROUGHT: Final = frozenset({"celery", "hiredis", "psycopg", "redis"})
_OF_DEVELOPMENT: Final = re.compile(r"(^|[-_.])(ci|dev|development|docs?|lint|local|tests?|testing)([-_.]|$)")
_MOST_FILES: Final = 5000
_LARGEST: Final = 1024**2


@dataclass(frozen=True)
class Module:
    """One Python file.

    Attributes:
        name: name by which it is imported.
        path: path below the tree.
        tree: its syntax.
    """

    name: str
    path: str
    tree: ast.Module

    @cached_property
    def imported(self) -> dict[str, str]:
        """Local names of the module, with the whole name of what each was imported from."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    local = alias.asname or alias.name.partition(".")[0]
                    found[local] = alias.name if alias.asname else local
            elif isinstance(node, ast.ImportFrom):
                origin = self.origin(node)
                found.update({alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names})
        return found

    def whole_name(self, node: ast.expr) -> str:
        """Return the name of what an expression refers to, such as ``flask.Flask``; empty if it has none."""
        name = called_name(node)
        first, dot, rest = name.partition(".")
        return f"{self.imported.get(first, first)}{dot}{rest}" if name else ""

    def origin(self, node: ast.ImportFrom) -> str:
        """Return the whole name of the module that an import takes names from."""
        if not node.level:
            return node.module or ""
        package = self.name.split(".")
        if not self.path.endswith("__init__.py"):
            package = package[:-1]
        package = package[: len(package) - node.level + 1]
        return ".".join([*package, *([node.module] if node.module else [])])


class SourceTree:
    """A folder with the source of one application.

    Args:
        folder: the folder, for example of a clone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every parsable module by name, without virtual environments, tests and hidden directories."""
        found: dict[str, Module] = {}
        for file in self._files():
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError):
                continue
            module = Module(self._name(file), str(file.relative_to(self.folder)), tree)
            found.setdefault(module.name, module)
        return found

    @cached_property
    def project(self) -> dict[str, Any]:
        """Content of ``pyproject.toml``; empty if there is none that can be read."""
        try:
            return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            return {}

    @cached_property
    def requirements(self) -> dict[str, str]:
        """Names of distributions that the application requires itself, normalized, with the file of each."""
        table, poetry = self.project.get("project", {}), self.project.get("tool", {}).get("poetry", {})
        texts = [*table.get("dependencies", ()), *poetry.get("dependencies", ())]
        found = {name: "pyproject.toml" for text in texts if (name := _normalized(text))}
        for file in sorted((*self.folder.glob("requirements*.*"), *self.folder.glob("requirements/*.*"))):
            if file.suffix in {".in", ".txt"} and not _OF_DEVELOPMENT.search(file.stem):
                for name in _own_requirements(file.read_text(encoding="utf-8", errors="replace")):
                    found.setdefault(name, str(file.relative_to(self.folder)))
        return found

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders from which the application is imported."""
        source = self.folder / "src"
        return (self.folder, source) if source.is_dir() else (self.folder,)

    def _files(self) -> Iterator[Path]:
        number = 0
        for place, folders, files in os.walk(self.folder):
            here = Path(place)
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".")
                and name not in _SKIPPED
                and not (here / name / "pyvenv.cfg").exists()
            )
            for name in sorted(files):
                file = here / name
                if name.endswith(".py") and not name.startswith("test_") and file.stat().st_size < _LARGEST:
                    number += 1
                    if number > _MOST_FILES:
                        return
                    yield file

    def _name(self, file: Path) -> str:
        root = self.folder / "src" if (self.folder / "src") in file.parents else self.folder
        parts = file.relative_to(root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _normalized(text: object) -> str:
    """Return the name of a requirement (PEP 503); empty if there is none."""
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) if isinstance(text, str) else None
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


def _own_requirements(text: str) -> Iterator[str]:
    """Yield what a locked file names, without what only the deployment kit brings.

    uv and pip-compile note below each name what requires it. Without notes, a name that the kit requires too may be
    the kit's.
    """
    required_by = dict[str, set[str]]()
    name = ""
    for line in text.splitlines():
        name = _normalized(line) or name
        noted = re.match(r".*# via\b(.*)|\s+#(.*)", line)
        words = (noted[1] or noted[2] or "").split(",") if noted else ()
        required_by.setdefault(name, set()).update(word for each in words if (word := each.strip()))
    for each, others in required_by.items():
        of_kit = others <= _KIT if others else each in _BROUGHT and not _KIT.isdisjoint(required_by)
        if each and not of_kit:
            yield each


def called_name(node: ast.expr) -> str:
    """Return the dotted name of an expression as it is written; empty if it is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = called_name(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def walk_top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported, those in branches included."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            if "__main__" not in ast.dump(node.test):
                yield from walk_top(node.body)
            yield from walk_top(node.orelse)
        elif isinstance(node, ast.With):
            yield from walk_top(node.body)
        elif isinstance(node, ast.Try):
            for block in (node.body, *(handler.body for handler in node.handlers), node.orelse):
                yield from walk_top(block)
