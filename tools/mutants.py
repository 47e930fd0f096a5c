"""Mutation test: make many small changes to a package and measure how many of them its quick tests detect.

``make mutants AREA=_core/resilience`` (or ``wsgi/session``, ``deploy/operations`` and so on) works in a copy of the
tree; without ``AREA`` it draws a sample from every area. ``ARGS="--sample 150 --seed 8"`` runs a random sample,
which is enough for a figure; ``--integration`` also runs the area's tests on real servers; ``--write`` records the
figure in ``tests/mutants.toml``. The exit status is 1 if less than 85 % of the mutants were killed.

mutmut creates the mutants and records which functions each test executes. This program runs them: the tests are
collected once, and each mutant is a forked process that runs its fastest tests first and stops at the first
failure. mutmut's own runner collects the tests again for every mutant, which takes hours for a package with three
thousand.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "mutants.toml"
KIT = Path("deploy/src/mks_deploy")
LEAST_KILLED = 0.85
LEFT_OUT = (
    ".git",
    ".venv*",
    "__pycache__",
    ".*_cache",
    ".coverage*",
    ".hypothesis",
    "dist",
    "build",
    "var",
    "mutants",
)
# The table of every public parameter: it kills what changes a check or the name of a parameter.
TESTS_OF_PARAMETERS = "package/test_package_wrong_kinds.py"
# Additional tests of a package, beside those of its area: what else runs its functions. The row of a package
# replaces that of its area.
TESTS_ELSEWHERE = {
    "_core": (
        *(f"{area}/**/test_*.py" for area in ("cache", "db", "logging", "notify", "tasks")),
        *("security/rate_limits/test_*.py", "wsgi/origin/test_*.py", "wsgi/test_wsgi_edge_*.py"),
    ),
    "_core/backend": ("cache/**/test_*.py", "notify/**/test_*.py", "security/**/test_*redis*.py"),
    "_core/canonical_text": ("cache/test_*.py", "wsgi/response_cache/test_*.py"),
    "_core/database": ("db/**/test_*.py", "tasks/**/test_*.py", "contrib/test_contrib_celery*.py"),
    "_core/mail": ("notify/**/test_*.py", "tasks/prebuilt/test_*.py"),
    "_core/origin": ("wsgi/origin/test_*.py", "wsgi/test_wsgi_edge_*.py"),
    "_core/redaction": ("logging/**/test_*.py", "notify/**/test_*.py"),
    "_core/web": ("_edge/**/test_*.py", "wsgi/**/test_*.py"),
    "_edge": ("wsgi/**/test_*.py",),
    "_edge/cors": ("wsgi/test_wsgi_refusals.py",),
    # The tables of both shells, and the costs of requests that views count.
    "asgi": ("wsgi/**/test_*.py", "_edge/test_*.py", "contrib/test_contrib_limits_by_request.py"),
    "cache": ("wsgi/response_cache/test_*.py",),
    "cli": ("**/test_*_cli.py",),
    "contrib": ("compose/test_*.py", "tasks/test_tasks_celery*.py"),
    # The store of the tasks runs on an engine of this area.
    "db": ("tasks/**/test_*.py", "contrib/test_contrib_celery*.py"),
    "logging": (
        "compose/test_compose.py",
        "notify/engine/test_notify_alert.py",
        "contrib/test_contrib_foreign*.py",
    ),
    "notify": ("compose/test_compose.py", "logging/test_logging_work_props.py"),
    "production_check": ("package/test_package_cli.py",),
    "settings": ("compose/test_*.py", "package/test_package_cli.py", "production_check/test_*.py"),
    "tasks": ("contrib/test_contrib_celery*.py", "testing/test_testing_task*.py"),
    "wsgi": ("_edge/test_*.py",),
}


AREAS = (
    *(
        "_core",
        "_edge",
        "asgi",
        "cache",
        "contrib",
        "db",
        "logging",
        "notify",
        "security",
        "settings",
        "tasks",
    ),
    *("wsgi", "cli", "compose.py", "production_check", "deploy"),
)
SAMPLE_OF_AN_AREA = 60


def main() -> None:
    """Create and run the mutants of a package, and print the survivors; without a package, sample every area."""
    parser = argparse.ArgumentParser(
        prog="make mutants",
        description="AREA is a folder or module of the package, or of the deployment kit (deploy/operations); "
        "without it, every area is sampled.",
    )
    parser.add_argument("place", nargs="?")
    parser.add_argument("--sample", type=int, default=0, help="size of a random sample (0: all)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of parallel mutants")
    parser.add_argument(
        "--integration", action="store_true", help="also run the area's tests on real servers (slow)"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"record the figure in {RESULTS.relative_to(ROOT)}"
    )
    asked = parser.parse_args()
    if asked.place is None:
        sys.exit(sample_every_area(asked))
    if not (ROOT / source_of(asked.place)).exists():
        parser.error("AREA is a folder or module, such as _core/resilience or deploy/operations")
    with tempfile.TemporaryDirectory(prefix="mks-mutants-") as folder:
        lay_out(Path(folder), asked.place)
        names = mutants_of(Path(folder), asked.place)
        drawn = random.Random(asked.seed).sample(  # noqa: S311 - repeatable
            names, min(asked.sample or len(names), len(names))
        )
        trial = Trial(drawn, asked.jobs)
        os.chdir(Path(folder) / "mutants")
        run_pytest(trial, tests_of(asked.place, integration=asked.integration))
        os.chdir(folder)
        sys.exit(report(asked, trial, len(names)))


def sample_every_area(asked: argparse.Namespace) -> int:
    """Run a sample of each area in its own process; return the worst exit status."""
    sample = asked.sample or SAMPLE_OF_AN_AREA
    options = [
        f"--sample={sample}",
        f"--seed={asked.seed}",
        f"--jobs={asked.jobs}",
        *["--integration"] * asked.integration,
        *["--write"] * asked.write,
    ]
    worst = 0
    for area in AREAS:
        print(f"== {area}", flush=True)
        command = [sys.executable, str(Path(__file__).resolve()), area, *options]
        worst = max(worst, subprocess.run(command, check=False).returncode)
    return worst


def source_of(place: str) -> Path:
    """Return the folder or module of a place, relative to the tree."""
    area, _, rest = place.partition("/")
    return KIT / rest if area == "deploy" else Path("src/mks_hardening", place)


def tests_of(place: str, *, integration: bool) -> list[str]:
    """Return the unit and property tests of a package's area, and the additional ones listed above.

    ``integration`` adds the tests on real servers, which find most mutants of the parts that only speak to one
    (``cache/cdn``, ``db/watch``, ``db/plan``). The tests of the deployment kit are in one folder, those that need a
    server among them. A function that runs only in processes started by a test counts as ``no tests``.
    """
    area, package = (*place.removesuffix(".py").split("/"), "")[:2]
    if area == "deploy":
        return _found(ROOT / "deploy" / "tests", "test_*.py")
    elsewhere = TESTS_ELSEWHERE.get(f"{area}/{package}", ()) or TESTS_ELSEWHERE.get(area, ())
    patterns = (f"{area}/**/test_*.py", TESTS_OF_PARAMETERS, *elsewhere)
    quick = [ROOT / "tests" / folder for folder in ("unit", "property")]
    if stale := [each for each in elsewhere if not any(_found(folder, each) for folder in quick)]:
        sys.exit(f"TESTS_ELSEWHERE names tests that do not exist: {', '.join(stale)}")
    folders = [*quick, ROOT / "tests" / "integration"] if integration else quick
    return [file for folder in folders for file in _found(folder, *patterns)]


def _found(folder: Path, *patterns: str) -> list[str]:
    return sorted({str(file.relative_to(ROOT)) for pattern in patterns for file in folder.glob(pattern)})


def lay_out(folder: Path, place: str) -> None:
    """Create two trees: the sources that mutmut reads, and ``mutants``, where it writes and the tests run."""
    shutil.copytree(ROOT, folder / "mutants", ignore=shutil.ignore_patterns(*LEFT_OUT))
    source = source_of(place)
    if source.is_relative_to(KIT):
        # mutmut names a module after its path below "src", so the kit moves there, beside the library.
        (folder / "mutants" / KIT).rename(folder / "mutants" / "src" / KIT.name)
        source = Path("src", source.relative_to(KIT.parent))
    shutil.copytree(folder / "mutants" / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    pattern = str(source) if source.suffix == ".py" else f"{source}/*"
    (folder / "pyproject.toml").write_text(
        f'[tool.mutmut]\nsource_paths = ["src"]\nonly_mutate = ["{pattern}"]\nuse_git_change_detection = false\n',
        encoding="utf-8",
    )


def mutants_of(folder: Path, place: str) -> list[str]:
    """Write the mutants into the tree of the tests, and return their names in a stable order."""
    os.chdir(folder)
    from mutmut.__main__ import (
        create_mutants,
        setup_source_paths,
        walk_mutatable_files,
    )  # mutmut reads the current directory
    from mutmut.mutation.data import SourceFileMutationData

    setup_source_paths()
    # Programs started by a test must import the mutants too, not the installed package.
    os.environ["PYTHONPATH"] = str(folder / "mutants" / "src")
    with contextlib.redirect_stdout(io.StringIO()):
        create_mutants(1)
    names = []
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        names += data.exit_code_by_key
    if not names:
        sys.exit(f"nothing in {place} can be changed")
    return sorted(name.replace("__init__.", "") for name in names)


def run_pytest(trial: Trial, tests: list[str]) -> None:
    """Run one pytest session, which collects the tests and hands over to ``Trial``."""
    import pytest

    os.environ |= {"HYPOTHESIS_PROFILE": "ci", "MUTANT_UNDER_TEST": ""}
    # Output is captured in memory: with file descriptors, all forks would share the files.
    options = [
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "--capture=sys",
        "-m",
        "not slow",
    ]
    pytest.main([*options, *tests], plugins=[trial])


@dataclass
class Trial:
    """pytest plug-in that runs each mutant in a fork of the collected session; the session itself runs no test."""

    drawn: list[str]
    jobs: int
    outcome: dict[str, str] = field(default_factory=dict)
    passed_by: dict[str, list[int]] = field(default_factory=dict)  # function -> tests, fastest first
    seconds: list[float] = field(default_factory=list)

    def pytest_runtestloop(self, session: Any) -> bool:
        """Run the mutants instead of pytest's own loop."""
        base = session.config._tmp_path_factory.getbasetemp()  # noqa: SLF001 - each fork has its own
        self._look_once(session, base)
        waiting = [name for name in self.drawn if self.passed_by.get(function_of(name))]
        self.outcome = {name: "no tests" for name in self.drawn if name not in waiting}
        at_work: dict[int, tuple[str, float]] = {}
        while waiting or at_work:
            while waiting and len(at_work) < self.jobs:
                name = waiting.pop()
                tests = self.passed_by[function_of(name)]
                limit = sum(self.seconds[number] for number in tests)
                child = self._fork(session, base / f"m{len(self.outcome)}-{len(waiting)}", name, tests, limit)
                # CPU time ends an infinite loop; a deadlock needs a wall clock limit, large enough for a
                # busy machine.
                at_work[child] = (name, time.monotonic() + min(600, 120 + 10 * limit))
            self._reap(at_work)
        return True

    def _reap(self, at_work: dict[int, tuple[str, float]]) -> None:
        for child, (name, until) in list(at_work.items()):
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and time.monotonic() < until:
                continue
            if not done:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            del at_work[child]
            code = os.waitstatus_to_exitcode(status) if done else None
            self.outcome[name] = (
                {0: "survived", 1: "killed"}.get(code, "timeout") if code is not None else "timeout"
            )
            print(
                f"{len(self.outcome)}/{len(self.drawn)} {self.outcome[name]} {name}",
                file=sys.__stderr__,
                flush=True,
            )
        time.sleep(0.02)

    def _look_once(self, session: Any, base: Path) -> None:
        """Run every test without a mutant, in a fork: which pass, what they execute, and how long they take."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(look(session, base / "look"), pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            seen = json.load(pipe)
        os.waitpid(child, 0)
        self.seconds = [entry["seconds"] for entry in seen]
        for number in sorted(range(len(seen)), key=self.seconds.__getitem__):
            if not seen[number]["passed"]:
                print(f"skipped, fails without a mutant: {session.items[number].nodeid}", file=sys.__stderr__)
                continue
            for function in seen[number]["functions"]:
                self.passed_by.setdefault(function, []).append(number)

    @staticmethod
    def _fork(session: Any, place: Path, mutant: str, tests: list[int], limit: float) -> int:
        child = os.fork()
        if child:
            return child
        os.setpgid(0, 0)
        cpu = int(10 * limit) + 60
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        os.environ["MUTANT_UNDER_TEST"] = mutant
        from mutmut.mutation.trampoline import set_mutant_under_test

        set_mutant_under_test(mutant)
        failed = any(not run(session, place, number)[0] for number in tests)
        shutil.rmtree(place, ignore_errors=True)
        os._exit(int(failed))


def look(session: Any, place: Path) -> list[dict[str, Any]]:
    """Measure each test without a mutant, in a fork."""
    from mutmut.mutation.trampoline import set_mutant_under_test
    from mutmut.state import state

    set_mutant_under_test("stats")
    seen = []
    for number in range(len(session.items)):
        passed, seconds = run(session, place, number)
        hit = state()._stats  # noqa: SLF001 - as mutmut's own collector does
        seen.append({"passed": passed, "seconds": seconds, "functions": sorted(hit)})
        hit.clear()
    return seen


def run(session: Any, place: Path, number: int) -> tuple[bool, float]:
    """Run one test with all its fixtures and tear them down; return whether it passed, and its seconds."""
    session.config._tmp_path_factory._basetemp = place  # noqa: SLF001 - folders of two forks must not meet
    place.mkdir(parents=True, exist_ok=True)
    before, start = session.testsfailed, time.monotonic()
    item = session.items[number]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = nowhere, nowhere
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return session.testsfailed == before, time.monotonic() - start


def function_of(mutant: str) -> str:
    """Return the name of the mutated function, in mutmut's notation."""
    return mutant.partition("__mutmut_")[0]


def is_equivalent(entry: dict[str, str], function: str, after: str) -> bool:
    """Return whether the results file lists this mutant as equivalent."""
    return fnmatchcase(function, entry["function"]) and re.search(entry["becomes"], after) is not None


def changed_lines(mutant: str) -> tuple[str, str]:
    """Return the changed lines before and after."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    lines = [line for line in get_diff_for_mutant(mutant).splitlines() if not line.startswith(("---", "+++"))]
    before, after = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return before, after


def report(asked: argparse.Namespace, trial: Trial, of: int) -> int:
    """Print the totals and the survivors, write the figure if requested, and return the exit status."""
    kept = tomllib.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    equal = kept.get("equivalent", [])
    sums = Counter(trial.outcome.values())
    for name, state in sorted(trial.outcome.items()):
        if state in {"survived", "no tests"}:
            before, after = changed_lines(name)
            if any(is_equivalent(entry, function_of(name), after) for entry in equal):
                sums[state] -= 1
                sums["equivalent"] += 1
                continue
            print(f"{state}: {name}\n  - {before}\n  + {after}")
    killed = sums["killed"] + sums["timeout"]
    tried = sum(sums.values()) - sums["equivalent"]
    share = killed / max(1, tried)
    print(f"{asked.place}: {killed} of {tried} killed ({100 * share:.1f} %), sampled from {of}; {dict(sums)}")
    if asked.write:
        figure = {
            "killed": killed,
            "tried": tried,
            "of": of,
            "seed": asked.seed,
            "equivalent": sums["equivalent"],
        }
        kept.setdefault("sample", {})[asked.place] = figure | {"date": datetime.now(UTC).date().isoformat()}
        RESULTS.write_text(as_toml(kept), encoding="utf-8")
    return int(share < LEAST_KILLED)


def as_toml(kept: dict[str, Any]) -> str:
    """Return the results file: the figures, then the mutants that no test can kill, each with the reason."""
    lines = [
        '# Written by `make mutants AREA=... ARGS="--sample N --seed S --write"`; [[equivalent]] by hand.'
    ]
    for place, figure in sorted(kept["sample"].items()):
        lines += [
            "",
            f"[sample.{json.dumps(place)}]",
            *(f"{key} = {json.dumps(value)}" for key, value in figure.items()),
        ]
    for entry in kept.get("equivalent", []):
        lines += ["", "[[equivalent]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
