"""A reload of gunicorn: the old workers serve until the new ones do, and continue if a new one fails.

gunicorn alone stops the old workers at once, ends itself if a new worker cannot load the application, and handles
no signal until the reload is over (``Arbiter.reload`` of gunicorn 25 to 27).
"""

from __future__ import annotations

import logging
import os
import select
import signal
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["Reload"]

FromGunicorn: TypeAlias = Any
"""An object from gunicorn, which ships no types."""

_ROUND: Final = 0.1
"""Seconds between two looks at the workers."""
_LONGEST: Final = 120
"""Seconds in which new workers must serve, if ``timeout`` is not longer; gunicorn itself has no limit."""
_END: Final = 5
"""Seconds in which a killed worker ends."""
_PID: Final = 8
"""Bytes of a process id in the pipe."""
_STOPS: Final = {signal.SIGTERM: "handle_term", signal.SIGINT: "handle_int", signal.SIGQUIT: "handle_quit"}
_logger: Final = logging.getLogger("mks_hardening.gunicorn")


class Reload:
    """One reload, begun by the master in ``on_reload``.

    No hook lies between the start of the new workers and the end of the old ones, which ``manage_workers`` stops.
    So its next call is replaced.

    Attributes:
        current: the reload that a new worker belongs to, until it has reported that it serves.
    """

    current: ClassVar[Reload | None] = None

    def __init__(self, server: FromGunicorn) -> None:
        self._server = server
        self._youngest: int = server.worker_age
        self._serving: set[int] = set()
        self._pipe = os.pipe()
        Reload.current = self
        server.manage_workers = self._manage_workers

    def _manage_workers(self) -> None:
        server = self._server
        del server.manage_workers
        try:
            reason = self._wait_for_new()
        finally:
            Reload.current = None
            self.close()
        if reason is not None:
            self._keep_old(reason)
        server.manage_workers()
        self._wait_for_old()

    def report(self) -> None:
        """Report to the master that this process serves."""
        os.write(self._pipe[1], os.getpid().to_bytes(_PID, "big"))
        self.close()

    def close(self) -> None:
        """Close the pipe in this process."""
        for end in self._pipe:
            os.close(end)

    def _wait_for_new(self) -> str | None:
        """Wait until all new workers serve; return the reason if one fails while old ones are left."""
        from gunicorn.errors import HaltServer

        server = self._server
        started = set(self._new())
        now = SYSTEM_CLOCK.monotonic()
        longest = max(_LONGEST, server.cfg.timeout)
        late, limit, murders = False, now + longest, now + 1
        while True:
            self._obey_signals()
            before = dict(server.WORKERS)
            try:
                server.reap_workers()
            except HaltServer as error:
                self._remove_ended(before)
                if not self._old():
                    raise
                return str(error.reason)
            new = set(self._new())
            self._read_reports()
            if failed := started - new - self._serving:
                if not self._old():
                    return None
                ended = f"worker {min(failed)} ended before it served"
                return self._too_late(longest) if late else ended
            if new <= self._serving:
                return None
            now = SYSTEM_CLOCK.monotonic()
            if now >= limit:
                if late:
                    return self._too_late(longest) if self._old() else None
                late, limit = True, now + _END
                for pid in new - self._serving:
                    server.kill_worker(pid, signal.SIGABRT)  # it logs where it hangs
            if now >= murders:  # not more often: a worker needs the time to log where it hangs
                murders = now + 1
                server.murder_workers()
            select.select([self._pipe[0]], [], [], _ROUND)

    @staticmethod
    def _too_late(longest: float) -> str:
        return f"a new worker does not serve after {longest:g} seconds"

    def _read_reports(self) -> None:
        while select.select([self._pipe[0]], [], [], 0)[0]:
            self._serving.add(int.from_bytes(os.read(self._pipe[0], _PID), "big"))

    def _keep_old(self, reason: str) -> None:
        """Make the old workers the youngest ones, so that gunicorn stops the new ones in place of them."""
        server = self._server
        _logger.error("the reload failed, and the old workers continue: %s", reason)
        self._kill_unready()
        old = sorted(self._old().values(), key=lambda worker: worker.age)
        for worker in old:
            server.worker_age += 1
            worker.age = server.worker_age
        # Another worker would load the same code.
        server.num_workers = len(old)

    def _wait_for_old(self) -> None:
        """Wait until the old workers have ended, as gunicorn does next, but obey signals."""
        server = self._server
        limit = SYSTEM_CLOCK.monotonic() + server.cfg.graceful_timeout
        while self._old() and SYSTEM_CLOCK.monotonic() < limit:
            self._obey_signals()
            server.reap_workers()
            select.select([], [], [], _ROUND)

    def _obey_signals(self) -> None:
        """Stop the server if a signal says so; other signals wait for the end of the reload."""
        waiting = self._server.SIG_QUEUE
        for _ in range(waiting.qsize()):
            number = waiting.get_nowait()
            if number in _STOPS:
                self._kill_unready()
                getattr(self._server, _STOPS[number])()  # raises StopIteration, which ends gunicorn
            waiting.put_nowait(number)

    def _kill_unready(self) -> None:
        """Kill the new workers that do not serve: they have no requests, and may ignore SIGTERM."""
        from gunicorn.errors import HaltServer

        server, limit = self._server, SYSTEM_CLOCK.monotonic() + _END
        for pid in self._new().keys() - self._serving:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._new().keys() - self._serving and SYSTEM_CLOCK.monotonic() < limit:
            before = dict(server.WORKERS)
            try:
                server.reap_workers()
            except HaltServer:
                self._remove_ended(before)
            select.select([], [], [], _ROUND / 10)

    def _remove_ended(self, before: dict[int, FromGunicorn]) -> None:
        """Remove the worker that ended with ``HaltServer``: gunicorn 25 leaves it, and no version cleans it up."""
        server = self._server
        for pid, worker in before.items():
            if pid in server.WORKERS:
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    del server.WORKERS[pid]
                else:
                    continue
            try:
                worker.tmp.fileno()
            except ValueError:
                continue  # closed: it was cleaned up
            worker.tmp.close()
            server.cfg.child_exit(server, worker)

    def _new(self) -> dict[int, FromGunicorn]:
        return {pid: worker for pid, worker in self._server.WORKERS.items() if worker.age > self._youngest}

    def _old(self) -> dict[int, FromGunicorn]:
        return {pid: worker for pid, worker in self._server.WORKERS.items() if worker.age <= self._youngest}

    @classmethod
    def report_first_heartbeat(cls, worker: FromGunicorn) -> None:
        """Let a new worker report to the master when it serves: every worker class sends its first heartbeat then.

        ``post_worker_init`` is too early: asyncio workers start up (lifespan) after it.
        """
        if cls.current is None:
            return

        def notify() -> None:
            del worker.notify
            reload, cls.current = cls.current, None
            if reload is not None:
                reload.report()
            worker.notify()

        worker.notify = notify
