"""Modules and requirements of the package, for the tests of its structure."""

from __future__ import annotations

import ast
import pkgutil
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import mks_hardening

PACKAGE = Path(mks_hardening.__path__[0])
ROOT = Path(__file__).resolve().parents[3]
"""The working tree, or the copy of tests and examples that stands beside an installed wheel."""

AREAS = ("asgi", "cache", "db", "logging", "notify", "security", "tasks", "wsgi")


def all_modules() -> list[str]:
    """Every module of the package, private ones too, in order."""
    walked = pkgutil.walk_packages(mks_hardening.__path__, "mks_hardening.", onerror=lambda _: None)
    return ["mks_hardening", *sorted(module.name for module in walked)]


def public_modules() -> list[str]:
    """Modules whose names users may import: the package, its areas and its top-level modules."""
    tops = [
        name for name in all_modules() if name.count(".") < 2 and not name.rpartition(".")[2].startswith("_")
    ]
    return tops + [name for name in all_modules() if name.startswith("mks_hardening.contrib.")]


def source_files() -> list[Path]:
    """Every Python file of the package as it is installed here."""
    return sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """Dotted name of a source file."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def syntax_trees() -> dict[str, ast.Module]:
    """Every module of the package, parsed."""
    return {module_of(file): ast.parse(file.read_text(encoding="utf-8")) for file in source_files()}


def extras() -> dict[str, set[str]]:
    """Requirements of each extra, from the metadata of what is installed, with `all` left out."""
    found: dict[str, set[str]] = {}
    for line in requires("mks-hardening") or []:
        requirement = Requirement(line)
        extra = str(requirement.marker).partition("==")[2].strip(" '\"") if requirement.marker else ""
        requirement.marker = None
        if requirement.name != "mks-hardening":
            found.setdefault(extra, set()).add(str(requirement))
    return found


def pyproject() -> dict[str, Any]:
    """The project file."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def third_party() -> set[str]:
    """Return the third-party packages that the import contract allows."""
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    return next(
        set(contract["forbidden_modules"]) for contract in contracts if contract["id"] == "third-party"
    )


def needs_source_tree() -> None:
    """Skip what only makes sense in the working tree, when the installed wheel is being tested."""
    if not (ROOT / "src" / "mks_hardening").is_dir():
        pytest.skip("looks at the working tree; here the wheel is tested")
