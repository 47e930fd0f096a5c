import datetime as dt
import importlib
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from celery.beat import Scheduler

import mks_hardening.tasks
from mks_hardening.tasks import Tasks, TaskWorker
from mks_hardening.testing import FrozenClock

MONDAY = dt.datetime(2026, 11, 2, tzinfo=ZoneInfo("Asia/Tokyo"))
Path("reports.db").unlink(missing_ok=True)


class Before:
    """Celery with its broker in memory and its scheduler."""

    def __init__(self):
        self.module = importlib.import_module("before")
        self.app = self.module.app
        self.scheduler()  # the first start of beat

    def transaction(self, work, *, commits=True):  # noqa: ARG002 - as below
        work(None)  # the broker knows nothing of transactions

    def run(self):
        with self.app.connection_for_read() as connection:
            queue = connection.SimpleQueue("celery")
            while queue.qsize():
                message = queue.get()
                self.app.tasks[message.headers["task"]].apply(args=message.payload[0])
                message.ack()

    def dead(self):
        return "gone"

    def next_runs(self, name, number):
        rule, found, now = self.app.conf.beat_schedule[name]["schedule"], [], MONDAY
        for _ in range(number):
            rule.nowfun = lambda now=now: now
            now += rule.remaining_estimate(now)
            found.append(now)
        rule.nowfun = self.app.now
        return found

    def scheduler(self):
        return Scheduler(self.app)

    def pass_slot(self, schedulers):
        for scheduler in schedulers:
            entry = scheduler.schedule["nightly"]
            entry.last_run_at -= dt.timedelta(days=2)
            scheduler.tick()


class After:
    """Tasks in SQLite, at a time that is moved."""

    def __init__(self):
        self.clock = FrozenClock(MONDAY.timestamp())
        mks_hardening.tasks.Tasks = partial(Tasks, clock=self.clock)
        self.module = importlib.import_module("after")
        self.scheduler()

    def transaction(self, work, *, commits=True):
        with self.module.engine.connect() as connection, connection.begin() as transaction:
            work(connection)
            if not commits:
                transaction.rollback()

    def run(self):
        worker = TaskWorker(self.module.tasks, schedule=False)
        while worker.run_pending():
            self.clock.advance(3600)

    def dead(self):
        counts = self.module.tasks.counts()
        return f"{counts['dead']} dead, to be replayed"

    def next_runs(self, name, number):
        rule, found, now = getattr(self.module, name).schedule, [], MONDAY.timestamp()
        for _ in range(number):
            now = rule.next_slot(now)
            found.append(dt.datetime.fromtimestamp(now, MONDAY.tzinfo))
        return found

    def scheduler(self):
        made = TaskWorker(self.module.tasks)
        made.enqueue_scheduled()
        return made

    def pass_slot(self, schedulers):
        self.clock.advance(2 * 86400)
        for scheduler in schedulers:
            scheduler.enqueue_scheduled()


def facts(side):
    request, upload = side.module.request_report, side.module.request_upload

    def runs(function):
        side.module.sent.clear()
        function()
        side.run()
        return len(side.module.sent)

    def failing(times):
        return runs(lambda: side.transaction(partial(upload, failures=times)))

    def nightly_runs(schedulers):
        made = [side.scheduler() for _ in range(schedulers)]
        side.run()
        runs(lambda: side.pass_slot(made))
        return side.module.sent.count("nightly")

    def times(name, number):
        return " ".join(f"{when:%a-%H:%M}" for when in side.next_runs(name, number))

    def refused(call):
        try:
            side.transaction(call)
        except TypeError:
            return "TypeError"

    yield "a committed request", runs(lambda: side.transaction(partial(request, month="2026-10")))
    yield "a task that fails twice is run", failing(2)
    yield "a missing argument", refused(request)
    yield "times of the nightly task", times("nightly", 3)
    yield "times of the weekly task", times("weekly", 2)
    yield "a slot, one scheduler", nightly_runs(1)
    rolled_back = partial(side.transaction, partial(request, month="2026-11"), commits=False)
    yield "a request that is rolled back", runs(rolled_back)
    once = partial(side.transaction, partial(request, month="2026-12"))
    yield "a report requested twice", runs(lambda: (once(), once()))
    yield "a slot, two schedulers", nightly_runs(2)
    failing(9)
    yield "a task that always fails", side.dead()


for (what, old), (_, new) in zip(facts(Before()), facts(After()), strict=True):
    print(f"{what}: {old} | {new}")
