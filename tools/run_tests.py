"""Run the test suite; in CI, repeat a few failed tests alone.

Thousands of tests start real servers on a shared machine. If ``CI`` is set, up to five failed tests are run again,
one after another. Those that pass are listed as flaky at the end and added to the file that ``FLAKY_TESTS`` names,
which ``.ci/run`` reads: a few of them pass, more fail the run. A test that also fails alone fails it at once. On a
developer's machine, and with ``--strict``, nothing is repeated.

Bytecode is written even if ``PYTHONDONTWRITEBYTECODE`` is set, as in many containers: otherwise every process of
the run would compile the package again, and every worker all tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_MOST = 5
_SLOWEST = ("--durations=25", "--durations-min=3")
_TESTS_FAILED = 1


def main(arguments: list[str]) -> int:
    """Run pytest with these arguments; return its status."""
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
        if listed := os.environ.get("FLAKY_TESTS"):
            with Path(listed).open("a", encoding="utf-8") as file:
                file.writelines(f"{test}\n" for test in failed)
    return status


def _failed(folder: Path) -> list[str]:
    file = folder / "v" / "cache" / "lastfailed"
    return sorted(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []


def _say(title: str, tests: list[str]) -> None:
    sys.stdout.write("\n".join((f"\n===== {title}", *(f"  {test}" for test in tests), "", "")))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
