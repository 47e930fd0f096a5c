"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from typing import Final, TextIO

__all__ = ["Progress"]

_WIDTH: Final = 30
_STEPS: Final = 10


class Progress:
    """Goes to standard error, so that the result can be piped.

    Args:
        total: what will have been done in the end, about; 0 when nobody knows.
        unit: what is counted.
        stream: for tests.
    """

    def __init__(self, total: int, *, unit: str, stream: TextIO | None = None) -> None:
        self._total = total
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._bar = self._stream.isatty()
        self._shown = -1

    def show(self, done: int) -> None:
        """Say how far it is, where that is news."""
        known = self._total > 0
        part = min(1.0, done / self._total) if known else 0.0
        news = int(part * (100 if self._bar else _STEPS)) if known else done
        if news == self._shown:
            return
        self._shown = news
        of = f" of {self._total:,}" if known else ""
        if not self._bar:
            print(f"{done:,}{of} {self._unit}", file=self._stream, flush=True)
            return
        filled = int(part * _WIDTH)
        bar = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {part:4.0%}  " if known else ""
        self._stream.write(f"\r{bar}{done:,}{of} {self._unit}\x1b[K")
        self._stream.flush()

    def end(self) -> None:
        """Leave the bar standing, and go to the next line."""
        if self._bar and self._shown >= 0:
            self._stream.write("\n")
            self._stream.flush()
