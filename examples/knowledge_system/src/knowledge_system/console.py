"""Terminal output: plain lines and a progress counter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


def say(text: str = "") -> None:
    """Write one line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write an error message to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def progress(label: str) -> Callable[[int, int], None]:
    """Return a function that shows ``label: done / total``, in place on a terminal, otherwise every two seconds."""
    shown_at = [time.monotonic()]

    def show(done: int, total: int) -> None:
        if done < total and time.monotonic() - shown_at[0] < (0.1 if sys.stdout.isatty() else 2):
            return
        shown_at[0] = time.monotonic()
        before, after = ("\r", "") if sys.stdout.isatty() and done < total else ("\r", "\n")
        sys.stdout.write(f"{before if sys.stdout.isatty() else ''}  {label}: {done} / {total}{after}")
        sys.stdout.flush()

    return show
