"""Client-side deadline for database connections, whatever the driver is waiting for.

No option of libpq does this: if the server process is stopped, its disk is full, or a proxy has lost its backend,
the kernel still acknowledges packets, and only the server can tell a long statement from a lost one. While an
operation runs, a supervisor thread therefore probes the server's address from half the deadline on
(``_server_probe``). If the server does not respond, the thread shuts down the driver's socket, and the driver fails
as if the server had closed the connection. A statement may run as long as it needs while the server responds.

The same thread keeps probing a server that it has given up, so that new connections fail fast while the server
stays silent. Only this thread probes: a probe in the thread of an event loop would block all its tasks.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.db.engine._server_probe import is_responding

if TYPE_CHECKING:
    from mks_hardening.db.engine._server_probe import Address
    from mks_hardening.protocols import Clock

__all__ = ["NO_RESPONSE", "ClientDeadline", "DriverWait"]

NO_RESPONSE: Final = "no response from the database within client_deadline"
_PROBE_AFTER: Final = 0.5  # share of the deadline after which the server's address is probed
_RESPONSE: Final = 0.35  # share of the deadline within which the server has to respond
_RETRY: Final = 0.1  # share left for another connection attempt, which the pool makes after a failed pre-ping
_SHUTDOWNS: Final = 0.05  # share of the deadline over which the shutdowns of many operations are spread
_BETWEEN_SHUTDOWNS: Final = 0.003  # seconds; several times what SQLAlchemy needs to handle one failure
_IDLE_ROUNDS: Final = 4  # idle rounds after which the thread ends; the next operation starts another


class DriverWait:
    """Wait state of one connection; a context manager for each operation in which its driver waits."""

    __slots__ = (
        "_deadline",
        "_descriptor",
        "_family",
        "_inode",
        "address",
        "broken",
        "responded_at",
        "since",
    )

    def __init__(self, deadline: ClientDeadline, descriptor: int) -> None:
        self._deadline = deadline
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            self._family: int = twin.family
            self.address: Address = twin.getpeername()
        self.since: float | None = None
        self.responded_at = 0.0
        self.broken = False

    def __enter__(self) -> None:
        self.since = self._deadline.clock.monotonic()
        self._deadline.watch(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline.waiting.discard(self)
        self.since = None
        # The driver's error only reports a closed connection.
        if self.broken and isinstance(error, Exception):
            self.broken = False
            error.add_note(NO_RESPONSE)

    def is_responding(self, *, within: float) -> bool:
        """Whether the server's address responds within ``within`` seconds."""
        return is_responding(self._family, self.address, within=within)

    def shut_down(self) -> None:
        """Shut down the driver's socket.

        The driver may have closed the socket, and the descriptor number may belong to another socket by now.
        Checking the inode of a duplicated descriptor rules out both.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as twin:
            if os.fstat(twin.fileno()).st_ino == self._inode:
                self.broken = True
                twin.shutdown(socket.SHUT_RDWR)


def _start(supervise: Callable[[], None]) -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        # A C driver (psycopg2) blocks all greenlets of its thread, so the supervisor needs a real thread.
        monkey.get_original("_thread", "start_new_thread")(supervise, ())
        return
    threading.Thread(target=supervise, name="mks-database-deadline", daemon=True).start()


class ClientDeadline:
    """Supervisor for the connections of one engine; its thread runs only while there are operations.

    Args:
        patience: seconds within which a server must respond before it is given up.
        clock: source of time.

    Attributes:
        patience: as above.
        clock: as above.
        between: seconds between two probes of a server that was given up.
        waiting: operations that are running.
    """

    def __init__(self, patience: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.patience: float = patience
        self._pause = patience * _PROBE_AFTER
        self.between: float = patience * _RETRY
        self.waiting: set[DriverWait] = set()
        self._lost: tuple[float, DriverWait] | None = None
        self._supervised = False
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the state in a forked child: the thread and the operations belong to the parent."""
        # Reentrant, because a signal handler may use the database while the thread is being started.
        self._lock = threading.RLock()
        self.waiting = set()
        self._supervised = False
        self._lost = None

    def is_lost(self) -> bool:
        """Whether the server was given up and is still silent, so that a new connection would only wait.

        Once per ``patience`` one caller may try anyway: another server may have taken over at another address.
        """
        with self._lock:
            if self._lost is None:
                return False
            now = self.clock.monotonic()
            since, wait = self._lost
            if now - since < self.patience:
                return True
            self._lost = (now, wait)
            return False

    def mark_reachable(self) -> None:
        """Record that a new connection was opened, so the server is reachable."""
        self._lost = None

    def watch(self, wait: DriverWait) -> None:
        """Register an operation and start the thread if needed; runs for every statement."""
        self.waiting.add(wait)
        if not self._supervised and self._become_supervisor():
            try:
                _start(self._supervise)
            except RuntimeError:  # no more threads: the next operation tries again
                self._supervised = False

    def _become_supervisor(self) -> bool:
        with self._lock:
            is_first = not self._supervised
            self._supervised = True
            return is_first

    def _supervise(self) -> None:
        try:
            self._probe_until_idle()
        except BaseException:  # out of descriptors, or an abort: the next operation starts another thread
            self._supervised = False
            raise

    def _probe_until_idle(self) -> None:
        idle = 0
        while idle < _IDLE_ROUNDS or self._resume():
            if self._lost is not None:
                self._probe_lost(self._lost)
            waits = [(wait, wait.since) for wait in tuple(self.waiting)]
            idle = 0 if waits or self._lost else idle + 1
            now = self.clock.monotonic()
            due = [
                (wait, since)
                for wait, since in waits
                if since is not None and max(since, wait.responded_at) + self._pause <= now
            ]
            if due:
                self._probe(due)
            else:
                earliest = min((max(since or now, wait.responded_at) for wait, since in waits), default=now)
                longest = self.between if self._lost else self._pause
                time.sleep(max(0.0, min(longest, earliest + self._pause - now)))

    def _probe_lost(self, lost: tuple[float, DriverWait]) -> None:
        since, wait = lost
        is_unused = self.clock.monotonic() - since > 2 * self.patience
        if is_unused or wait.is_responding(within=self.between):
            self._lost = None

    def _resume(self) -> bool:
        """Stop the thread, unless an operation registered just now and assumed that it still runs."""
        self._supervised = False
        return bool(self.waiting) and self._become_supervisor()

    def _time_for(self, wait: DriverWait, since: float) -> float:
        """Seconds for the server to respond; fewer if probing another server used up part of the deadline."""
        last_sign = max(since, wait.responded_at)
        left = last_sign + self.patience * (1 - _RETRY) - self.clock.monotonic()
        return min(self.patience * _RESPONSE, max(self.patience * _RETRY, left))

    def _probe(self, due: list[tuple[DriverWait, float]]) -> None:
        responding: dict[Address, bool] = {}
        silent: list[tuple[DriverWait, float]] = []
        for wait, since in sorted(due, key=lambda one: max(one[1], one[0].responded_at)):
            if wait.address not in responding:
                responding[wait.address] = wait.is_responding(within=self._time_for(wait, since))
            if responding[wait.address]:
                wait.responded_at = self.clock.monotonic()
            else:
                silent.append((wait, since))
        self._shut_down(silent)

    def _shut_down(self, silent: list[tuple[DriverWait, float]]) -> None:
        """Shut down one socket after another: an event loop would handle simultaneous failures in one step."""
        began = self.clock.monotonic()
        step = min(_BETWEEN_SHUTDOWNS, self.patience * _SHUTDOWNS / max(1, len(silent)))
        for number, (wait, since) in enumerate(silent):
            if number and (pause := began + number * step - self.clock.monotonic()) > 0:
                time.sleep(pause)
            if wait.since == since:  # still the same operation
                self._lost = (self.clock.monotonic(), wait)
                wait.shut_down()
