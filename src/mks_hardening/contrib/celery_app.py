"""Celery as the engine of ``mks_hardening.tasks``: the rows decide, a message only says which row to look at.

A message carries an id and nothing else. Whether the row is due, taken, done or dead stands in the database, so a
message that comes twice, late or never changes nothing: what is rung and not taken is rung again.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Timer
from typing import TYPE_CHECKING, Final

from mks_hardening._core.checks import function, texts
from mks_hardening._core.durations import seconds
from mks_hardening._core.lazy_exports import exported
from mks_hardening._core.optional_imports import optional
from mks_hardening.contrib._celery_process import PoolProcess
from mks_hardening.contrib._celery_settings import RUN, TICK, celery_settings, check_limits
from mks_hardening.contrib._celery_wake_ups import KILL_GRACE, RING_AGAIN_AFTER, FromCelery, TaskBell
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError
from mks_hardening.tasks._leases import LEASE

if TYPE_CHECKING:
    from datetime import timedelta

    from celery import Celery

    from mks_hardening.tasks import Tasks

__all__ = ["RUN", "TICK", "TaskBell", "celery_app"]

exported(__name__, [TaskBell])

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
    """A Celery application that runs the tasks: ``celery -A module:app worker``, and ``beat`` if you like.

    Each worker also rings the bell for what is due and enqueues what is scheduled, so beat is not needed; two beats
    or more do no harm. Nothing is kept in a result backend: the row is the status.

    A task gets a soft limit, its ``timeout``: ``SoftTimeLimitExceeded`` is raised in it, and it can clean up. Its
    process is killed ``kill_grace`` seconds later. On SIGTERM a worker takes nothing more; what still runs after
    ``stop_timeout`` is interrupted by ``SystemExit``, put back, and run by another worker. Celery can do all this
    with processes only, ``--pool=prefork``; another pool that is told to stop waits for what runs. kombu may end a
    worker whose Sentinel connection is lost; nothing is lost with it, but its unit needs ``Restart=always``.

    Args:
        tasks: what may run, and where the rows are.
        broker_url: for example ``redis://localhost:6379/1``; a database of its own. For Sentinel,
            ``redis+sentinel://a:26379,b:26379/service/1`` as everywhere else here, or Celery's own
            ``sentinel://a:26379;sentinel://b:26379`` and ``broker_transport_options={"master_name": ...}``.
        name: of the Celery application, and of the application in its logs.
        queues: which queues of tasks its workers serve; ``-Q`` chooses among them.
        lease: seconds after which a worker that says nothing counts as dead.
        ring_again_after: seconds after which a task that was announced and not taken is announced again.
        visibility_timeout: seconds after which the broker hands on a message that was not acknowledged.
        kill_grace: seconds between the soft limit and the hard one.
        stop_timeout: seconds that running tasks get after SIGTERM; below the unit's ``TimeoutStopSec``.
        setup_logging: called in workers instead of ``mks_hardening.logging.setup_logging(name)``, whose lines are
            JSON with the ids of the request and of the task, and without secrets.
        settings: further settings of Celery, by their lower-case names.

    Raises:
        ConfigurationError: the longest hard limit of a task does not fit into the visibility time-out, or a setting
            would turn off what keeps tasks from being lost. A task that is defined later is checked when a worker
            starts, which then ends.
        MissingDependencyError: Celery is not installed.
    """
    with optional("celery", extra="celery"):
        import kombu
        from celery import Celery, signals
    visible = seconds(visibility_timeout, parameter="visibility_timeout", allow_zero=False)
    grace = seconds(kill_grace, parameter="kill_grace", allow_zero=False)
    patience = seconds(stop_timeout, parameter="stop_timeout")
    served = texts(queues, parameter="queues", of="queues")
    if not served:
        raise ConfigurationError("queues must name at least one", parameter="queues")
    again = seconds(ring_again_after, parameter="ring_again_after", minimum=1.0)
    if setup_logging is not None:
        function(setup_logging, parameter="setup_logging")
    app: FromCelery = Celery(name)
    app.conf.update(
        celery_settings(
            settings, broker_url=broker_url, visible=visible, stop_timeout=patience, kill_grace=grace
        )
    )
    # Without an exchange of its own, each queue would get the default one, and the messages of all others.
    messaging: FromCelery = kombu
    app.conf.task_queues = [
        messaging.Queue(queue, messaging.Exchange(queue), routing_key=queue) for queue in served
    ]
    app.conf.task_default_queue = served[0]
    process = PoolProcess(tasks, queues=served, lease=seconds(lease, parameter="lease", minimum=1.0))
    # typing: of a bound method Celery would ask for `self`, and refuse each message of beat. shared: other Celery
    # applications of this process would get these tasks too.
    app.task(name=RUN, ignore_result=True, typing=False, shared=False)(process.run)
    app.task(name=TICK, ignore_result=True, typing=False, shared=False)(process.tick)
    life = _WorkerLife(
        tasks,
        app,
        bell=TaskBell(tasks, app, queues=served, again_after=again, kill_grace=grace),
        visible=visible,
        kill_grace=grace,
        stop_timeout=patience,
        setup_logging=setup_logging,
    )
    # Here and once more in the worker, as tasks may be registered after this call.
    life.check()
    hooks: FromCelery = signals
    # weak=False: a bound method that nobody else holds would be gone at once.
    hooks.setup_logging.connect(life.set_up_logging, weak=False)
    hooks.worker_init.connect(life.begin, weak=False)
    hooks.worker_ready.connect(life.ready, weak=False)
    hooks.worker_shutting_down.connect(life.shut_down, weak=False)
    made: Celery = app
    return made


class _WorkerLife:
    """What happens in the main process of a worker, when Celery says so."""

    def __init__(
        self,
        tasks: Tasks,
        app: FromCelery,
        *,
        bell: TaskBell,
        visible: float,
        kill_grace: float,
        stop_timeout: float,
        setup_logging: Callable[[], object] | None,
    ) -> None:
        self._tasks = tasks
        self._app = app
        self._bell = bell
        self._visible = visible
        self._kill_grace = kill_grace
        self._stop_timeout = stop_timeout
        self._setup_logging = setup_logging
        self._pool: FromCelery = None

    def check(self) -> None:
        """Refuse limits that do not fit.

        Raises:
            ConfigurationError: the visibility time-out is too short.
        """
        conf = self._app.conf
        check_limits(
            self._tasks,
            visible=self._visible,
            kill_grace=self._kill_grace,
            lost_wait=seconds(conf.worker_lost_wait, parameter="worker_lost_wait"),
            plain_limit=seconds(conf.task_time_limit or 0.0, parameter="task_time_limit"),
        )

    def set_up_logging(self, *, loglevel: FromCelery = None, logfile: str | None = None, **_: object) -> None:
        """Celery asks how to log, and leaves the root alone once somebody answers."""
        if self._setup_logging is not None:
            self._setup_logging()
            return
        from mks_hardening.logging import setup_logging

        try:
            setup_logging(self._app.main, level=loglevel or "INFO", log_file=logfile)
        except MissingDependencyError:
            # Celery leaves its own set-up out once somebody has listened for this signal.
            logging.basicConfig(level=loglevel or "INFO", filename=logfile, format=_PLAIN_FORMAT)

    def begin(self, *, sender: FromCelery, **_: object) -> None:
        """Before the pool is forked: tasks are known by now, and children must not speak on our connections."""
        if sender.app is not self._app:
            return
        from mks_hardening.db import guard_fork

        try:
            self.check()
        except ConfigurationError as error:
            raise SystemExit(f"{error}") from None  # Celery logs other exceptions of a signal, and goes on
        guard_fork(self._tasks.store.engine)

    def ready(self, *, sender: FromCelery, **_: object) -> None:
        """Ring the bell from now on."""
        if sender.app is self._app:
            self._pool = sender.pool
            self._bell.start()

    def shut_down(self, *, how: str, **_: object) -> None:
        """Ring no more, and leave what runs so much time."""
        if self._pool is None:
            return
        self._bell.close()
        # In pools of threads and greenlets there is nobody to interrupt, and under gevent this is the event loop,
        # in which no thread can be started.
        if how == "Warm" and self._processes():
            timer = Timer(self._stop_timeout, self._interrupt)
            timer.daemon = True
            timer.start()

    def _interrupt(self) -> None:
        """Raise ``SystemExit`` in the tasks that are left; each puts itself back."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                # To the pool's processes, not to the group: the main process has to hear what becomes of them.
                os.kill(pid, signal.SIGTERM)

    def _processes(self) -> list[int]:
        """Those of the pool; ``--pool=solo`` names the worker itself."""
        return [pid for pid in self._pool.info.get("processes", ()) if pid != os.getpid()]
