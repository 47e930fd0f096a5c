"""Embedded worker: threads that run due tasks from the table, in any number of processes."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Self

from mks_hardening._core.checks import boolean, function, offers, strings, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.database.error_text import error_summary
from mks_hardening._core.durations import seconds
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock
from mks_hardening.tasks._executor import Executor, Outcome
from mks_hardening.tasks._leases import LEASE, LeaseRenewer
from mks_hardening.tasks._naming import check_queue, id_text
from mks_hardening.tasks._scheduler import Scheduler
from mks_hardening.tasks._table_outage import table_outage_log
from mks_hardening.tasks.task_run import TaskRun

if TYPE_CHECKING:
    from datetime import timedelta

    from mks_hardening.tasks.store._notification_listener import NotificationListener
    from mks_hardening.tasks.store._task_rows import LeasedTask
    from mks_hardening.tasks.tasks import Tasks

__all__ = ["TaskWorker"]


class TaskWorker(Closing):
    """Worker that runs tasks on threads of this process.

    Several workers, in one or many processes, share the tasks: each task is leased by one of them. If a worker
    dies, another one runs its tasks after ``lease`` seconds. A forked child has no worker; start one in the child.
    ``with TaskWorker(tasks):`` starts the worker, and stops it at the end.

    A waiting worker runs a new task at once if it was enqueued in the same process, or if PostgreSQL announces it
    (``NOTIFY``): for this, the worker keeps one connection in addition to those of the pool. Otherwise, and while
    that connection is lost, it finds the task by polling. PgBouncer in transaction mode delivers no notifications.

    Args:
        tasks: the registered tasks and their store.
        queues: queues to serve.
        concurrency: number of threads, 1 to 64; each needs a connection of the engine during its queries, as do two
            more threads that renew leases and check schedules: ``hardened_engine(url, threads=concurrency + 2)``.
        lease: seconds after which a worker that does not renew its leases counts as dead, at least 1.
        poll: seconds between two queries of the table while there is nothing to do.
        schedule: whether this worker also enqueues scheduled tasks; any number of workers may.
        clock: monotonic clock for durations.

    Raises:
        ConfigurationError: a parameter is out of range.
    """

    def __init__(
        self,
        tasks: Tasks,
        *,
        queues: Sequence[str] = ("default",),
        concurrency: int = 2,
        lease: float | timedelta = LEASE,
        poll: float | timedelta = 0.5,
        schedule: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._tasks = offers(tasks, "task", "begin", parameter="tasks", kind="a Tasks")
        self._queues = tuple(check_queue(name) for name in strings(queues, parameter="queues", of="queues"))
        self._threads_wanted = whole_number(concurrency, parameter="concurrency", minimum=1, maximum=64)
        self._lease = seconds(lease, parameter="lease", minimum=1.0)
        self._poll = seconds(poll, parameter="poll", minimum=0.01)
        self._clock = given_clock(clock)
        self._executor = Executor(tasks, clock=self._clock)
        self._scheduler = Scheduler(tasks) if boolean(schedule, parameter="schedule") else None
        self._outage = table_outage_log()
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Reset the state in a forked child: no threads, and new locks."""
        self._stopping = threading.Event()
        # One item wakes one thread. Unlike an Event, it may be used within itself, by a signal handler or a garbage
        # collection. Looked up in the module, where gevent replaces the class.
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._listener: NotificationListener | None = None
        self._threads = list[threading.Thread]()
        self._renewer: LeaseRenewer | None = None
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the threads; does nothing if they are running.

        Raises:
            ConfigurationError: the database is in memory and belongs to one connection, which threads cannot share.
        """
        if self._tasks.store.in_memory:
            raise ConfigurationError(
                "tasks on threads need a database that all connections share: SQLite in a file, or PostgreSQL; "
                "in memory there is run_pending()",
                parameter="tasks",
            )
        if self._threads and not self._stopping.is_set():
            return
        # A new event, because threads that the last stop did not wait for still end by the old one.
        self._stopping = stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(stopping,), name=f"mks-task-{number}", daemon=True)
            for number in range(self._threads_wanted)
        ]
        if self._scheduler is not None:
            self._threads.append(
                threading.Thread(
                    target=self._schedule, args=(stopping,), name="mks-task-schedule", daemon=True
                )
            )
        self._listener = self._tasks.store.listener(self.wake, self._queues)
        if self._listener is not None:
            self._threads.append(
                threading.Thread(target=self._listener.run, name="mks-task-listen", daemon=True)
            )
        self._tasks.store.signals.subscribe(self.wake, self._queues)
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def stop(self, timeout: float | timedelta = 30.0) -> bool:
        """Stop leasing tasks and wait for running ones; return whether all of them ended in time.

        A task that did not end continues on its thread; if the process ends, another worker runs it after the
        lease.
        """
        end = SYSTEM_CLOCK.monotonic() + seconds(timeout, parameter="timeout")
        self._stopping.set()
        self._tasks.store.signals.unsubscribe(self.wake)
        if self._listener is not None:
            self._listener.close()
        self.wake()
        for thread in self._threads:
            # One timeout for all threads together, not for each.
            thread.join(max(0.0, end - SYSTEM_CLOCK.monotonic()))
        ended = not any(thread.is_alive() for thread in self._threads)
        if ended:
            self._threads = []
            with self._lock:
                renewer, self._renewer = self._renewer, None
            if renewer is not None:
                renewer.close(max(0.0, end - SYSTEM_CLOCK.monotonic()))
        return ended

    def close(self) -> None:
        """Call ``stop`` with its default timeout."""
        self.stop()

    def wake(self) -> None:
        """Query the table now, for tasks that were just committed."""
        if self._wake_ups.empty():
            self._wake_ups.put(None)

    def run_pending(self, *, most: int = 1000) -> list[Outcome]:
        """Run due tasks on the calling thread until there are none: for tests and cron.

        Returns:
            The outcome of each task, as in ``mks_hardening.events.TaskChanged``.
        """
        whole_number(most, parameter="most", minimum=1)
        outcomes = list[Outcome]()
        self.enqueue_scheduled()
        while len(outcomes) < most and (leased := self._lease_next()):
            outcomes.append(self._run(leased))
        return outcomes

    def run_one(
        self,
        task_id: str,
        *,
        is_leaving: Callable[[], bool] = lambda: False,
        on_error: Callable[[BaseException], object] = lambda _: None,
    ) -> Outcome | None:
        """Run one task now under its lease; return ``None`` if it is not due or another worker has leased it.

        Args:
            task_id: id of the task; its queue does not matter.
            is_leaving: whether this process is shutting down: then an exception is not a failure of the task, and
                another worker runs it.
            on_error: called with an exception of the task that is not a retry, a cancellation or a lost lease.
        """
        owner = secrets.token_hex(16)
        for parameter, called in (("is_leaving", is_leaving), ("on_error", on_error)):
            function(called, parameter=parameter)
        leased = self._tasks.store.lease_one(id_text(task_id), owner=owner, lease=self._lease)
        return None if leased is None else self._run(leased, is_leaving=is_leaving, on_error=on_error)

    def enqueue_scheduled(self) -> bool:
        """Enqueue due scheduled tasks; return whether there were any."""
        return self._scheduler is not None and bool(self._scheduler.enqueue_due())

    def _lease_next(self) -> LeasedTask | None:
        found = self._tasks.store.lease(
            # A new owner for each run, not for each worker: if the lease expires and this very process leases the
            # task again, the first run has lost it.
            owner=secrets.token_hex(16),
            lease=self._lease,
            queues=self._queues,
            most=1,
        )
        return found[0] if found else None

    def _run(
        self,
        leased: LeasedTask,
        *,
        is_leaving: Callable[[], bool] = lambda: False,
        on_error: Callable[[BaseException], object] = lambda _: None,
        finish: Callable[[str], bool] | None = None,
    ) -> Outcome:
        run = TaskRun(self._tasks.store, leased, clock=self._clock)
        task = self._tasks.known.get(leased.name)
        renewer = self._started_renewer()
        renewer.add(run, timeout=inf if task is None else task.timeout)
        try:
            return self._executor.execute(run, is_leaving=is_leaving, on_error=on_error, finish=finish)
        finally:
            renewer.remove(run)

    def _started_renewer(self) -> LeaseRenewer:
        with self._lock:
            if self._renewer is None:
                self._renewer = LeaseRenewer(self._tasks.store, lease=self._lease, clock=self._clock)
                if not self._tasks.store.in_memory:  # another thread would see another database
                    self._renewer.start()
            return self._renewer

    def _work(self, stopping: threading.Event) -> None:
        following: LeasedTask | None = None
        while following is not None or not stopping.is_set():
            try:
                worked, following = self._run_next(following, stopping)
                self._outage.succeeded()
            except Exception as error:  # noqa: BLE001 - retry after any error of the database
                worked, following = False, None
                # Waits for the stop event, so that stop() does not wait for an unavailable database.
                stopping.wait(self._outage.failed(error_summary(error)))
            if not worked and not stopping.is_set():
                # A wake-up while this thread was working causes one unnecessary query, which is cheaper than a
                # missed one.
                with suppress(queue.Empty):
                    self._wake_ups.get(timeout=self._poll)
        # Each thread that ends wakes the next one.
        self.wake()

    def _run_next(
        self, leased: LeasedTask | None, stopping: threading.Event
    ) -> tuple[bool, LeasedTask | None]:
        """Run a task, leased now unless given; return whether there was one, and the next if it is leased."""
        leased = leased or self._lease_next()
        if leased is None:
            return False, None
        # There may be more tasks, for which one thread wakes another: a wake-up of all would query the table as
        # often as there are threads.
        self.wake()
        running, following = leased, None
        store, owner, is_sent = self._tasks.store, secrets.token_hex(16), False

        def finish(result: str) -> bool:
            nonlocal following, is_sent
            if is_sent:
                # The first attempt may have been committed although its response was lost: then it leased a task
                # that nobody would run until the lease expires.
                following = store.leased_by(owner)
            if is_sent or stopping.is_set():
                return store.finish(running, result=result)
            is_sent = True
            held, following = store.finish_and_lease(
                running, result=result, owner=owner, lease=self._lease, queues=self._queues
            )
            return held

        self._run(leased, finish=finish)
        return True, following

    def _schedule(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._poll):
            try:
                if self.enqueue_scheduled():  # if nothing was due, the database may not have been queried
                    self.wake()
                    self._outage.succeeded()
            except Exception as error:  # noqa: BLE001 - as in _work
                stopping.wait(self._outage.failed(error_summary(error)))
