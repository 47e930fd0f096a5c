"""Celery as the engine of ``mks_hardening.tasks``: the database decides, a message only announces a row.

A message contains only an id. Whether the row is due, running, done or dead is stored in the database, so a message
that arrives twice, late or never does no harm: if a row was announced and not taken, it is announced again.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, strings
from mks_hardening._core.durations import seconds
from mks_hardening._core.lazy_exports import exported
from mks_hardening._core.optional_imports import optional
from mks_hardening.contrib._celery_process import PoolProcess
from mks_hardening.contrib._celery_settings import RUN, TICK, celery_settings, check_limits
from mks_hardening.contrib._celery_wake_ups import KILL_GRACE, RING_AGAIN_AFTER, FromCelery, TaskNotifier
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError
from mks_hardening.tasks._leases import LEASE

if TYPE_CHECKING:
    from datetime import timedelta

    from celery import Celery

    from mks_hardening.tasks import Tasks

__all__ = ["RUN", "TICK", "TaskNotifier", "celery_app"]

exported(__name__, [TaskNotifier])

_PLAIN_FORMAT: Final = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"


def celery_app(
    tasks: Tasks,
    *,
    broker_url: str,
    name: str = "mks",
    queues: Sequence[str] = ("default",),
    lease: float | timedelta = LEASE,
    ring_again_after: float | timedelta = RING_AGAIN_AFTER,
    visibility_timeout: float | timedelta = 3600.0,
    kill_grace: float | timedelta = KILL_GRACE,
    stop_timeout: float | timedelta = 25.0,
    setup_logging: Callable[[], object] | None = None,
    **settings: object,
) -> Celery:
    """Create a Celery application that runs the tasks: ``celery -A module:app worker``, optionally with ``beat``.

    Each worker also announces due tasks and enqueues scheduled ones, so beat is not required; several beats do no
    harm. Nothing is stored in a result backend: the row has the status.

    The ``timeout`` of a task becomes its soft limit: ``SoftTimeLimitExceeded`` is raised in the task, which can
    clean up. Its process is killed ``kill_grace`` seconds later. On SIGTERM a worker takes no more tasks; those
    still running after ``stop_timeout`` are interrupted by ``SystemExit``, put back, and run by another worker.
    Celery supports this only with processes, ``--pool=prefork``; other pools wait for running tasks when they are
    stopped. kombu may end a worker whose Sentinel connection is lost; no task is lost, but its systemd unit needs
    ``Restart=always``.

    Args:
        tasks: the task definitions and their store.
        broker_url: for example ``redis://localhost:6379/1``; use a separate database. For Sentinel,
            ``redis+sentinel://a:26379,b:26379/service/1`` as elsewhere in this package, or Celery's own
            ``sentinel://a:26379;sentinel://b:26379`` and ``broker_transport_options={"master_name": ...}``.
        name: name of the Celery application, and of the application in its logs.
        queues: task queues that its workers serve; ``-Q`` selects among them.
        lease: seconds after which a worker that does not renew its lease is considered dead.
        ring_again_after: seconds after which a task that was announced and not taken is announced again.
        visibility_timeout: seconds after which the broker redelivers a message that was not acknowledged.
        kill_grace: seconds between the soft and the hard limit.
        stop_timeout: seconds that running tasks get after SIGTERM; less than the unit's ``TimeoutStopSec``.
        setup_logging: called in workers instead of ``mks_hardening.logging.setup_logging(name)``, which writes JSON
            with the ids of the request and of the task, and without secrets.
        settings: further settings of Celery, by their lower-case names.

    Raises:
        ConfigurationError: the longest hard limit of a task does not fit into the visibility timeout, or a setting
            would disable the protection against lost tasks. Tasks that are defined later are checked when a worker
            starts, which then exits.
        MissingDependencyError: Celery is not installed.
    """
    with optional("celery", extra="celery"):
        import kombu
        from celery import Celery, signals
    visible = seconds(visibility_timeout, parameter="visibility_timeout", allow_zero=False)
    grace = seconds(kill_grace, parameter="kill_grace", allow_zero=False)
    patience = seconds(stop_timeout, parameter="stop_timeout")
    served = strings(queues, parameter="queues", of="queues")
    if not served:
        raise ConfigurationError("queues must contain at least one queue", parameter="queues")
    again = seconds(ring_again_after, parameter="ring_again_after", minimum=1.0)
    if setup_logging is not None:
        function(setup_logging, parameter="setup_logging")
    app: FromCelery = Celery(name)
    app.conf.update(
        celery_settings(
            settings, broker_url=broker_url, visible=visible, stop_timeout=patience, kill_grace=grace
        )
    )
    # Without its own exchange, each queue would use the default one and get the messages of all others.
    messaging: FromCelery = kombu
    app.conf.task_queues = [
        messaging.Queue(queue, messaging.Exchange(queue), routing_key=queue) for queue in served
    ]
    app.conf.task_default_queue = served[0]
    process = PoolProcess(tasks, queues=served, lease=seconds(lease, parameter="lease", minimum=1.0))
    # typing: for a bound method Celery would require `self`, and reject every message of beat. shared: other Celery
    # applications of this process would get these tasks too.
    app.task(name=RUN, ignore_result=True, typing=False, shared=False)(process.run)
    app.task(name=TICK, ignore_result=True, typing=False, shared=False)(process.tick)
    life = _WorkerSignals(
        tasks,
        app,
        notifier=TaskNotifier(tasks, app, queues=served, again_after=again, kill_grace=grace),
        visible=visible,
        kill_grace=grace,
        stop_timeout=patience,
        setup=setup_logging,
    )
    # Checked again in the worker, because tasks may be registered after this call.
    life.check()
    hooks: FromCelery = signals
    # weak=False: otherwise the bound methods would be garbage-collected immediately.
    hooks.setup_logging.connect(life.set_up_logging, weak=False)
    hooks.worker_init.connect(life.begin, weak=False)
    hooks.worker_ready.connect(life.ready, weak=False)
    hooks.worker_shutting_down.connect(life.shut_down, weak=False)
    made: Celery = app
    return made


@dataclass
class _WorkerSignals:
    """Signal handlers of the main process of a worker."""

    tasks: Tasks
    app: FromCelery
    notifier: TaskNotifier
    visible: float
    kill_grace: float
    stop_timeout: float
    setup: Callable[[], object] | None
    pool: FromCelery = None

    def check(self) -> None:
        """Check that the limits fit into the visibility timeout.

        Raises:
            ConfigurationError: the visibility timeout is too short.
        """
        conf = self.app.conf
        check_limits(
            self.tasks,
            visible=self.visible,
            kill_grace=self.kill_grace,
            lost_wait=seconds(conf.worker_lost_wait, parameter="worker_lost_wait"),
            plain_limit=seconds(conf.task_time_limit or 0.0, parameter="task_time_limit"),
        )

    def set_up_logging(self, *, loglevel: FromCelery = None, logfile: str | None = None, **_: object) -> None:
        """Set up logging; Celery leaves the root logger alone if this signal has a receiver."""
        if self.setup is not None:
            self.setup()
            return
        from mks_hardening.logging import setup_logging

        try:
            setup_logging(self.app.main, level=loglevel or "INFO", log_file=logfile)
        except MissingDependencyError:
            # Celery skips its own setup if this signal has a receiver.
            logging.basicConfig(level=loglevel or "INFO", filename=logfile, format=_PLAIN_FORMAT)

    def begin(self, *, sender: FromCelery, **_: object) -> None:
        """Prepare the fork of the pool: all tasks are known, and children must not use the parent's connections."""
        if sender.app is not self.app:
            return
        from mks_hardening.db import guard_fork

        try:
            self.check()
        except ConfigurationError as error:
            raise SystemExit(f"{error}") from None  # Celery logs other exceptions and continues
        guard_fork(self.tasks.store.engine)

    def ready(self, *, sender: FromCelery, **_: object) -> None:
        """Start announcing due tasks."""
        if sender.app is self.app:
            self.pool = sender.pool
            self.notifier.start()

    def shut_down(self, *, how: str, **_: object) -> None:
        """Stop announcing, and interrupt running tasks after ``stop_timeout``."""
        if self.pool is None:
            return
        self.notifier.close()
        # Pools of threads and greenlets have no processes to interrupt, and with gevent this is the event loop,
        # where no thread can be started.
        if how == "Warm" and self._processes():
            timer = Timer(self.stop_timeout, self._interrupt)
            timer.daemon = True
            timer.start()

    def _interrupt(self) -> None:
        """Raise ``SystemExit`` in the remaining tasks; each puts itself back into the queue."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                # To the pool's processes, not to the group: the main process must see how they end.
                os.kill(pid, signal.SIGTERM)

    def _processes(self) -> list[int]:
        """Return the process ids of the pool; ``--pool=solo`` reports the worker itself."""
        return [pid for pid in self.pool.info.get("processes", ()) if pid != os.getpid()]
