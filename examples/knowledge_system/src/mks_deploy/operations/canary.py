"""The requests of a canary beside those of the old version, as nginx logged them: errors and response times.

Both versions serve the same visitors at the same time, so whatever slows down both of them is no reason to stop.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["ENOUGH", "AccessLog", "Served", "difference", "served_by"]

ENOUGH: Final = 50
"""Requests of a canary with which its response times can be compared."""

_FEWEST_ERRORS: Final = 3
_MORE_ERRORS: Final = 0.01
_SLOWER, _MUCH_SLOWER = 1.5, 0.1
_SERVER_ERROR: Final = 500
_CLIENT_LEFT: Final = 499


@dataclass(slots=True)
class Served:
    """What one slot answered.

    Attributes:
        errors: answers of 500 and above, and connections that broke.
        seconds: response time of each request.
    """

    errors: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many there were."""
        return len(self.seconds)

    @property
    def error_rate(self) -> float:
        """Share of the requests that ended in an error."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def p95(self) -> float:
        """The response time that 95 % of the requests keep."""
        return sorted(self.seconds)[math.ceil(self.requests * 0.95) - 1] if self.requests else 0.0

    def __str__(self) -> str:
        return f"{self.requests} requests, {self.errors} errors, p95 {self.p95 * 1000:.0f} ms"


def difference(canary: Served, old: Served) -> str:
    """Why the canary is worse than the old version; empty where it is not, or not yet known to be."""
    if canary.errors >= _FEWEST_ERRORS and canary.error_rate > max(
        2 * old.error_rate, old.error_rate + _MORE_ERRORS
    ):
        return f"has more errors than the old version: {canary}, against {old}"
    if min(canary.requests, old.requests) >= ENOUGH and canary.p95 > old.p95 * _SLOWER + _MUCH_SLOWER:
        return f"is slower than the old version: {canary}, against {old}"
    return ""


def served_by(lines: Iterable[str], sockets: dict[str, Served]) -> None:
    """Add each request to the slot whose socket answered it; one that nginx sent on counts for both.

    Args:
        lines: of the access log.
        sockets: what was served, by the path of the socket.
    """
    for line in lines:
        try:
            told = json.loads(line)
            attempts = [str(told[name]).split(", ") for name in _ATTEMPTS]
        except (ValueError, KeyError, TypeError):
            continue
        for address, status, seconds in zip(*attempts, strict=False):
            if (slot := sockets.get(address.removeprefix("unix:"))) is not None:
                # A dash stands for a connection that ended without an answer; with 499 it was the client who left.
                if status == "-" and told.get("status") == _CLIENT_LEFT:
                    continue
                slot.errors += not status.isdecimal() or int(status) >= _SERVER_ERROR
                slot.seconds.append(float(seconds) if seconds.replace(".", "", 1).isdecimal() else 0.0)


_ATTEMPTS: Final = ("upstream", "upstream_status", "upstream_seconds")


class AccessLog:
    """What is added to nginx's log from now on, rotations included.

    Args:
        file: the log.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream = file.open("rb") if file.exists() else None
        self._rest = b""
        if self._stream is not None:
            self._stream.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Read no more."""
        if self._stream is not None:
            self._stream.close()

    def added(self) -> Iterator[str]:
        """The whole lines that came since the last call."""
        yield from self._lines()
        if self._is_rotated():
            # Renamed before we read it to its end: the rest of it, then the new one from its beginning.
            yield from self._lines()
            self.close()
            self._stream, self._rest = self._file.open("rb"), b""
            yield from self._lines()

    def _lines(self) -> list[str]:
        data = self._rest + (self._stream.read() if self._stream is not None else b"")
        *lines, self._rest = data.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def _is_rotated(self) -> bool:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return False
        if self._stream is None:
            return True
        here = os.fstat(self._stream.fileno())
        return (found.st_dev, found.st_ino) != (here.st_dev, here.st_ino)
