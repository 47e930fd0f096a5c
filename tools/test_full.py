"""Test what users install: the built wheels in fresh environments, without access to the source tree.

1. The newest installed Python other than that of .venv runs the whole suite, including slow tests. Every other
   installed Python runs the unit and property tests.
2. The oldest Python runs the library's tests with the lowest accepted versions: unit, property and integration
   tests, and those of the code in the documentation.
3. An environment without extras imports every area.

``make test`` has run everything on the Python of .venv with the locked versions. Tests whose result cannot differ
are skipped (``CANNOT_DIFFER``). In the profile ``again``, properties draw 25 examples instead of 100, and a test
with several tables runs with each row of each table, but not with every combination (``testbed.combinations``).
Slow tests run only here, and completely.

The unit and property tests of 1. and 2. run while the slow tests wait for their servers. With
``REQUIRE_SERVICES=1``, a missing Python 3.11 or 3.13 is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import setup_venv

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
WANTED = {"3.11", "3.13"}
AREAS = (
    "logging",
    "cache",
    "security",
    "asgi",
    "wsgi",
    "db",
    "notify",
    "tasks",
    "settings",
    "testing",
    "compose",
    "cli",
)
LEFT_OUT = (
    "src",
    ".git",
    ".venv*",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "dist",
    "build",
    "var",
    "node_modules",
)

UNITS = ("tests/unit", "tests/property")
# Quick tests whose result does not depend on versions of Python or dependencies; `-m "not chromium"` skips more.
CANNOT_DIFFER = (
    # They build the site with Sphinx, search it, compare texts and read sources: no code of the library runs.
    *(
        "tests/docs/test_docs_site.py",
        "tests/docs/test_docs_search.py",
        "tests/docs/test_docs_translation.py",
        "tests/docs/test_docs_wording.py",
    ),
    # They pass rendered files to nginx, Prometheus, logrotate and container tools. That each Python renders
    # the same files is tested again (test_deploy_render.py, test_deploy_units.py).
    *(f"deploy/tests/test_deploy_{name}.py" for name in ("containers", "logrotate", "nginx", "watching")),
    # They test other servers: nginx, Redis, OpenSSH and restic on several hosts.
    *(f"deploy/tests/test_deploy_{name}.py" for name in ("hosts", "offsite", "release")),
    # They compare rows: what migrations keep, and who may read what. Pages and API run the same code.
    *(f"examples/knowledge_system/tests/test_knowledge_{name}.py" for name in ("migrations", "readers")),
    # They compare a table with the locks that PostgreSQL takes. What reads the SQL has unit tests.
    "check/tests/migrations/test_db_migration_locks.py",
    # They test the servers of the testbed, which all other tests use.
    "tests/integration/package/test_package_testbed.py",
)

started = time.monotonic()


def main() -> None:
    """Run all parts; stop at the first failure."""
    pythons = find_pythons()
    whole, oldest = whole_suite_version(pythons), min(pythons, key=as_numbers)
    marks = "not slow and not chromium and not compatibility"
    quick = ("-m", marks, *(f"--ignore={file}" for file in CANNOT_DIFFER))
    with tempfile.TemporaryDirectory(prefix="mks-test-full-") as folder, ThreadPoolExecutor(1) as beside:
        work = Path(folder)
        wheels = build_wheels(work / "dist")
        tree = work / "tree"
        shutil.copytree(ROOT, tree, ignore=left_out)
        for version, python in pythons.items():
            if version in {this_version(), whole}:
                continue  # `make test` has run it with these versions, and the wheel is tested below
            section(f"Python {version}, locked versions, wheel")
            environment = make_environment(work / f"venv-{version}", python, lock="dev", wheels=wheels)
            run_tests(environment, tree, *quick, *UNITS)
        section(f"Environments of Python {whole}, locked versions, and {oldest}, lowest versions")
        lowest = beside.submit(
            make_environment, work / "venv-lowest", pythons[oldest], lock="lowest", wheels=wheels
        )
        newest = make_environment(work / f"venv-{whole}", pythons[whole], lock="dev", wheels=wheels)
        environments = {"lowest": lowest.result(), "newest": newest}
        section(f"Python {whole}, slow tests; beside them, the unit and property tests of both")
        units = beside.submit(run_units, environments, work, tree=tree, quick=quick)
        # Two at a time: each starts many servers.
        run_tests(newest, tree, "-n", "2", "-m", "slow", *slow_files(tree))
        section(f"Python {whole}: applications from the package index")
        run_tests(newest, tree, "-n", "2", "tests/compatibility")
        section("Unit and property tests")
        try:
            units.result()
        finally:
            for log in sorted(work.glob("*.log")):
                say(f"--- {log.stem}\n{log.read_text(encoding='utf-8', errors='replace')}")
        section(f"Python {whole}, locked versions, wheel: tests with servers")
        run_tests(newest, tree, *quick, *(f"--ignore={folder}" for folder in UNITS))
        section(f"Python {oldest}, lowest versions, wheel: tests with servers")
        run_tests(environments["lowest"], tree, *quick, "tests/integration", "tests/docs")
        section("No extra installed")
        import_all_areas(
            make_environment(
                work / "venv-bare", pythons[max(pythons, key=as_numbers)], lock=None, wheels=wheels[:1]
            )
        )
    section("make test-full passed")


def run_units(environments: dict[str, Path], work: Path, *, tree: Path, quick: tuple[str, ...]) -> None:
    """Run the unit and property tests in each environment; other programs go first."""
    for name, environment in environments.items():
        with (work / f"{name}.log").open("wb") as output:
            run_tests(environment, tree, "-n", "2", *quick, *UNITS, output=output, nice=True)


def slow_files(tree: Path) -> list[str]:
    """Return the test files with slow tests: each worker would collect all others only to leave them out."""
    folders = ["tests", "check/tests", "examples/knowledge_system/tests"]
    if os.environ.get("DEPLOY_VERIFIED") != "1":  # `.ci/run` has run these with `make verify-deploy`
        folders.append("deploy/tests")
    files = sorted(file for folder in folders for file in (tree / folder).rglob("test_*.py"))
    return [str(file.relative_to(tree)) for file in files if "mark.slow" in file.read_text(encoding="utf-8")]


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return names that are not copied; applications in tests keep their source."""
    found = shutil.ignore_patterns(*LEFT_OUT)(folder, names)
    return found - {"src"} if "tests" in Path(folder).parts else found


def find_pythons() -> dict[str, str]:
    """Return a working interpreter for each supported and installed version."""
    found = {version: python for version in VERSIONS if (python := find_python(version))}
    section(f"Python versions found: {', '.join(found) or 'none'}")
    missing = sorted(WANTED - found.keys())
    if missing and os.environ.get("REQUIRE_SERVICES") == "1":
        sys.exit(f"Python {' and '.join(missing)} must be tested but is not installed.")
    if missing:
        say(f"!!!!! NOT TESTED, because it is not installed: Python {' and '.join(missing)}")
    return found or {this_version(): sys.executable}


def find_python(version: str) -> str | None:
    """Return the path of an interpreter that runs; the shim of a version manager may not."""
    question = [f"-c{'import sys; print(sys.version_info[:2])'}"]
    wanted = f"({version.replace('.', ', ')})"
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/local/bin"]:
        candidate = Path(folder) / f"python{version}"
        if candidate.exists():
            answer = subprocess.run([candidate, *question], capture_output=True, text=True, check=False)
            if answer.stdout.strip() == wanted:
                return str(candidate)
    return None


def whole_suite_version(pythons: dict[str, str]) -> str:
    """Return the newest version that ``make test`` did not use, or the only one."""
    mine = this_version()
    return max((version for version in pythons if version != mine), key=as_numbers, default=mine)


def this_version() -> str:
    """Return the version of this interpreter."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def as_numbers(version: str) -> list[int]:
    """Return a version as a tuple, for sorting."""
    return [int(part) for part in version.split(".")]


def build_wheels(folder: Path) -> list[str]:
    """Build the wheels of the library, what checks it, the deployment kit and the example, in this order."""
    section("Building wheels")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    projects = (ROOT, ROOT / "check", ROOT / "deploy", ROOT / "examples" / "knowledge_system")
    for number, project in enumerate(projects):
        run(sys.executable, "-c", code, str(folder / str(number)), cwd=project)
    return [str(next((folder / str(number)).glob("*.whl"))) for number in range(len(projects))]


def make_environment(folder: Path, python: str, *, lock: str | None, wheels: list[str]) -> Path:
    """Create an environment from a lock file and the built wheels; return its interpreter."""
    run(python, "-m", "venv", "--without-pip", str(folder))
    interpreter = folder / "bin" / "python"
    if lock:
        setup_venv.install_lock(lock, python=interpreter)
    setup_venv.install(["--no-deps", "--no-index", *wheels], count=len(wheels), python=interpreter)
    return interpreter


def run_tests(
    python: Path, tree: Path, *arguments: str, output: IO[bytes] | None = None, nice: bool = False
) -> None:
    """Run the test suite in the copied tree, where the source tree is not importable.

    Args:
        python: interpreter of the environment.
        tree: the copied tree.
        arguments: of pytest; they override the defaults.
        output: file for stdout and stderr; by default those of this process.
        nice: whether other programs go first when processors are busy.
    """
    variables = {"COMPATIBILITY_VENVS": str(ROOT / ".venv-compatibility")}
    if "slow" not in arguments:  # the slow tests run nowhere else, so they draw the full number of examples
        variables["HYPOTHESIS_PROFILE"] = "again"
    command = ["nice", "-n", "5"] if nice else []
    command += [str(python), "tools/run_tests.py", "-q", "-n", "3", "--dist", "worksteal", *arguments]
    run(*command, cwd=tree, output=output, **variables)


def import_all_areas(python: Path) -> None:
    """Import each area in its own interpreter."""
    for area in AREAS:
        run(str(python), "-I", "-c", f"import mks_hardening.{area}")


def run(*command: str, cwd: Path = ROOT, output: IO[bytes] | None = None, **variables: str) -> None:
    """Run a program; exit with its status if it fails.

    Args:
        command: program and arguments.
        cwd: working directory.
        output: file for stdout and stderr; by default those of this process.
        variables: environment variables.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    status = subprocess.run(
        command,
        cwd=cwd,
        env=environment | variables,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    ).returncode
    if status:
        sys.exit(f"failed ({status}): {' '.join(command)}")


def section(title: str) -> None:
    """Print the next step and the elapsed time."""
    say(f"\n===== {title} ({time.monotonic() - started:.0f}s)")


def say(text: str) -> None:
    """Print one line and flush it."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
