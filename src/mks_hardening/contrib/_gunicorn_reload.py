"""A reload of gunicorn: the old workers serve until the new ones do, and continue if the reload fails.

gunicorn alone stops the old workers at once, ends itself if it cannot load the configuration or a new worker cannot
load the application, and handles no signal until the reload is over (``Arbiter.reload`` of gunicorn 25 to 27).
"""

from __future__ import annotations

import io
import logging
import mmap
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["Reload", "guard_reloads", "watch_heartbeats"]

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
        _LastReload.set_failed(reason is not None)
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
                _remove_ended(server, before)
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
                _remove_ended(server, before)
            select.select([], [], [], _ROUND / 10)

    def _new(self) -> dict[int, FromGunicorn]:
        return {pid: worker for pid, worker in self._server.WORKERS.items() if worker.age > self._youngest}

    def _old(self) -> dict[int, FromGunicorn]:
        return {pid: worker for pid, worker in self._server.WORKERS.items() if worker.age <= self._youngest}


class _LastReload:
    """Whether the last reload failed, in memory that the master shares with its workers."""

    _shared: ClassVar[mmap.mmap | None] = None

    @classmethod
    def share(cls) -> None:
        """Share it with the workers that are forked from now on; nothing has failed yet."""
        cls._shared = mmap.mmap(-1, 1)

    @classmethod
    def set_failed(cls, failed: bool) -> None:  # noqa: FBT001 - the value
        if cls._shared is not None:
            cls._shared[0] = failed

    @classmethod
    def failed(cls) -> bool:
        return cls._shared is not None and bool(cls._shared[0])


def guard_reloads(server: FromGunicorn) -> None:
    """Let the master continue if it cannot load its configuration, or replace a worker after a failed reload.

    gunicorn reads the configuration before its first hook of a reload, and ends if that fails. So two methods of
    the master are replaced, once, when it starts.
    """
    _LastReload.share()
    server.reload = partial(_reload, server, server.reload)
    server.reap_workers = partial(_reap_workers, server, server.reap_workers)


def _reload(server: FromGunicorn, reload: Callable[[], None]) -> None:
    app, before, workers, youngest = server.app, server.app.cfg, server.num_workers, server.worker_age
    said = io.StringIO()
    load = app.reload
    app.reload = partial(_load_configuration, load, said)
    try:
        reload()
    except StopIteration:  # a signal to end
        raise
    except (Exception, SystemExit) as error:
        # A new worker ends here too. And without its sockets, the server cannot continue.
        if server.worker_age != youngest or any(listener.sock is None for listener in server.LISTENERS):
            raise
        app.cfg = before
        server.setup(app)
        server.num_workers = workers
        _LastReload.set_failed(True)
        cause = error.__context__ if isinstance(error, SystemExit) else error
        reason = str(cause or said.getvalue().strip()) or type(cause).__name__
        _logger.error(  # noqa: TRY400 - the cause, not the end of the process that gunicorn makes of it
            "the reload failed, and the old workers continue with the former configuration: %s",
            reason,
            exc_info=cause,
        )
    finally:
        app.reload = load


def _load_configuration(load: Callable[[], None], said: io.StringIO) -> None:
    """Load the configuration; gunicorn writes an error to stderr, not as JSON, and it is logged later."""
    with redirect_stderr(said):
        load()
    sys.stderr.write(said.getvalue())


def _reap_workers(server: FromGunicorn, reap_workers: Callable[[], None]) -> None:
    """Reap workers; after a failed reload, one that could not replace another does not end the server."""
    from gunicorn.errors import HaltServer

    while True:
        before = dict(server.WORKERS)
        try:
            reap_workers()
        except HaltServer as error:
            if Reload.current is not None or not _LastReload.failed():
                raise
            _remove_ended(server, before)
            if not server.WORKERS:
                raise
            if len(server.WORKERS) >= server.num_workers:
                continue  # another new one of the reload that failed
            server.num_workers = len(server.WORKERS)
            reason = "the last reload failed, and a worker that ended is not replaced: %s"
            _logger.error(reason, error.reason)  # noqa: TRY400 - the worker has logged where it failed
        else:
            return


def _remove_ended(server: FromGunicorn, before: dict[int, FromGunicorn]) -> None:
    """Remove the worker that ended with ``HaltServer``: gunicorn 25 leaves it, and no version cleans it up."""
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


def watch_heartbeats(worker: FromGunicorn) -> None:
    """Do at the heartbeats of a worker what no hook of gunicorn is for.

    The first one reports to the master of a reload that the worker serves: every worker class sends it then, and
    ``post_worker_init`` is too early, because asyncio workers start up (lifespan) after it. At each one,
    ``max_requests`` is suspended while the last reload failed: another worker could not load the code.
    """
    limits = [
        (part, name, getattr(part, name))
        for part, name in (
            (worker, "max_requests"),
            (getattr(worker, "config", None), "limit_max_requests"),  # of uvicorn
        )
        if getattr(worker.cfg, "max_requests", 0) and hasattr(part, name)
    ]
    if Reload.current is None and not limits:
        return
    heartbeat = worker.notify

    def notify() -> None:
        reload, Reload.current = Reload.current, None
        if reload is not None:
            reload.report()
        failed = _LastReload.failed()
        for part, name, limit in limits:
            setattr(part, name, sys.maxsize if failed else limit)
        heartbeat()

    worker.notify = notify
