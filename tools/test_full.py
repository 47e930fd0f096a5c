"""Test what users install: the built wheels in fresh environments, without access to the source tree.

1. The newest Python at hand other than that of .venv runs the whole suite, slow cases included, without the quick
   tests of a browser: ``make test`` ran those, and a browser does not see the version of Python. Every further
   Python at hand runs the unit and property tests.
2. The oldest Python runs the library's tests with the lowest versions we say we accept. The properties are left
   out: they are about our own logic, which ``make test`` has run on the same Python.
3. An environment with no extra imports every area.

All of it keeps within half an hour on two cores. ``REQUIRE_SERVICES=1`` makes a missing 3.11 or 3.13 a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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

started = time.monotonic()


def main() -> None:
    """Run all of it; stop at the first failure."""
    pythons = find_pythons()
    with tempfile.TemporaryDirectory(prefix="mks-test-full-") as folder:
        work = Path(folder)
        wheels = build_wheels(work / "dist")
        tree = work / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        whole = whole_suite_version(pythons)
        for version, python in pythons.items():
            if version == this_version() != whole:
                continue  # `make test` has run it with these versions, and the wheel is tried below
            section(f"Python {version}, locked versions, wheel")
            environment = make_environment(work / f"venv-{version}", python, lock="dev", wheels=wheels)
            part = [] if version == whole else ["tests/unit", "tests/property"]
            run_tests(environment, tree, "-m", "not slow and not chromium", *part)
            if version == whole:
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
        oldest = min(pythons)
        section(f"Python {oldest}, lowest versions, wheel")
        lowest = make_environment(work / "venv-lowest", pythons[oldest], lock="lowest", wheels=wheels)
        run_tests(
            lowest, tree, "-m", "not slow and not chromium", "tests/unit", "tests/integration", "tests/docs"
        )
        section("No extra installed")
        import_all_areas(
            make_environment(work / "venv-bare", pythons[max(pythons)], lock=None, wheels=wheels[:1])
        )
    section("make test-full passed")


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


def make_environment(folder: Path, python: str, *, lock: str | None, wheels: list[str]) -> Path:
    """A fresh environment from a lock file and our wheels; returns its interpreter."""
    run(python, "-m", "venv", "--without-pip", str(folder))
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
        run(*pip, "--require-hashes", "-r", str(ROOT / "requirements" / f"{lock}.txt"))
    run(*pip, "--no-deps", "--no-index", *wheels)
    return folder / "bin" / "python"


def run_tests(python: Path, tree: Path, *arguments: str) -> None:
    """The test suite in the copied tree; the environment must not see this one."""
    run(str(python), "tools/run_tests.py", "-q", "-n", "3", "--dist", "worksteal", *arguments, cwd=tree)


def import_all_areas(python: Path) -> None:
    """Each area alone, in an interpreter of its own."""
    for area in AREAS:
        run(str(python), "-I", "-c", f"import mks_hardening.{area}")


def run(*command: str, cwd: Path = ROOT) -> None:
    """Run a program; end with its status when it fails."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    status = subprocess.run(
        command, cwd=cwd, env=environment, check=False, stdin=subprocess.DEVNULL
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
