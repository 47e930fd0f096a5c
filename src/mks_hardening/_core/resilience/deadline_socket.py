"""A socket whose reads and writes share one deadline.

A socket timeout bounds a single ``recv``; a server that sends its response byte by byte resets it each time. This
wrapper sets the remaining time before each call, so that the whole exchange ends by the deadline.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextvars import ContextVar
from io import BufferedReader
from typing import Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["DeadlineSocket", "call_deadline"]


_NEARLY: Final = 0.95


class _SocketDeadline:
    """Deadline of one call, and the seconds that the server had for its response."""

    __slots__ = ("at", "share")

    def __init__(self, at: float) -> None:
        self.at = at
        self.share: float | None = None


class _CallDeadline:
    """Monotonic time at which the current call must end; ``None`` without a limit.

    A context variable rather than a thread-local: greenlets also have their own context, even if gevent patches
    after this module was imported.
    """

    __slots__ = ("_limit",)

    def __init__(self) -> None:
        self._limit: ContextVar[_SocketDeadline | None] = ContextVar(
            "mks_hardening.call_deadline", default=None
        )

    @property
    def at(self) -> float | None:
        """The deadline."""
        limit = self._limit.get()
        return None if limit is None else limit.at

    @at.setter
    def at(self, at: float | None) -> None:
        self._limit.set(None if at is None else _SocketDeadline(at))

    def begin(self, at: float) -> _SocketDeadline | None:
        """Set the deadline of a call and return the previous one for ``restore``."""
        before = self._limit.get()
        self._limit.set(_SocketDeadline(at))
        return before

    def restore(self, before: _SocketDeadline | None) -> None:
        """Restore the deadline of the interrupted call, if any (in a signal handler or a finalizer)."""
        self._limit.set(before)

    @property
    def share(self) -> float | None:
        """Seconds that were left when the call first waited for the server; ``None`` if it never did."""
        limit = self._limit.get()
        return None if limit is None else limit.share

    def remaining(self) -> float | None:
        """Return the seconds left, or ``None`` without a limit.

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
            raise TimeoutError("the deadline of this call has passed")
        return left


call_deadline: Final = _CallDeadline()


def _no_bytes() -> int:
    return 0


class DeadlineSocket:
    """Wrapper of a connected socket; everything except sending and receiving is passed through.

    Args:
        sock: the socket.
        share: divisor of the time left that one operation may take: 3 for a third.
    """

    def __init__(self, sock: socket.socket, *, share: int = 1) -> None:
        self._sock = sock
        self._share = share
        # Decrypted bytes that a TLS socket holds. redis-py looks the method up before each command, and an
        # exception of ``__getattr__`` took longer than the check of the socket.
        self.pending: Callable[[], int] = getattr(sock, "pending", _no_bytes)
        # Neither a TLS socket nor a fake.
        self._plain = type(sock) is socket.socket and os.name == "posix"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._sock.fileno()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive before the deadline."""
        self._limit()
        return self._sock.recv(size, flags)

    def recv_into(self, buffer: bytearray, nbytes: int = 0, flags: int = 0) -> int:
        """Receive before the deadline."""
        self._limit()
        return self._sock.recv_into(buffer, nbytes, flags)

    def makefile(self, mode: str = "rb") -> BufferedReader:  # noqa: ARG002 - always binary
        """Return a file object that reads before the deadline; it keeps the connection open like the socket's."""
        facade: Any = self
        real: Any = self._sock
        real._io_refs += 1  # noqa: SLF001 - as socket.makefile does
        return BufferedReader(socket.SocketIO(facade, "r"))

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send before the deadline."""
        self._limit()
        if self._plain and self._sock.gettimeout():
            # Almost always everything fits into the send buffer at once, but sendall would call poll(2) first: one
            # system call is a noticeable part of a round trip to a nearby server.
            try:  # noqa: SIM105 - ``suppress`` would take longer than the write
                data = data[os.write(self._sock.fileno(), data) :]
            except BlockingIOError:
                pass
            if not data:
                return
            self._limit()
        self._sock.sendall(data, flags)

    def _limit(self) -> None:
        now_set = self._sock.gettimeout()
        if now_set == 0.0:  # the caller asked for non-blocking mode
            return
        left = call_deadline.remaining()
        if left is None:
            return
        left /= self._share
        # Setting the timeout is a system call; consecutive calls usually find it close enough.
        if now_set is None or not _NEARLY * left <= now_set <= left:
            self._sock.settimeout(left)
