"""Execution of one leased task, and recording its outcome in the row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, cast

from mks_hardening._core import hooks
from mks_hardening._core.process.context import bound
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.events import TaskChanged
from mks_hardening.exceptions import (
    ConfigurationError,
    TaskCancelledError,
    TaskLostError,
    TaskRefusedError,
    TaskRetryError,
)
from mks_hardening.tasks._back_off import requested_delay, retry_delay
from mks_hardening.tasks._payload import dump, load, storable
from mks_hardening.tasks._signatures import mismatch
from mks_hardening.tasks._states import State
from mks_hardening.tasks.task_run import TaskRun

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock
    from mks_hardening.tasks.tasks import Task, Tasks

__all__ = ["Executor", "Outcome"]

Outcome = Literal["done", "retried", "dead", "cancelled", "lost", "interrupted", "unknown", "stranded"]

_logger: Final = logging.getLogger("mks_hardening.tasks")
_UNKNOWN_DELAYS: Final = (1.0, 15.0)
"""Seconds until another worker may lease a task that this one cannot run: a quarter of the time it has waited."""
_LONGEST_DEPLOY: Final = 600.0
"""Seconds for which a task may be unknown during a rollout of new code; after that an error is logged."""
_OUTCOMES: Final[Mapping[State, Outcome]] = {"done": "done", "dead": "dead", "cancelled": "cancelled"}
"""Outcome of a run that left its row in an end state."""
_LONGEST_ERROR: Final = 500
_SNOOZES: Final = "snoozes"
"""Context key that counts the attempts that the task requested itself (``TaskRetryError``) without failing."""
_WAITS: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Seconds between attempts to record the outcome of a run: in total longer than ``LEASE``.

Until the lease expires, nobody else runs the task; after a failover of the database that takes half a minute, the
work would be done a second time.
"""


class Executor:
    """Executor of leased tasks.

    Args:
        tasks: the registered functions and the store.
        clock: monotonic clock for durations.
    """

    def __init__(self, tasks: Tasks, *, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock

    def execute(
        self,
        run: TaskRun,
        *,
        is_leaving: Callable[[], bool] = lambda: False,
        on_error: Callable[[BaseException], object] = lambda _: None,
        finish: Callable[[str], bool] | None = None,
    ) -> Outcome:
        """Run one task and record its outcome; only KeyboardInterrupt and database errors can propagate.

        Args:
            run: the task and its lease.
            is_leaving: whether this process is shutting down, so that an exception is not a failure of the task.
            on_error: called with an exception of the task that is not a retry, a cancellation or a lost lease.
            finish: records the result of the run instead of the store's ``finish``; returns whether the lease was
                still held.
        """
        task = self._tasks.known.get(run.leased.name)
        carried = cast("dict[str, object]", load(run.leased.context))
        carried.pop(_SNOOZES, None)
        with bound(**carried, task_id=run.id, task=run.leased.name):
            start = self._clock.monotonic()
            outcome = (
                self._unknown(run, "the name")
                if task is None
                else self._outcome(task, run, is_leaving, on_error, finish)
            )
            if hooks.observers:
                seconds = self._clock.monotonic() - start
                hooks.emit(TaskChanged(run.leased.name, outcome, seconds))
            return outcome

    def _outcome(
        self,
        task: Task[..., object],
        run: TaskRun,
        is_leaving: Callable[[], bool],
        on_error: Callable[[BaseException], object],
        finish: Callable[[str], bool] | None,
    ) -> Outcome:
        # Before any code of the task runs: a task that kills its process (out of memory, a crash in C) never raises
        # an exception.
        if run.delivery > task.max_deliveries:
            return self._dead(run, f"{run.delivery - 1} workers died while running it")
        if run.leased.cancel_requested:
            return self._cancelled(run)
        start = self._clock.monotonic()
        args, kwargs = cast("tuple[list[object], dict[str, object]]", load(run.leased.arguments))
        # The code that enqueued the task accepted its arguments, but may be newer than this worker's code during a
        # release, or older after it.
        if mismatch(task.signature, args, kwargs):
            return self._unknown(run, "its arguments")
        try:
            result = task.work(run, *args, **kwargs)
        # Ctrl-C at a terminal ends the process; a SystemExit raised by the task is caught below.
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - every exception of a task is recorded, and the worker continues
            if is_leaving() and not run.finished:
                return self._interrupted(task, run, self._clock.monotonic() - start)
            return self._raised(task, run, error, on_error)
        return "done" if run.finished else self._done(run, result, finish)

    def _done(self, run: TaskRun, result: object, finish: Callable[[str], bool] | None) -> Outcome:
        # A result that is not JSON will not be JSON the next time either: do not repeat the work because of it.
        try:
            text = dump(result, what="result")
        except TaskRefusedError as error:
            return self._dead(run, f"{error}")
        if finish is None:
            return self._record(run, "done", lambda: self._tasks.store.finish(run.leased, result=text))
        return self._record(run, "done", lambda: finish(text))

    def _raised(
        self,
        task: Task[..., object],
        run: TaskRun,
        error: BaseException,
        on_error: Callable[[BaseException], object],
    ) -> Outcome:
        if run.finished:  # the effects and the outcome are already committed
            _logger.error("the task %s failed after its end was recorded", run.leased.name, exc_info=error)
            return "done"
        if isinstance(error, TaskLostError):
            return self._lease_lost(run)
        if isinstance(error, TaskCancelledError):
            return self._cancelled(run)
        if isinstance(error, TaskRetryError):
            return self._retry_or_fail(task, run, "asked to be run again", _requested_delay(run, error))
        # After the three signals, which are not failures and would only be noise in an error tracker.
        on_error(error)
        if _is_transient(task, error):
            return self._retry_or_fail(task, run, _error_text(error), None)
        _logger.error("the task %s failed", run.leased.name, exc_info=error)
        return self._dead(run, _error_text(error))

    def _retry_or_fail(
        self, task: Task[..., object], run: TaskRun, reason: str, after: float | None
    ) -> Outcome:
        context = cast("dict[str, object]", load(run.leased.context))
        snoozes = cast("int", context.get(_SNOOZES, 0))
        if after is not None:
            return self._retry(run, reason, after, dump({**context, _SNOOZES: snoozes + 1}, what="context"))
        failures = run.attempt - snoozes
        if failures >= task.max_attempts:
            return self._dead(run, f"{reason} (attempt {failures} of {task.max_attempts})")
        return self._retry(run, reason, retry_delay(failures), run.leased.context)

    def _retry(self, run: TaskRun, reason: str, delay: float, context: str) -> Outcome:
        _logger.warning("the task %s is retried in %.1f s: %s", run.leased.name, delay, reason)
        return self._record(
            run,
            "retried",
            lambda: self._tasks.store.retry(run.leased, delay=delay, error=reason, context=context),
        )

    def _dead(self, run: TaskRun, reason: str) -> Outcome:
        error = storable(reason, most=_LONGEST_ERROR)
        outcome = self._record(run, "dead", lambda: self._tasks.store.give_up(run.leased, error=error))
        # Logged only if this run has written the row: if two workers give up one task, one of them alerts.
        if outcome == "dead":
            _logger.error("the task %s is dead and waits for an operator: %s", run.leased.name, reason)
        return outcome

    def _cancelled(self, run: TaskRun) -> Outcome:
        return self._record(run, "cancelled", lambda: self._tasks.store.stop(run.leased))

    def _interrupted(self, task: Task[..., object], run: TaskRun, seconds: float) -> Outcome:
        if seconds >= task.timeout:  # the hard limit, not the shutdown of a worker
            return self._dead(run, f"it ran longer than {task.timeout:g} s and was ended")
        _logger.warning(
            "the task %s was interrupted when its worker stopped; it will run again", run.leased.name
        )
        reason = "interrupted when its worker stopped"
        return self._record(
            run, "interrupted", lambda: self._tasks.store.put_back(run.leased, delay=0.0, error=reason)
        )

    def _lease_lost(self, run: TaskRun) -> Outcome:
        # Notify threads of the task that may still be running.
        run.lost.set()
        _logger.warning("the lease on the task %s expired; its result is not recorded", run.leased.name)
        return "lost"

    def _unknown(self, run: TaskRun, what: str) -> Outcome:
        waited = run.leased.unknown_for or 0.0
        shortest, longest = _UNKNOWN_DELAYS
        delay = min(longest, max(shortest, waited / 4))
        reason = f"no worker that knows {what}"
        outcome = self._record(
            run,
            "unknown" if waited < _LONGEST_DEPLOY else "stranded",
            lambda: self._tasks.store.put_back(run.leased, delay=delay, error=reason, unknown=True),
        )
        if outcome == "stranded":
            _logger.error(
                "the task %s has waited %.0f s for a worker that knows %s; is new code deployed everywhere?",
                run.leased.name,
                waited,
                "it" if what == "the name" else what,
            )
        elif what == "the name":
            _logger.warning(
                "this worker does not know the task %s; it waits for one that does", run.leased.name
            )
        else:
            _logger.warning(
                "this worker's code of the task %s does not take the arguments it was enqueued with; "
                "it waits for one that does",
                run.leased.name,
            )
        return outcome

    def _record(self, run: TaskRun, outcome: Outcome, step: Callable[[], bool]) -> Outcome:
        """Record the outcome of a run, with retries while the database is unavailable.

        The work is done, and would be repeated if this failed. Every step is a compare-and-set, so sending it twice
        is harmless: the second time the row no longer belongs to this run.
        """
        for wait in _WAITS:
            try:
                return self._recorded(run, outcome, step)
            except Exception as error:  # noqa: BLE001 - retry after any error of the database
                kind = type(error).__name__
                _logger.warning("the outcome of the task %s cannot be recorded (%s)", run.leased.name, kind)
                # Not time.sleep: losing the lease ends the wait, as there is nothing left to record.
                run.lost.wait(wait)
        # The last attempt may raise: the lease expires, and another worker repeats the work.
        return self._recorded(run, outcome, step)

    def _recorded(self, run: TaskRun, outcome: Outcome, step: Callable[[], bool]) -> Outcome:
        if step():
            return outcome
        # The row may have ended by this run: the response to a commit can be lost together with the connection.
        ended = self._tasks.store.ended_by(run.leased)
        return self._lease_lost(run) if ended is None else _OUTCOMES[ended]


def _is_transient(task: Task[..., object], error: BaseException) -> bool:
    try:
        return task.retry_on(error)
    except Exception:
        _logger.exception("retry_on of the task %s failed; its error counts as permanent", task.name)
        return False


def _requested_delay(run: TaskRun, error: TaskRetryError) -> float | None:
    """Requested delay until the next run; None, as after a failure, if there is none or it is invalid."""
    try:
        return None if error.after is None else requested_delay(error.after)
    except ConfigurationError as wrong:
        _logger.error("the task %s asks to be run again, but %s", run.leased.name, wrong)  # noqa: TRY400 - the traceback would not help
        return None


def _error_text(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an exception whose text cannot be built is described by its class
        text = type(error).__name__
    # Driver exceptions quote values and URLs, and this text is shown to operators and stored for weeks.
    return storable(default_redactor().redact_text(text), most=_LONGEST_ERROR)
