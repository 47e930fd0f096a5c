"""Comparison of a canary with the old version by nginx's access log: errors and response times.

Both versions serve the same users at the same time, so a slowdown of both does not stop the release.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["ENOUGH", "AccessLog", "SlotStatistics", "compare", "served_by"]

ENOUGH: Final = 50
"""Number of requests from which response times are compared."""

_FEWEST_ERRORS: Final = 3
_MORE_ERRORS: Final = 0.01
_SLOWER, _MUCH_SLOWER = 1.5, 0.1
_SERVER_ERROR: Final = 500
_CLIENT_LEFT: Final = 499


@dataclass(slots=True)
class SlotStatistics:
    """Requests served by one slot.

    Attributes:
        errors: responses with a status of 500 or higher, and broken connections.
        seconds: response time of each request.
    """

    errors: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.seconds)

    @property
    def error_rate(self) -> float:
        """Share of requests that ended in an error."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def p95(self) -> float:
        """95th percentile of the response time in seconds."""
        return sorted(self.seconds)[math.ceil(self.requests * 0.95) - 1] if self.requests else 0.0

    def __str__(self) -> str:
        return f"{self.requests} requests, {self.errors} errors, p95 {self.p95 * 1000:.0f} ms"


def compare(canary: SlotStatistics, old: SlotStatistics) -> str:
    """Return why the canary is worse than the old version; empty if it is not, or if there is too little data."""
    if canary.errors >= _FEWEST_ERRORS and canary.error_rate > max(
        2 * old.error_rate, old.error_rate + _MORE_ERRORS
    ):
        return f"has more errors than the old version: {canary}, against {old}"
    if min(canary.requests, old.requests) >= ENOUGH and canary.p95 > old.p95 * _SLOWER + _MUCH_SLOWER:
        return f"is slower than the old version: {canary}, against {old}"
    return ""


def served_by(lines: Iterable[str], sockets: dict[str, SlotStatistics]) -> None:
    """Add each request to the slot whose socket served it; a request that nginx retried counts for both.

    Args:
        lines: lines of the access log.
        sockets: counts by path of the socket.
    """
    for line in lines:
        try:
            record = json.loads(line)
            attempts = [str(record[name]).split(", ") for name in _ATTEMPTS]
        except (ValueError, KeyError, TypeError):
            continue
        for address, status, seconds in zip(*attempts, strict=False):
            if (slot := sockets.get(address.removeprefix("unix:"))) is not None:
                # A dash is a connection that ended without a response; with 499, the client closed it.
                if status == "-" and record.get("status") == _CLIENT_LEFT:
                    continue
                slot.errors += not status.isdecimal() or int(status) >= _SERVER_ERROR
                slot.seconds.append(float(seconds) if seconds.replace(".", "", 1).isdecimal() else 0.0)


_ATTEMPTS: Final = ("upstream", "upstream_status", "upstream_seconds")


class AccessLog:
    """Follows nginx's access log from now on, across rotations.

    Args:
        file: path of the log.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream = file.open("rb") if file.exists() else None
        self._rest = b""
        if self._stream is not None:
            self._stream.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the log."""
        if self._stream is not None:
            self._stream.close()

    def added(self) -> Iterator[str]:
        """Yield the complete lines added since the last call."""
        yield from self._lines()
        if self._is_rotated():
            # Rotated before its end was read: yield the rest, then the new file from its beginning.
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
