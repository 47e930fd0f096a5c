"""Rooms: one underscore rule, small folders and modules, nothing private in what the public reads."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from testbed import package_map

MOST_MODULES = 16
MOST_LINES = 400
AREA_MODULES = [
    name
    for name in package_map.all_modules()
    if any(name.startswith(f"mks_hardening.{area}.") for area in package_map.AREAS)
]


def _is_room(name: str) -> bool:
    return hasattr(import_module(name), "__path__")


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("name", AREA_MODULES)
def test_a_module_is_public_or_has_an_underscore(name: str) -> None:
    """Public: every name in its ``__all__`` is exported by the area. A room holds only its docstring."""
    module, area = import_module(name), import_module(".".join(name.split(".")[:2]))
    if _is_room(name):
        body = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
        assert not _is_private(name)
        assert [type(node) for node in body] == [ast.Expr]
    elif not _is_private(name):
        assert module.__all__
        assert set(module.__all__) <= set(area.__all__)


@pytest.mark.parametrize("area", package_map.AREAS)
def test_no_module_has_the_name_of_something_exported(area: str) -> None:
    package = import_module(f"mks_hardening.{area}")
    inside = {name.rpartition(".")[2] for name in AREA_MODULES if name.startswith(f"{package.__name__}.")}
    assert inside & set(package.__all__) == set()


def test_folders_are_small() -> None:
    folders = {file.parent for file in package_map.source_files()}
    modules = {
        folder: len([file for file in folder.glob("*.py") if file.name != "__init__.py"])
        for folder in folders
    }
    assert {str(folder): number for folder, number in modules.items() if number > MOST_MODULES} == {}


def test_modules_are_short() -> None:
    lines = {
        package_map.module_of(file): len(file.read_text().splitlines()) for file in package_map.source_files()
    }
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}


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


_DIRECTIVE = re.compile(r"#\s*(noqa|type:|pyright:|pragma:|fmt:|ruff:)")
_NO_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def _comments_and_code(file: Path) -> tuple[int, int]:
    """Lines of comments, and of code; docstrings are neither, nor is what tools are told."""
    comments, code = 0, set[int]()
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            comments += not _DIRECTIVE.match(token.string)
        elif token.type not in _NO_CODE:
            stands_alone = token.type == tokenize.STRING and before in {tokenize.NEWLINE, tokenize.INDENT}
            if not stands_alone:
                code.update(range(token.start[0], token.end[0] + 1))
        if token.type not in {tokenize.COMMENT, tokenize.NL, tokenize.DEDENT}:
            before = token.type
    return comments, len(code)


def test_comments_say_why_and_not_too_often() -> None:
    """Four to nine in a hundred lines of code, over the whole package (structlog 9, werkzeug 8, starlette 6).

    The floor lies a little below the four, so that a new module without a question does not have to invent one.
    """
    counts = [_comments_and_code(file) for file in package_map.source_files()]
    comments, code = (sum(column) for column in zip(*counts, strict=True))
    assert 3.8 <= 100 * comments / code <= 9
