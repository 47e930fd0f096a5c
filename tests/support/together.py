"""Several processes that do the same simultaneously."""

from __future__ import annotations

import subprocess
import sys

__all__ = ["run_together"]


def run_together(program: str, *arguments: str, processes: int = 2) -> list[list[str]]:
    """Return the output of each process, split into words, after all of them were started simultaneously.

    Args:
        program: Python that prints ``ready``, waits for a line on its input, and then does what is to be raced.
        arguments: its ``sys.argv[1:]``.
        processes: how many.
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return [child.communicate(timeout=60)[0].split() for child in children]
