"""Progress of a long command: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import sys
from typing import Final, TextIO

__all__ = ["Progress"]

_WIDTH: Final = 30
_STEPS: Final = 10


class Progress:
    """Progress display on standard error, so that the result can be piped.

    Args:
        total: approximate final count; 0 if unknown.
        unit: unit of the count.
        stream: output stream, for tests.
    """

    def __init__(self, total: int, *, unit: str, stream: TextIO | None = None) -> None:
        self._total = total
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._bar = self._stream.isatty()
        self._shown = -1

    def show(self, done: int) -> None:
        """Show the progress if it has changed noticeably."""
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
        """Keep the bar and start a new line."""
        if self._bar and self._shown >= 0:
            self._stream.write("\n")
            self._stream.flush()
