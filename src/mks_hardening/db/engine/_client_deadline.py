"""An open connection whose server has stopped answering ends within the deadline, whatever the driver waits for.

No option of libpq does this: a stopped process, a full disk or a proxy without a backend still has its packets
acknowledged, and only the server can tell a long statement from a lost one. So while an operation lasts, a thread
asks the server's address from half the deadline on whether anybody answers (``_server_probe``). When nobody does,
it shuts the socket down under the driver, which fails as if the server had hung up. A statement of a server that
answers may last as long as it likes.

The same thread goes on asking a server that it has given up, so that a new connection need not wait for one that is
still silent. Nobody else asks: in the thread of an event loop that would stop all its tasks.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening.db.engine._server_probe import answers

if TYPE_CHECKING:
    from mks_hardening.db.engine._server_probe import Address
    from mks_hardening.protocols import Clock

__all__ = ["NO_ANSWER", "ClientDeadline", "DriverWait"]

NO_ANSWER: Final = "no answer from the database within client_deadline"
_ASKED_AFTER: Final = 0.5  # share of the deadline after which the server's address is asked
_ANSWER: Final = 0.35  # share within which it has to answer
_AGAIN: Final = 0.1  # share left for another try to connect, which the pool makes after a failed pre-ping
_ENDS: Final = 0.05  # share of the deadline over which the ends of many operations are spread
_BETWEEN_ENDS: Final = 0.003  # seconds; several times what SQLAlchemy needs to handle one
_IDLE_ROUNDS: Final = 4  # the thread ends after so many looks at nothing; the next operation starts another


class DriverWait:
    """One connection, and since when its driver has been waiting for the server."""

    __slots__ = ("_deadline", "_descriptor", "_family", "_inode", "address", "answered", "broken", "since")

    def __init__(self, deadline: ClientDeadline, descriptor: int) -> None:
        self._deadline = deadline
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            self._family: int = twin.family
            self.address: Address = twin.getpeername()
        self.since: float | None = None
        self.answered = 0.0
        self.broken = False

    def begin(self) -> None:
        """An operation starts."""
        self.since = self._deadline.clock.monotonic()
        self._deadline.watch(self)

    def end(self) -> None:
        """The operation is over."""
        self._deadline.forget(self)
        self.since = None

    def explain(self, error: BaseException) -> None:
        """Say what happened, where the driver can only say that the server hung up."""
        if self.broken:
            self.broken = False
            error.add_note(NO_ANSWER)

    def answers(self, *, within: float) -> bool:
        """Whether anybody answers at the server's address."""
        return answers(self._family, self.address, within=within)

    def hang_up(self) -> None:
        """Shut the socket down under the driver.

        The driver may have closed it by now, and another thread may have been given the same number; a duplicate
        with the same inode can be neither.
        """
        with suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as twin:
            if os.fstat(twin.fileno()).st_ino == self._inode:
                self.broken = True
                twin.shutdown(socket.SHUT_RDWR)


def _start(supervise: Callable[[], None]) -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        # A driver in C (psycopg2) blocks all greenlets of its thread, so that none of them could supervise it.
        monkey.get_original("_thread", "start_new_thread")(supervise, ())
        return
    threading.Thread(target=supervise, name="mks-database-deadline", daemon=True).start()


class ClientDeadline:
    """Supervises the connections of one engine, from a thread that lives while there are operations.

    Args:
        patience: seconds within which a server answers, or is given up.
        clock: source of time.

    Attributes:
        patience: as above.
        clock: as above.
        between: seconds after which it is worth looking again at a server that was given up.
    """

    def __init__(self, patience: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.patience: float = patience
        self._pause = patience * _ASKED_AFTER
        self.between: float = patience * _AGAIN
        self._waiting: set[DriverWait] = set()
        self._lost: tuple[float, DriverWait] | None = None
        self._supervised = False
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Begin with nothing in a forked child: the thread and the operations are the parent's."""
        # Re-entrant, because a signal handler may use the database in the middle of a start.
        self._lock = threading.RLock()
        self._waiting = set()
        self._supervised = False
        self._lost = None

    def is_lost(self) -> bool:
        """Whether a new connection would wait in vain: the server was given up and is still silent.

        Now and then one caller may try all the same: another server may have taken over at another address.
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
        """A new connection was made: the server is there."""
        self._lost = None

    def watch(self, wait: DriverWait) -> None:
        """An operation starts; on the way of every statement."""
        self._waiting.add(wait)
        if not self._supervised and self._claim():
            try:
                _start(self._supervise)
            except RuntimeError:  # no more threads: the next operation tries again
                self._supervised = False

    def forget(self, wait: DriverWait) -> None:
        """An operation is over."""
        self._waiting.discard(wait)

    def _claim(self) -> bool:
        with self._lock:
            claimed = not self._supervised
            self._supervised = True
            return claimed

    def _supervise(self) -> None:
        try:
            self._look_round()
        except BaseException:  # out of descriptors, an abort: the next operation starts another thread
            self._supervised = False
            raise

    def _look_round(self) -> None:
        idle = 0
        while idle < _IDLE_ROUNDS or self._resume():
            if self._lost is not None:
                self._ask_lost(self._lost)
            waits = [(wait, wait.since) for wait in tuple(self._waiting)]
            idle = 0 if waits or self._lost else idle + 1
            now = self.clock.monotonic()
            due = [
                (wait, since)
                for wait, since in waits
                if since is not None and max(since, wait.answered) + self._pause <= now
            ]
            if due:
                self._ask(due)
            else:
                earliest = min((max(since or now, wait.answered) for wait, since in waits), default=now)
                longest = self.between if self._lost else self._pause
                time.sleep(max(0.0, min(longest, earliest + self._pause - now)))

    def _ask_lost(self, lost: tuple[float, DriverWait]) -> None:
        since, wait = lost
        nobody_tries = self.clock.monotonic() - since > 2 * self.patience
        if nobody_tries or wait.answers(within=self.between):
            self._lost = None

    def _resume(self) -> bool:
        """End, unless an operation began in this moment and still took the thread for alive."""
        self._supervised = False
        return bool(self._waiting) and self._claim()

    def _time_for(self, wait: DriverWait, since: float) -> float:
        """How long a server may think; less where another one has been asked before, and was silent."""
        heard = max(since, wait.answered)
        left = heard + self.patience * (1 - _AGAIN) - self.clock.monotonic()
        return min(self.patience * _ANSWER, max(self.patience * _AGAIN, left))

    def _ask(self, due: list[tuple[DriverWait, float]]) -> None:
        asked: dict[Address, bool] = {}
        silent: list[tuple[DriverWait, float]] = []
        for wait, since in sorted(due, key=lambda one: max(one[1], one[0].answered)):
            if wait.address not in asked:
                asked[wait.address] = wait.answers(within=self._time_for(wait, since))
            if asked[wait.address]:
                wait.answered = self.clock.monotonic()
            else:
                silent.append((wait, since))
        self._hang_up(silent)

    def _hang_up(self, silent: list[tuple[DriverWait, float]]) -> None:
        """End the operations one after the other: an event loop handles all that fail at once in one step."""
        began = self.clock.monotonic()
        step = min(_BETWEEN_ENDS, self.patience * _ENDS / max(1, len(silent)))
        for number, (wait, since) in enumerate(silent):
            if number and (pause := began + number * step - self.clock.monotonic()) > 0:
                time.sleep(pause)
            if wait.since == since:  # still the same operation
                self._lost = (self.clock.monotonic(), wait)
                wait.hang_up()
