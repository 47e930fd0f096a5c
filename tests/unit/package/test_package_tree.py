"""The shape of the tree: names that shadow nothing, one documented path for each name, nothing of this machine."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from testbed import package_map


def test_no_file_shadows_another_top_level_module() -> None:
    taken = (set(sys.stdlib_module_names) | set(packages_distributions())) - {
        "mks_hardening",
        "knowledge_system",
        "guard",  # of fastapi-guard, a peer of the benchmarks; ours is inside a package
        "decorator",  # of dogpile.cache, a peer too
        "csp",  # of django-csp, which a migration page runs; ours is inside a package too
    }
    names = {part for module in package_map.all_modules() for part in module.split(".")}
    assert (names - {"__main__", "logging"}) & taken == set()


def test_test_files_have_unique_names_and_no_packages() -> None:
    tests = package_map.ROOT / "tests"
    names = Counter(file.name for file in tests.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
    assert list(tests.rglob("__init__.py")) == [tests / "support" / "testbed" / "__init__.py"]


@pytest.mark.parametrize("folder", ["unit", "property"])
def test_quick_tests_do_not_sleep(folder: str) -> None:
    sleepers = [
        f"{file.name}:{node.lineno}"
        for file in (package_map.ROOT / "tests" / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "sleep"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, int | float)
        and node.args[0].value > 0.05
    ]
    assert sleepers == []


def test_locks_can_be_taken_again_by_the_thread_that_holds_them() -> None:
    """A signal handler or a destructor may come back in. The breaker's never makes anybody wait."""
    plain = [
        module
        for module, tree in package_map.syntax_trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node) in {"Lock()", "threading.Lock()"}
    ]
    assert plain == ["mks_hardening._core.resilience.breaker"]


# --- names


@pytest.mark.parametrize("name", package_map.public_modules())
def test_public_names_exist_once_and_are_public(name: str) -> None:
    module = import_module(name)
    names = list(getattr(module, "__all__", ()))
    assert len(names) == len(set(names))
    assert all(public == "__version__" or not public.startswith("_") for public in names)
    assert all(hasattr(module, public) for public in names)
    assert set(names) <= set(dir(module))


@pytest.mark.parametrize("name", package_map.public_modules())
def test_looking_around_never_raises(name: str) -> None:
    module = import_module(name)
    assert not hasattr(module, "no_such_name")
    assert dict(inspect.getmembers(module)).keys() >= set(dir(module))
    assert name in pydoc.render_doc(module)


@pytest.mark.parametrize("name", package_map.AREAS)
def test_facades_list_only_what_they_offer(name: str) -> None:
    module = import_module(f"mks_hardening.{name}")
    assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_every_name_has_one_documented_path() -> None:
    homes: dict[str, set[str]] = {}
    for area in package_map.AREAS:
        for name in import_module(f"mks_hardening.{area}").__all__:
            homes.setdefault(name, set()).add(area)
    # The two shells offer the same names; what both share is documented once, see the test of __module__.
    shared = {name: areas for name, areas in homes.items() if len(areas) > 1}
    assert {name: areas for name, areas in shared.items() if areas != {"asgi", "wsgi"}} == {}


def _method(kind: type, name: str) -> object:
    found = inspect.getattr_static(kind, name, None)
    return getattr(found, "__func__", found)


@pytest.mark.parametrize("name", package_map.AREAS)
def test_both_forms_of_a_method_take_the_same_arguments(name: str) -> None:
    """``hit`` and ``ahit``: names, order, kinds and defaults."""
    module = import_module(f"mks_hardening.{name}")
    kinds = [kind for each in module.__all__ if inspect.isclass(kind := getattr(module, each))]
    different = [
        f"{kind.__name__}.a{plain}"
        for kind in kinds
        for plain in dir(kind)
        if not plain.startswith("_")
        and inspect.isfunction(_method(kind, plain))
        and inspect.iscoroutinefunction(_method(kind, f"a{plain}"))
        and _arguments(kind, plain) != _arguments(kind, f"a{plain}")
    ]
    assert different == []


def _arguments(kind: type, name: str) -> list[tuple[str, object, object]]:
    parameters = inspect.signature(getattr(kind, name)).parameters.values()
    return [(each.name, each.kind, each.default) for each in parameters]


# --- what type checkers are told to overlook


def test_every_ignore_has_a_code_and_a_reason() -> None:
    ignore = re.compile(r"#\s*(?:type|pyright):\s*ignore(?P<code>\[[\w, -]+\])?(?P<rest>.*)")
    bare = [
        f"{package_map.module_of(file)}: {match[0]}"
        for file in package_map.source_files()
        for match in ignore.finditer(file.read_text(encoding="utf-8"))
        if not match["code"] or not re.search(r"#.*\w+ \w+", match["rest"])
    ]
    assert bare == []


# --- nothing of this machine, nothing of a registry


def _committed() -> list[Path]:
    package_map.needs_source_tree()
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=package_map.ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [package_map.ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_names_a_registry_or_a_path_of_a_machine() -> None:
    hosts = ["pypi" + ".org", "files." + "pythonhosted", "registry." + "npmjs"]
    forbidden = re.compile(
        "|".join(
            [
                *map(re.escape, hosts),
                r"--(?:extra-)?index-" + "url[ =]",
                r'"resolved": *"' + "http",
                # Those of root on the hosts that the kit sets up are no paths of this machine.
                r"/(?:root|home/\w+)/\.(?!ssh/|mks-deploy\b|bashrc)",
                "/" + "work/(?:main|shared)",
            ]
        )
    )
    found = [
        f"{file.relative_to(package_map.ROOT)}: {match[0]}"
        for file in _committed()
        if file.is_file() and (match := forbidden.search(file.read_text(errors="ignore")))
    ]
    assert found == []


@pytest.mark.parametrize("name", ["dev", "demo", "lowest", "node"])
def test_lock_files_pin_every_package_by_hash(name: str) -> None:
    text = (package_map.ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    assert all(re.match(r"[\w.-]+(?:\[[\w,]+\])?==\S+.* --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_demo_lock_is_a_part_of_the_dev_lock() -> None:
    def pins(name: str) -> set[str]:
        text = (package_map.ROOT / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^[\w.-]+==[\w.+!-]+", text, re.MULTILINE))

    assert pins("demo") <= pins("dev")
