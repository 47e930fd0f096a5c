"""A session clock that can be advanced, shared by all processes of the demonstration."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from mks_hardening.protocols import Clock

_FORM = struct.Struct("<d")


class MovableClock:
    """A clock with an offset that only increases, stored in a small file that every process maps into memory.

    Args:
        clock: underlying clock.
        file: file of the offset; created if it does not exist.
    """

    def __init__(self, clock: Clock, *, file: Path) -> None:
        self._clock = clock
        with file.open("a+b") as opened:
            opened.truncate(_FORM.size)
            opened.flush()
            self._offset = mmap.mmap(opened.fileno(), _FORM.size)

    def time(self) -> float:
        """Wall time in seconds since the epoch, plus the offset."""
        return self._clock.time() + self.offset

    def monotonic(self) -> float:
        """Monotonic time in seconds, plus the offset."""
        return self._clock.monotonic() + self.offset

    @property
    def offset(self) -> float:
        """Seconds by which this clock is ahead."""
        value: float = _FORM.unpack(self._offset[: _FORM.size])[0]
        return value

    def advance(self, seconds: float) -> None:
        """Increase the offset by a number of seconds."""
        if seconds < 0:
            raise ValueError("time passes forwards")
        self._offset[: _FORM.size] = _FORM.pack(self.offset + seconds)


def clock_file(folder: Path) -> Path:
    """Return the clock file for a demo data directory."""
    return folder / "session-clock"
