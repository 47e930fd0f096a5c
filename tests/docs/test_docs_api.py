"""The reference: each name that people use has an example, which is executed, and says what it raises."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.testing import FrozenClock
from testbed import package_map

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "docs" / "_extensions"

if not EXTENSIONS.exists():
    pytest.skip("the documentation is not part of the wheel", allow_module_level=True)
sys.path.insert(0, str(EXTENSIONS))
try:
    from api_examples import FOLDER, examples, full_name
finally:
    sys.path.remove(str(EXTENSIONS))

REFERENCE = ROOT / "docs" / "en" / "reference" / "api"
PAGES = {file.name.removesuffix(".md") for file in REFERENCE.glob("*.md")} - {"index"}
# Adapters are shown at work by whole programs: docs/snippets/adapters and docs/snippets/frameworks.
AREAS = sorted(name for name in PAGES if not name.startswith("contrib."))
MODULES = sorted(file.stem for file in FOLDER.glob("*.pycon"))
# Records are handed out and not made; these are made by whoever uses them.
MADE_BY_USERS = {
    *("AlertPolicy", "Daily", "Every", "HardeningSettings", "Limit", "CustomResponse", "Rotation"),
    *("SignInAccount", "SignInClient"),
}


def used_directly(module: str) -> set[str]:
    """Functions, and classes that are neither errors nor protocols nor records that are only handed out."""
    package = importlib.import_module(full_name(module))
    shared = {name for names in getattr(package, "_SHARED", {}).values() for name in names}
    return {name for name in package.__all__ if name not in shared and _is_used(name, getattr(package, name))}


def _is_used(name: str, item: object) -> bool:
    if not isinstance(item, type):
        return inspect.isroutine(item)
    is_record = hasattr(item, "__dataclass_fields__") or hasattr(item, "_fields")
    is_protocol = getattr(item, "_is_protocol", False)
    return not (issubclass(item, BaseException) or is_protocol or is_record) or name in MADE_BY_USERS


def test_every_name_that_is_used_has_an_example() -> None:
    lacking = {
        f"{module}.{name}" for module in AREAS for name in used_directly(module) - examples(module).keys()
    }
    assert lacking == set()
    assert sum(len(used_directly(module)) for module in AREAS) >= 169


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_of_names_in_order(module: str) -> None:
    assert [*examples(module)] == sorted(examples(module))
    assert examples(module).keys() <= {*importlib.import_module(full_name(module)).__all__}


CASES = [(module, name) for module in MODULES for name in examples(module)]


@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize(("module", "name"), CASES, ids=[".".join(case) for case in CASES])
def test_the_example_does_what_it_shows(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parsed = doctest.DocTestParser().get_doctest(examples(module)[name], {}, name, f"{module}.pycon", 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    runner.run(parsed, out=said.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert said == []


# --- what is raised is said


def _own_raises(function: ast.AST) -> set[str]:
    """The errors that a function raises by name, not those of functions inside it."""
    found: set[str] = set()
    open_ones = [*ast.iter_child_nodes(function)]
    while open_ones:
        node = open_ones.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(name)) | ast.Name(name)) if name[0].isupper():
                found.add(name)
        open_ones += ast.iter_child_nodes(node)
    return found - {"NotImplementedError", "AssertionError"}


def _members(name: str, item: object) -> Iterator[tuple[str, Any, str]]:
    """A public function, or the public methods of a class, each with its docstring; a class has that of init."""
    if not isinstance(item, type):
        yield name, item, inspect.getdoc(item) or ""
        return
    members = {name: found for kind in reversed(item.__mro__) for name, found in vars(kind).items()}
    for member, found in members.items():
        function = getattr(found, "__func__", getattr(found, "fget", found))
        if inspect.isfunction(function) and (member == "__init__" or not member.startswith("_")):
            doc = inspect.getdoc(item if member == "__init__" else function) or ""
            yield f"{name}.{member}", function, doc


@cache
def _functions(file: Path) -> dict[int, ast.AST]:
    """The functions of a source file by their first line, decorators included."""
    return {
        min([node.lineno, *(each.lineno for each in node.decorator_list)]): node
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def _source(function: Any) -> ast.AST | None:
    """What was written; ``None`` for what dataclasses make, and for bases in other packages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    # Compiled code may name the file by another way that once led to it.
    _, ours, place = code.co_filename.rpartition("/mks_hardening/") if code else ("", "", "")
    return _functions(package_map.PACKAGE / place).get(code.co_firstlineno) if ours and code else None


def silent() -> set[str]:
    """Public functions that raise an error by name and do not say so."""
    found = set[str]()
    for module in sorted(PAGES):
        package = importlib.import_module(full_name(module))
        for name in package.__all__:
            for path, function, doc in _members(name, getattr(package, name)):
                written = _source(function)
                # The asyncio version of a method has the body of that method, whose docstring has the errors.
                body: object = inspect.unwrap(function)
                if body is not function and path.endswith(f".a{getattr(body, '__name__', '')}"):
                    continue
                if written is not None and _own_raises(written) and "Raises:" not in doc:
                    found.add(f"{module}.{path}")
    return found


def test_whoever_raises_says_so() -> None:
    assert silent() == set()
    assert _source(inspect.unwrap(FrozenClock.advance)) is not None
