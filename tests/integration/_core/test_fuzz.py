"""Bounded runs of the fuzz targets: each must end without a finding."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "fuzz"
TARGETS = sorted(path.stem for path in FOLDER.glob("fuzz_*.py"))
RUNS = 50_000


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TARGETS)
def test_random_bytes(name: str) -> None:
    """Without atheris: blind, but always there."""
    target, chance = load(name), random.Random(7)
    for size in range(500):
        target.one_input(chance.randbytes(size % 60))
        target.one_input(
            "".join(chance.choices("[]{}:/@,;=?&%#\"'\\ 019azAZ\r\n\u3042", k=size % 60)).encode()
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TARGETS)
def test_guided(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris has no wheel for this platform")
    done = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), name, f"-runs={RUNS}", "-max_len=512", "-max_total_time=60"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr
