"""Run a piece of code in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Result of a subprocess."""

    returncode: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Standard output, parsed."""
        return json.loads(self.stdout)


def run_python(
    code: str,
    *arguments: str,
    flags: Sequence[str] = ("-I",),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
    check: bool = True,
    python: str | Path = sys.executable,
) -> Outcome:
    """Run ``code`` (dedented) in a new interpreter, isolated unless ``flags`` says otherwise.

    Raises:
        AssertionError: it did not end with 0, unless ``check`` is false; shows what it wrote.
    """
    done = subprocess.run(
        [str(python), *flags, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Outcome(done.returncode, done.stdout, done.stderr)
