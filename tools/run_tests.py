"""The test suite, and in CI a second look at the few tests that failed beside others.

Thousands of tests start real servers on a machine that is shared. Where ``CI`` is set, up to five that failed are
run again, alone; those that pass then are named at the end, so that nobody takes them for sound, and the run counts
as passed. What fails alone as well, fails. On a developer's machine, and with ``--strict``, a failure is a failure.

Bytecode is written even where ``PYTHONDONTWRITEBYTECODE`` is set, as in many containers: otherwise every process of
the run compiles the package anew, and every worker all the tests.
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
        _say("These tests failed beside others; they are looked at again, alone:", failed)
        again = [*command, "--last-failed", "-n", "0"]
        status = subprocess.run(again, check=False, env=environment).returncode
    if status == 0:
        _say("UNSTEADY: failed beside others, passed alone:", failed)
    return status


def _failed(folder: Path) -> list[str]:
    file = folder / "v" / "cache" / "lastfailed"
    return sorted(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []


def _say(title: str, tests: list[str]) -> None:
    sys.stdout.write("\n".join((f"\n===== {title}", *(f"  {test}" for test in tests), "", "")))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
