"""A socket whose reads and writes share one deadline.

A socket time-out bounds one ``recv``; a server that trickles its answer byte by byte resets it each time. Here the
time left is set before each call, so the whole exchange ends in time.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from contextvars import ContextVar
from io import BufferedReader
from typing import Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["DeadlineSocket", "call_deadline"]


_NEARLY: Final = 0.95


class _Limit:
    """One call's deadline, and how long the server had for its answer."""

    __slots__ = ("at", "share")

    def __init__(self, at: float) -> None:
        self.at = at
        self.share: float | None = None


class _CallDeadline:
    """The monotonic time at which the call at hand must be over; ``None`` without a limit.

    A context variable and not a thread's local: greenlets have contexts of their own too, even where gevent's
    patches came after our import.
    """

    __slots__ = ("_limit",)

    def __init__(self) -> None:
        self._limit: ContextVar[_Limit | None] = ContextVar("mks_hardening.call_deadline", default=None)

    @property
    def at(self) -> float | None:
        """The deadline."""
        limit = self._limit.get()
        return None if limit is None else limit.at

    @at.setter
    def at(self, at: float | None) -> None:
        self._limit.set(None if at is None else _Limit(at))

    def begin(self, at: float) -> _Limit | None:
        """Set the deadline of a call, and return what to ``restore`` after it."""
        before = self._limit.get()
        self._limit.set(_Limit(at))
        return before

    def restore(self, before: _Limit | None) -> None:
        """The call is over; one that it interrupted (in a signal handler, a finalizer) goes on with its own."""
        self._limit.set(before)

    @property
    def share(self) -> float | None:
        """Seconds that were left when the call first waited for the server; ``None`` if it never did."""
        limit = self._limit.get()
        return None if limit is None else limit.share

    def remaining(self) -> float | None:
        """Seconds left.

        Raises:
            TimeoutError: none are left.
        """
        limit = self._limit.get()
        if limit is None:
            return None
        left = limit.at - SYSTEM_CLOCK.monotonic()
        if limit.share is None:
            limit.share = max(0.0, left)
        if left <= 0:
            raise TimeoutError("the time for this call is used up")
        return left


call_deadline: Final = _CallDeadline()


class DeadlineSocket:
    """Wraps a connected socket; everything but sending and receiving goes straight through.

    Args:
        sock: the socket.
        share: one operation may take this part of the time left: 3 for a third.
    """

    def __init__(self, sock: socket.socket, *, share: int = 1) -> None:
        self._sock = sock
        self._share = share
        # Not one with TLS, and not a fake.
        self._plain = type(sock) is socket.socket and os.name == "posix"

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
        if self._plain and self._sock.gettimeout():
            # Nearly always all of it fits into the buffer at once, where Python would ask first, with poll(2): a
            # system call is a good part of a round trip to a server next door.
            with suppress(BlockingIOError):
                data = data[os.write(self._sock.fileno(), data) :]
            if not data:
                return
            self._limit()
        self._sock.sendall(data, flags)

    def _limit(self) -> None:
        now_set = self._sock.gettimeout()
        if now_set == 0.0:  # the caller's wish not to wait at all
            return
        left = call_deadline.remaining()
        if left is None:
            return
        left /= self._share
        # Setting it is a system call; one call after another finds nearly the right one.
        if now_set is None or not _NEARLY * left <= now_set <= left:
            self._sock.settimeout(left)
