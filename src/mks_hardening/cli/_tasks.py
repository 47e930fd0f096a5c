"""``mks-hardening tasks``: inspect and control background tasks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_hardening.tasks import Tasks, TaskStatus

__all__ = ["add_commands"]

_ID: Final = "id of a task, as `tasks list` prints it"
_STATES: Final = ("waiting", "running", "done", "dead", "cancelled")
_STEPS: Final = {
    "retry": (
        "run a dead or cancelled task again",
        "queued again",
        "no dead or cancelled task with this id",
    ),
    "discard": ("remove a finished task", "removed", "no finished task with this id"),
    "cancel": ("cancel a waiting task, or ask a running one to stop", "asked to stop", "nothing to cancel"),
}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.add_argument("--table", default="mks_task", help="name of the table (mks_task)")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listed = commands.add_parser("list", help="print the newest tasks")
    listed.add_argument("--state", choices=_STATES, default=None, help="only those in this state")
    listed.add_argument("--name", default=None, help="only those with this name")
    listed.add_argument("--most", type=int, default=50, help="print at most this many (50)")
    listed.set_defaults(run=_list)
    show = commands.add_parser("show", help="print one task")
    show.add_argument("id", help=_ID)
    show.set_defaults(run=_show)
    for name, (meaning, _, _) in _STEPS.items():
        step = commands.add_parser(name, help=meaning)
        step.add_argument("id", nargs="+", help=_ID)
        step.set_defaults(run=_step, step=name)


@contextmanager
def _tasks(parsed: argparse.Namespace) -> Generator[Tasks]:
    """Open the task table in the database of ``DATABASE_URL``."""
    from mks_hardening.cli._database import opened_database
    from mks_hardening.settings import HardeningSettings
    from mks_hardening.tasks import Tasks

    settings = HardeningSettings.from_env()
    with opened_database(settings, command="tasks", table=parsed.table) as engine:
        yield Tasks(engine, table=parsed.table)


def _list(parsed: argparse.Namespace) -> int:
    with _tasks(parsed) as tasks:
        for status, error in tasks.listed(state=parsed.state, name=parsed.name, most=parsed.most):
            print(
                f"{status.id}  {status.state:<9}  {_time(status.created_at)}  {status.name}  {error}".rstrip()
            )
        counts = tasks.counts()
    print("  ".join(f"{state}: {number}" for state, number in sorted(counts.items())) or "no tasks")
    return 0


def _show(parsed: argparse.Namespace) -> int:
    with _tasks(parsed) as tasks:
        status = tasks.status(parsed.id)
    if status is None:
        print("no task has this id")
        return 1
    for name, value in _facts(status).items():
        print(f"{name:<12} {value}")
    return 0


def _step(parsed: argparse.Namespace) -> int:
    _, worked, failed = _STEPS[parsed.step]
    with _tasks(parsed) as tasks:
        steps: dict[str, Callable[[str], bool]] = {
            "retry": tasks.replay,
            "discard": tasks.discard,
            "cancel": tasks.cancel,
        }
        found = [steps[parsed.step](task_id) for task_id in parsed.id]
    for task_id, changed in zip(parsed.id, found, strict=True):
        print(f"{task_id}  {worked if changed else failed}")
    return 0 if all(found) else 1


def _facts(status: TaskStatus) -> dict[str, object]:
    ends = {"started": status.started_at, "finished": status.finished_at, "due or leased": status.due_at}
    return {
        "id": status.id,
        "name": status.name,
        "state": status.state,
        "progress": f"{status.progress:.0%} {status.stage}".rstrip(),
        "result": status.result,
        "created": _time(status.created_at),
        **{name: _time(moment) for name, moment in ends.items() if moment is not None},
        "deliveries": status.deliveries,
        "attempts": status.attempts,
        "user": status.user_id or "",
    }


def _time(moment: float) -> str:
    """Return the time in the local time zone, with its offset."""
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
