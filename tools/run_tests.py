"""Run the test suite; in CI, repeat a few failed tests alone.

Thousands of tests start real servers on a shared machine. If ``CI`` is set, up to five failed tests are run again,
one after another. Those that pass are listed as flaky at the end, and the run counts as passed; a test that also
fails alone fails the run. On a developer's machine, and with ``--strict``, nothing is repeated.

Bytecode is written even if ``PYTHONDONTWRITEBYTECODE`` is set, as in many containers: otherwise every process of
the run would compile the package again, and every worker all tests. In a fresh copy, everything is compiled before
pytest starts: the workers import the tests in the same order at the same time, and each would compile all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _pytest.assertion.rewrite import PYC_TAIL, _rewrite_test, _write_pyc, get_cache_dir, try_makedirs

_MOST = 5
_SLOWEST = ("--durations=25", "--durations-min=3")
_TESTS_FAILED = 1
_TESTS = ("tests", "deploy/tests", "examples/knowledge_system/tests")
_SILENT: Any = SimpleNamespace(trace=str)
_NO_CONFIG: Any = None


def main(arguments: list[str]) -> int:
    """Run pytest with these arguments; return its status."""
    compile_asserts(source_files(arguments))
    strict = "--strict" in arguments or not os.environ.get("CI")
    under = ["coverage", "run", "-m"] if "--coverage" in arguments else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    rest = [each for each in arguments if each not in {"--strict", "--coverage"}]
    with tempfile.TemporaryDirectory(prefix="mks-run-tests-") as folder:
        command = [sys.executable, "-m", *under, "pytest", "-o", f"cache_dir={folder}", *_SLOWEST, *rest]
        status = subprocess.run(command, check=False, env=environment).returncode
        failed = _failed(Path(folder))
        if strict or status != _TESTS_FAILED or not 1 <= len(failed) <= _MOST:
            return status
        _say("These tests failed in the parallel run and are now repeated alone:", failed)
        again = [*command, "--last-failed", "-n", "0"]
        status = subprocess.run(again, check=False, env=environment).returncode
    if status == 0:
        _say("FLAKY: failed in the parallel run, passed alone:", failed)
    return status


def source_files(arguments: Iterable[str]) -> list[Path]:
    """Return what pytest will import and rewrite: the library, and the tests that these arguments select."""
    paths = [Path(each.partition("::")[0]) for each in arguments if not each.startswith("-")]
    selected = [path for path in paths if path.exists()] or [Path(each) for each in _TESTS]
    files = {path for path in selected if path.suffix == ".py"}
    for folder in selected:
        files |= {*folder.rglob("test_*.py"), *folder.rglob("conftest.py")}
    # The entry point of a plug-in makes pytest rewrite its whole package.
    library = importlib.util.find_spec("mks_hardening")
    for place in library.submodule_search_locations or () if library is not None else ():
        files.update(Path(place).rglob("*.py"))
    return sorted(file.absolute() for file in files)


def compile_asserts(files: Iterable[Path]) -> None:
    """Write the bytecode that pytest writes on import, where it is missing or older than the source."""
    outdated = [file for file in files if not _is_compiled(file)]
    if len(outdated) >= 20:
        with ProcessPoolExecutor() as processors:
            list(processors.map(_compile, outdated, chunksize=8))


def _is_compiled(file: Path) -> bool:
    bytecode = _bytecode_of(file)
    return bytecode.exists() and bytecode.stat().st_mtime >= file.stat().st_mtime


def _compile(file: Path) -> None:
    bytecode = _bytecode_of(file)
    with contextlib.suppress(SyntaxError, ValueError):  # pytest reports it
        if try_makedirs(bytecode.parent):
            source, code = _rewrite_test(file, _NO_CONFIG)
            _write_pyc(_SILENT, code, source, bytecode)


def _bytecode_of(file: Path) -> Path:
    return get_cache_dir(file) / f"{file.stem}{PYC_TAIL}"


def _failed(folder: Path) -> list[str]:
    file = folder / "v" / "cache" / "lastfailed"
    return sorted(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []


def _say(title: str, tests: list[str]) -> None:
    sys.stdout.write("\n".join((f"\n===== {title}", *(f"  {test}" for test in tests), "", "")))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
