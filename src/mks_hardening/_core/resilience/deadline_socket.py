"""A socket whose reads and writes share one deadline.

A socket timeout bounds a single ``recv``; a server that sends its response byte by byte resets it each time. This
wrapper limits the whole exchange.

Only waiting counts. A thread that does not get the processor or the interpreter lock (a busy machine, many threads)
would otherwise take its own delay for a slow server. The wrapper therefore waits in short steps: what a step takes
beyond its timeout, and what passes between two waits, is time that this process has taken, and moves the deadline.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextvars import ContextVar
from io import BufferedReader
from math import inf
from typing import Any, Final, TypeVar

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["CallDeadline", "DeadlineSocket", "call_deadline"]

T = TypeVar("T")

_FIRST_STEP: Final = 0.005
"""Seconds of the first step of a wait; each further one is twice as long."""
_WOULD_BLOCK: Final = frozenset({"BlockingIOError", "SSLWantReadError", "SSLWantWriteError"})
"""Names, because importing the classes would load TLS."""


class _Deadline:
    """Deadline of one call.

    Attributes:
        at: monotonic time at which it passes.
        has_waited: whether the call has waited for the server.
        lost: seconds by which it has moved.
        mark: time up to which the call is accounted for; None if all of its time counts.
        outer: the deadline of the interrupted call, if any (in a signal handler or a finalizer).
    """

    __slots__ = ("at", "has_waited", "lost", "mark", "outer")

    def __init__(self, at: float, *, mark: float | None = None, outer: _Deadline | None = None) -> None:
        self.at = at
        self.has_waited = False
        self.lost = 0.0
        self.mark = mark
        self.outer = outer

    def begin_wait(self) -> float:
        """Return the seconds left for a wait that begins now; zero or less if there are none."""
        now = SYSTEM_CLOCK.monotonic()
        if self.mark is not None:
            own = now - self.mark
            self.at += own
            self.lost += own
            self.mark = now
        self.has_waited = True
        return self.at - now

    def end_wait(self, longest: float) -> None:
        """Count the time since the wait began, up to ``longest`` seconds."""
        if self.mark is not None:
            now = SYSTEM_CLOCK.monotonic()
            over = now - self.mark - longest
            if over > 0:
                self.at += over
                self.lost += over
            self.mark = now


class CallDeadline:
    """Deadline of the current call, if it has one.

    A context variable rather than a thread-local: greenlets also have their own context, even if gevent patches
    after this module was imported.
    """

    __slots__ = ("_limit", "current")

    def __init__(self) -> None:
        self._limit: ContextVar[_Deadline | None] = ContextVar("mks_hardening.call_deadline", default=None)
        self.current = self._limit.get

    @property
    def at(self) -> float | None:
        """Monotonic time at which the current call must end; set it for a call of which all time counts."""
        limit = self._limit.get()
        return None if limit is None else limit.at

    @at.setter
    def at(self, at: float | None) -> None:
        self._limit.set(None if at is None else _Deadline(at))

    def enter(self, seconds: float) -> None:
        """Begin a call that may wait ``seconds``; ``leave`` must follow."""
        now = SYSTEM_CLOCK.monotonic()
        self._limit.set(_Deadline(now + seconds, mark=now, outer=self._limit.get()))

    def leave(self) -> None:
        """End the call that ``enter`` has begun."""
        limit = self._limit.get()
        self._limit.set(None if limit is None else limit.outer)

    def lost(self) -> float:
        """Return the seconds of the current call that this process has taken, and not the server."""
        limit = self._limit.get()
        if limit is None or limit.mark is None or not limit.has_waited:  # all of its time counts
            return 0.0
        return limit.lost + SYSTEM_CLOCK.monotonic() - limit.mark

    def remaining(self) -> float | None:
        """Return the seconds left for a wait that begins now, or ``None`` without a limit.

        Raises:
            TimeoutError: none are left.
        """
        limit = self._limit.get()
        if limit is None:
            return None
        left = limit.begin_wait()
        if left <= 0:
            raise TimeoutError("the deadline of this call has passed")
        return left

    def waited(self, longest: float | None) -> None:
        """Count the time since ``remaining`` as waiting, up to ``longest`` seconds."""
        limit = self._limit.get()
        if limit is not None and longest is not None:
            limit.end_wait(longest)


call_deadline: Final = CallDeadline()


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
        self._step = _FIRST_STEP
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
        return self.wait_for(self._sock.recv, size, flags)

    def recv_into(self, buffer: bytearray, nbytes: int = 0, flags: int = 0) -> int:
        """Receive before the deadline."""
        return self.wait_for(self._sock.recv_into, buffer, nbytes, flags)

    def makefile(self, mode: str = "rb") -> BufferedReader:  # noqa: ARG002 - always binary
        """Return a file object that reads before the deadline; it keeps the connection open like the socket's."""
        self._step = inf  # its owner may write to the socket itself, with the timeout that a read has left
        facade: Any = self
        real: Any = self._sock
        real._io_refs += 1  # noqa: SLF001 - as socket.makefile does
        return BufferedReader(socket.SocketIO(facade, "r"))

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send before the deadline."""
        if self._plain and self._sock.gettimeout():
            call_deadline.remaining()
            # Almost always everything fits into the send buffer at once, but sendall would call poll(2) first: one
            # system call is a noticeable part of a round trip to a nearby server.
            try:  # noqa: SIM105 - ``suppress`` would take longer than the write
                data = data[os.write(self._sock.fileno(), data) :]
            except BlockingIOError:
                pass
            if not data:
                return
        rest = memoryview(data)
        while rest:
            rest = rest[self.wait_for(self._sock.send, rest, flags) :]

    def wait_for(self, action: Callable[..., T], *args: Any) -> T:
        """Return the result of a method of the socket, which may be called again after a timeout.

        Raises:
            TimeoutError: it has waited until the deadline, and still has no result.
        """
        limit, sock = call_deadline.current(), self._sock
        if limit is None or sock.gettimeout() == 0.0:  # the caller asked for non-blocking mode
            return action(*args)
        left, step = limit.begin_wait() / self._share, self._step
        while left > 0:
            allowed = min(left, step)
            if sock.gettimeout() != allowed:
                sock.settimeout(allowed)
            try:
                return action(*args)
            except TimeoutError:
                left -= allowed
                step *= 2
            finally:
                limit.end_wait(allowed)
        if limit.mark is None:
            raise TimeoutError("the deadline of this call has passed")
        return self._without_waiting(action, *args)

    def _without_waiting(self, action: Callable[..., T], *args: Any) -> T:
        """Return what has arrived, perhaps while this thread was waiting for the processor."""
        self._sock.settimeout(0.0)
        try:
            return action(*args)
        except OSError as error:
            if type(error).__name__ not in _WOULD_BLOCK:
                raise
            raise TimeoutError("the deadline of this call has passed") from None
        finally:
            self._sock.settimeout(_FIRST_STEP)
