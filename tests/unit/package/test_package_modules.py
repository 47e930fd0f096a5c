"""Public and private modules: one underscore rule, and nothing private in what users read."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from testbed import package_map

AREA_MODULES = [
    name
    for name in package_map.all_modules()
    if any(name.startswith(f"mks_hardening.{area}.") for area in package_map.AREAS)
]


def _is_package(name: str) -> bool:
    return hasattr(import_module(name), "__path__")


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("area", package_map.AREAS)
def test_a_module_is_public_or_has_an_underscore(area: str) -> None:
    """Public: every name in its ``__all__`` is exported by the area. A package holds only its docstring."""
    exported = set(import_module(f"mks_hardening.{area}").__all__)
    for name in [name for name in AREA_MODULES if name.startswith(f"mks_hardening.{area}.")]:
        module = import_module(name)
        if _is_package(name):
            body = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
            assert not _is_private(name), name
            assert [type(node) for node in body] == [ast.Expr], name
        elif not _is_private(name):
            assert module.__all__, name
            assert set(module.__all__) <= exported, name


@pytest.mark.parametrize("area", package_map.AREAS)
def test_no_module_has_the_name_of_something_exported(area: str) -> None:
    package = import_module(f"mks_hardening.{area}")
    inside = {name.rpartition(".")[2] for name in AREA_MODULES if name.startswith(f"{package.__name__}.")}
    assert inside & set(package.__all__) == set()


# --- what the public reads


def _documented(area: str) -> Iterator[tuple[str, str]]:
    package = import_module(f"mks_hardening.{area}")
    yield area, inspect.getdoc(package) or ""
    for name in package.__all__:
        item = getattr(package, name)
        yield name, inspect.getdoc(item) or "" if callable(item) else ""
        if isinstance(item, type):
            for member, value in vars(item).items():
                if not member.startswith("_"):
                    yield f"{name}.{member}", getattr(value, "__doc__", None) or ""


@pytest.mark.parametrize("area", package_map.AREAS)
def test_public_docstrings_name_no_private_module(area: str) -> None:
    modules = {name.removeprefix("mks_hardening.") for name in package_map.all_modules() if _is_private(name)}
    private = re.compile(
        "_core|" + "|".join(rf"\b{re.escape(name.replace('.', '/'))}(?:\.py)?\b" for name in sorted(modules))
    )
    assert {name: match[0] for name, text in _documented(area) if (match := private.search(text))} == {}
