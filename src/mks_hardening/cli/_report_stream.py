"""Standard output of a command that runs code of an application: the report and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from typing import Final, TextIO

__all__ = ["report_stream", "stdout_to_stderr"]

_STDOUT: Final = 1
_STDERR: Final = 2


def stdout_to_stderr() -> None:
    """Send to standard error what is written to standard output from now on, also by child processes."""
    try:
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # standard error is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)


@contextmanager
def report_stream() -> Generator[TextIO]:
    """Yield standard output for the report; within the block, everything else is written to standard error."""
    stdout = sys.stdout
    is_replaced = stdout is not sys.__stdout__  # by the caller of ``main``
    stdout.flush()
    kept = os.dup(_STDOUT)
    stdout_to_stderr()
    try:
        with redirect_stdout(sys.stderr):
            if is_replaced:
                yield stdout
                return
            with open(kept, "w", encoding=stdout.encoding, errors=stdout.errors, closefd=False) as report:
                yield report
    finally:
        stdout.flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)
