"""Test what users install: the built wheels in fresh environments, without access to the source tree.

1. The newest Python at hand other than that of .venv runs the whole suite, slow cases included. Every further
   Python at hand runs the unit and property tests.
2. The oldest Python runs the library's tests with the lowest versions we say we accept: unit, property and
   integration tests, and those of the documentation's code.
3. An environment with no extra imports every area.

``make test`` has run everything on the Python of .venv with the locked versions. What cannot differ from that is
left out (``CANNOT_DIFFER``), and properties draw 25 examples instead of 100 (the profile ``again``).

The lowest versions are installed, and run their unit and property tests, while the slow tests wait for their
servers. ``REQUIRE_SERVICES=1`` makes a missing 3.11 or 3.13 a failure.
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
# Quick tests that another version of Python or of a dependency cannot change; `-m "not chromium"` leaves out more.
CANNOT_DIFFER = (
    # They build the site with Sphinx, search it and compare two texts: no code of the library runs.
    *(
        "tests/docs/test_docs_site.py",
        "tests/docs/test_docs_search.py",
        "tests/docs/test_docs_translation.py",
    ),
    # They give rendered files to nginx, Prometheus, logrotate and the tools of containers. That each Python renders
    # the same files is tested again (test_deploy_render.py, test_deploy_units.py).
    *(f"deploy/tests/test_deploy_{name}.py" for name in ("containers", "logrotate", "nginx", "watching")),
)

started = time.monotonic()


def main() -> None:
    """Run all of it; stop at the first failure."""
    pythons = find_pythons()
    whole, oldest = whole_suite_version(pythons), min(pythons, key=as_numbers)
    quick = ("-m", "not slow and not chromium", *(f"--ignore={file}" for file in CANNOT_DIFFER))
    with tempfile.TemporaryDirectory(prefix="mks-test-full-") as folder, ThreadPoolExecutor(1) as beside:
        work = Path(folder)
        wheels = build_wheels(work / "dist")
        tree = work / "tree"
        shutil.copytree(ROOT, tree, ignore=left_out)
        for version, python in pythons.items():
            if version in {this_version(), whole}:
                continue  # `make test` has run it with these versions, and the wheel is tried below
            section(f"Python {version}, locked versions, wheel")
            environment = make_environment(work / f"venv-{version}", python, lock="dev", wheels=wheels)
            run_tests(environment, tree, *quick, *UNITS)
        section(f"Python {whole}, locked versions, wheel")
        environment = make_environment(work / f"venv-{whole}", pythons[whole], lock="dev", wheels=wheels)
        run_tests(environment, tree, *quick)
        section(
            f"Python {whole}, slow tests; beside them Python {oldest}, lowest versions, unit and property tests"
        )
        lowest = beside.submit(
            units_of_the_lowest, work, pythons[oldest], wheels=wheels, tree=tree, quick=quick
        )
        # `.ci/run` has tried the deployment kit by `make verify-deploy` before.
        verified = os.environ.get("DEPLOY_VERIFIED") == "1"
        # Two at a time: each starts many servers.
        run_tests(
            environment,
            tree,
            "-n",
            "2",
            "-m",
            "slow",
            *(["--ignore-glob=*/test_deploy_*"] if verified else []),
        )
        section(f"Python {oldest}, lowest versions, wheel")
        try:
            python_of_the_lowest = lowest.result()
        finally:
            say((work / "lowest.log").read_text(encoding="utf-8", errors="replace"))
        run_tests(python_of_the_lowest, tree, *quick, "tests/integration", "tests/docs")
        section("No extra installed")
        import_all_areas(
            make_environment(
                work / "venv-bare", pythons[max(pythons, key=as_numbers)], lock=None, wheels=wheels[:1]
            )
        )
    section("make test-full passed")


def units_of_the_lowest(
    work: Path, python: str, *, wheels: list[str], tree: Path, quick: tuple[str, ...]
) -> Path:
    """Install the lowest versions and run what starts no server, one test at a time; returns the interpreter."""
    with (work / "lowest.log").open("wb") as output:
        environment = make_environment(
            work / "venv-lowest", python, lock="lowest", wheels=wheels, output=output
        )
        run_tests(environment, tree, "-n", "1", *quick, *UNITS, output=output)
    return environment


def left_out(folder: str, names: list[str]) -> set[str]:
    """Names that are not copied; applications of tests keep their source."""
    found = shutil.ignore_patterns(*LEFT_OUT)(folder, names)
    return found - {"src"} if "tests" in Path(folder).parts else found


def find_pythons() -> dict[str, str]:
    """A working interpreter for each version we support, as far as this machine has one."""
    found = {version: python for version in VERSIONS if (python := find_python(version))}
    section(f"Pythons at hand: {', '.join(found) or 'none'}")
    missing = sorted(WANTED - found.keys())
    if missing and os.environ.get("REQUIRE_SERVICES") == "1":
        sys.exit(f"Python {' and '.join(missing)} must be tested and is not here.")
    if missing:
        say(f"!!!!! NOT TESTED, because it is not here: Python {' and '.join(missing)}")
    return found or {this_version(): sys.executable}


def find_python(version: str) -> str | None:
    """Path of an interpreter that runs (the shim of a version manager may not)."""
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
    """The newest version that `make test` did not use, or the only one there is."""
    mine = this_version()
    return max((version for version in pythons if version != mine), key=as_numbers, default=mine)


def this_version() -> str:
    """The version of this interpreter."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def as_numbers(version: str) -> list[int]:
    """A version in its natural order."""
    return [int(part) for part in version.split(".")]


def build_wheels(folder: Path) -> list[str]:
    """The wheels of the library, of the deployment kit and of the reference application, in this order."""
    section("Building wheels")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    projects = (ROOT, ROOT / "deploy", ROOT / "examples" / "knowledge_system")
    for number, project in enumerate(projects):
        run(sys.executable, "-c", code, str(folder / str(number)), cwd=project)
    return [str(next((folder / str(number)).glob("*.whl"))) for number in range(len(projects))]


def make_environment(
    folder: Path, python: str, *, lock: str | None, wheels: list[str], output: IO[bytes] | None = None
) -> Path:
    """A fresh environment from a lock file and our wheels; returns its interpreter."""
    run(python, "-m", "venv", "--without-pip", str(folder), output=output)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder),
        "--disable-pip-version-check",
        "install",
        "-q",
    ]
    pip += ["--root-user-action", "ignore"]
    if lock:
        run(*pip, "--require-hashes", "-r", str(ROOT / "requirements" / f"{lock}.txt"), output=output)
    run(*pip, "--no-deps", "--no-index", *wheels, output=output)
    return folder / "bin" / "python"


def run_tests(python: Path, tree: Path, *arguments: str, output: IO[bytes] | None = None) -> None:
    """The test suite in the copied tree; the environment must not see this one."""
    # The slow tests run nowhere else, so they draw as many examples as ever.
    profile = {} if "slow" in arguments else {"HYPOTHESIS_PROFILE": "again"}
    command = [str(python), "tools/run_tests.py", "-q", "-n", "3", "--dist", "worksteal", *arguments]
    run(*command, cwd=tree, output=output, **profile)


def import_all_areas(python: Path) -> None:
    """Each area alone, in an interpreter of its own."""
    for area in AREAS:
        run(str(python), "-I", "-c", f"import mks_hardening.{area}")


def run(*command: str, cwd: Path = ROOT, output: IO[bytes] | None = None, **variables: str) -> None:
    """Run a program; end with its status when it fails.

    Args:
        command: the program and its arguments.
        cwd: the folder it runs in.
        output: where both of its outputs go, if not to those of this process.
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
    """Say what comes next, and how much time has passed."""
    say(f"\n===== {title} ({time.monotonic() - started:.0f}s)")


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
