"""A socket whose reads and writes share one deadline.

A socket time-out bounds one ``recv``; a server that trickles its answer byte by byte resets it each time. Here the
time left is set before each call, so the whole exchange ends in time.
"""

from __future__ import annotations

import socket
import threading
from io import BufferedReader
from typing import Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["DeadlineSocket", "call_deadline"]


class _CallDeadline(threading.local):
    """The monotonic time at which the call of this thread must be over; ``None`` without a limit."""

    at: float | None = None

    def remaining(self) -> float | None:
        """Seconds left.

        Raises:
            TimeoutError: none are left.
        """
        if self.at is None:
            return None
        left = self.at - SYSTEM_CLOCK.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this call is used up")
        return left


call_deadline: Final = _CallDeadline()


class DeadlineSocket:
    """Wraps a connected socket; everything but sending and receiving goes straight through."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive before the deadline."""
        self._limit()
        return self._sock.recv(size, flags)

    def recv_into(self, buffer: bytearray, nbytes: int = 0, flags: int = 0) -> int:
        """Receive before the deadline."""
        self._limit()
        return self._sock.recv_into(buffer, nbytes, flags)

    def makefile(self, mode: str = "rb") -> BufferedReader:  # noqa: ARG002 - callers name it; there is one way
        """A file that reads before the deadline; like a socket's own, it keeps the connection open."""
        facade: Any = self
        real: Any = self._sock
        real._io_refs += 1  # noqa: SLF001 - what socket.makefile does
        return BufferedReader(socket.SocketIO(facade, "r"))

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send before the deadline."""
        self._limit()
        self._sock.sendall(data, flags)

    def _limit(self) -> None:
        # A time-out of zero is the caller's wish not to wait at all.
        if self._sock.gettimeout() != 0.0:
            left = call_deadline.remaining()
            if left is not None:
                self._sock.settimeout(left)
