"""Who may import whom: the contracts hold, and they bite."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from testbed import package_map

STRING_IMPORTERS = {"import_module", "__import__", "find_spec", "load_module"}


def _lint(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
        ],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _broken(report: str) -> set[str]:
    """First words of the contracts that a report calls broken."""
    return {" ".join(line.split()[:2]) for line in report.splitlines() if "BROKEN" in line}


@pytest.fixture
def copied_project(tmp_path: Path) -> Path:
    package_map.needs_source_tree()
    shutil.copytree(package_map.ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(package_map.ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_are_kept(copied_project: Path) -> None:
    done = _lint(copied_project)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("wsgi/__init__.py", "from mks_hardening.cache import keys", {"Layers: each"}),
        ("logging/__init__.py", "def later():\n    import redis", {"Only the"}),
        ("_core/clock.py", "def later():\n    import flask", {"Only the", "No framework"}),
        ("_core/clock.py", "def later():\n    from mks_hardening import wsgi", {"Layers: each", "No cycles"}),
        ("exceptions.py", "def later():\n    import mks_hardening._core.clock", {"Layers: each"}),
    ],
)
def test_contracts_bite(copied_project: Path, file: str, line: str, broken: set[str]) -> None:
    target = copied_project / "src" / "mks_hardening" / file
    target.write_text(f"{target.read_text()}\n\n{line}\n")
    done = _lint(copied_project)
    assert done.returncode != 0
    assert _broken(done.stdout) >= broken


def test_a_module_that_imports_nothing_must_not_stay_in_the_list(copied_project: Path) -> None:
    project = copied_project / "pyproject.toml"
    text = project.read_text()
    project.write_text(
        text.replace("ignore_imports = [", 'ignore_imports = ["mks_hardening._core.clock -> redis",', 1)
    )
    done = _lint(copied_project)
    assert done.returncode != 0
    assert "mks_hardening._core.clock -> redis" in done.stdout + done.stderr


def test_a_new_top_level_module_needs_a_layer(copied_project: Path) -> None:
    (copied_project / "src/mks_hardening/newcomer.py").touch()
    done = _lint(copied_project)
    assert done.returncode != 0
    assert "newcomer" in done.stdout


# --- what a graph of imports cannot see


def _calls_by_string(tree: ast.AST) -> list[ast.Call]:
    def name(call: ast.Call) -> str:
        return getattr(call.func, "attr", "") or getattr(call.func, "id", "")

    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and name(node) in STRING_IMPORTERS]


def _own_name_only(argument: ast.expr) -> bool:
    """Whether an argument of ``import_module`` leads nowhere but into this package."""
    match argument:
        case ast.Constant(value=str(name)):
            return name.split(".")[0] == "mks_hardening"
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id="__name__")), *_]):
            return True
        case ast.JoinedStr(values=[ast.Constant(value=str(prefix)), *_]):
            return prefix.startswith("mks_hardening.")
        case ast.Name(id="home"):  # the table of a lazy facade, looked at below
            return True
        case ast.Name(id="operators_module"):  # an application that the operator names on the command line
            return True
    return False


def test_nothing_foreign_is_imported_by_string() -> None:
    """Third-party packages are imported by import statements, which the contracts see."""
    foreign = [
        f"{file}:{call.lineno}"
        for file, tree in package_map.syntax_trees().items()
        for call in _calls_by_string(tree)
        if not call.args or not _own_name_only(call.args[0])
    ]
    assert foreign == []


@pytest.mark.parametrize("area", package_map.AREAS)
def test_facades_point_into_the_package(area: str) -> None:
    homes: dict[str, list[str]] = import_module(f"mks_hardening.{area}")._HOME
    assert homes
    shared = ("mks_hardening._core.", "mks_hardening._edge.")
    assert all(home.startswith((*shared, f"mks_hardening.{area}.")) for home in homes)


@pytest.mark.parametrize("name", [name for name in package_map.public_modules() if "._" not in name])
def test_what_is_exported_reports_the_facade_as_its_module(name: str) -> None:
    package = import_module(name)
    exported = [getattr(package, name) for name in getattr(package, "__all__", ())]
    elsewhere = {item.__name__ for item in exported if callable(item) and item.__module__ != package.__name__}
    shared = {name for names in getattr(package, "_SHARED", {}).values() for name in names}
    assert elsewhere == {name for name in shared if callable(getattr(package, name))}


def test_stubs_of_facades_are_up_to_date() -> None:
    package_map.needs_source_tree()
    command = [sys.executable, "tools/write_facades.py", "--check"]
    done = subprocess.run(command, cwd=package_map.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_third_party_package_is_known() -> None:
    roots = {
        name.split(".")[0]: f"{file}:{node.lineno}"
        for file, tree in package_map.syntax_trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        )
    }
    known = {*sys.stdlib_module_names, "mks_hardening", "_typeshed", *package_map.third_party()}
    assert {root: place for root, place in roots.items() if root not in known} == {}
