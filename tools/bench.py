"""Run the benchmarks beside comparable packages: ``python tools/bench.py [--publish] [script ...]``.

Shows which script runs, and what it printed. What peers write to stderr goes to ``build/bench``. With
``--publish``, everything runs twice, the figures are stored in ``docs/explanation/bench.json``, and the tables and
the plot of the comparison page are written from them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench_page import DATA, Run, unmeasured, write

ROOT = Path(__file__).resolve().parent.parent
FOLDER, OUTPUT = ROOT / "benchmarks", ROOT / "build" / "bench"
#: Scripts whose figures are published, with arguments that fit ten minutes; any other runs when it is named.
SCRIPTS: dict[str, tuple[str, ...]] = {
    "instructions": (),
    "imports": ("3",),
    "core": (),
    "cache": (),
    "db": (),
    "bench_logging": ("formatter", "text"),
    "notify": ("emit",),
    "observers": (),
    "security": ("totp", "limits"),
    "wsgi": ("15",),
    "wsgi_record_session": ("60",),
    "wsgi_served": ("5",),
    "asgi": ("3",),
    "adapters": ("9",),
    "tasks": ("throughput", "bulk", "--rounds", "1", "--tasks", "1000"),
    "growth": (),
}
_LONGEST = 900
_VERSIONS = (
    "Flask", "Django", "Flask-Session", "Flask-Limiter", "flask-talisman", "Flask-SeaSurf", "limits", "redis",
    "python-json-logger", "orjson", "sentry-sdk", "opentelemetry-sdk", "SQLAlchemy", "celery", "procrastinate",
)  # fmt: skip


def run(scripts: list[str]) -> tuple[Run, list[str]]:
    """Run these scripts one after the other; return their figures and the names of those that failed."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figures, failed = OUTPUT / "figures.jsonl", list[str]()
    figures.unlink(missing_ok=True)
    for number, name in enumerate(scripts, 1):
        print(f"== {number}/{len(scripts)} {name}", flush=True)
        begin = time.monotonic()
        errors = OUTPUT / f"{name}.stderr"
        with errors.open("w") as stderr:
            try:
                done = subprocess.run(
                    [sys.executable, str(FOLDER / f"{name}.py"), *SCRIPTS.get(name, ())],
                    env={**os.environ, "MKS_BENCH_FIGURES": str(figures)},
                    stderr=stderr,
                    timeout=_LONGEST,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                done = -1
        print(f"   {time.monotonic() - begin:.0f} s", flush=True)
        if done:
            failed.append(name)
            reason = (errors.read_text(errors="replace").strip() or "no message").splitlines()[-1]
            print(f"   failed: {reason} (all of it: {errors.relative_to(ROOT)})", flush=True)
    kept: Run = {}
    for line in figures.read_text(encoding="utf-8").splitlines() if figures.exists() else ():
        title, found = json.loads(line)
        kept.setdefault(title, {}).update({name: float(f"{value:.4g}") for name, value in found.items()})
    return kept, failed


def surroundings() -> dict[str, Any]:
    """Return when, where and with which versions this is measured."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=8", "HEAD"],  # noqa: S607 - the one in PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    processors = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in processors if line.startswith("model name")]
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": commit,
        "machine": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }


def main() -> int:
    """Run, and publish if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scripts", nargs="*", help="names of scripts in benchmarks/; all published ones by default"
    )
    parser.add_argument("--publish", action="store_true", help="run twice and write the comparison page")
    given = parser.parse_args()
    begin, runs, failed = time.monotonic(), list[Run](), list[str]()
    for _ in range(2 if given.publish else 1):
        kept, some = run(given.scripts or list(SCRIPTS))
        runs.append(kept)
        failed += some
    print(f"== {(time.monotonic() - begin) / 60:.1f} minutes; failed: {', '.join(failed) or 'none'}")
    if given.publish:
        stored = {**surroundings(), "runs": runs}
        DATA.write_text(
            json.dumps(stored, ensure_ascii=False, indent=1, sort_keys=False) + "\n", encoding="utf-8"
        )
        write(stored)
        for row in unmeasured(runs):
            print(f"   left out of the page, as it was not measured: {row}")
        # The figures of both languages are from the same run, so each translation is of its text.
        for translation in ("README.ja.md", "docs/ja/index.md"):
            subprocess.run(
                [sys.executable, ROOT / "tools/check_translation.py", "--stamp", ROOT / translation],
                check=True,
            )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
