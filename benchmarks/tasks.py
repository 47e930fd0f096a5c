"""Cost of a background task: ours on Celery and embedded, beside plain Celery, Huey, Dramatiq and Procrastinate.

    python benchmarks/tasks.py [--tasks 2000] [--plot claims.svg] [throughput] [start] [enqueue] [bulk] [wake]
        [claims] [backlog]

Starts Redis and PostgreSQL, both with production durability (AOF every second, fsync). Tasks are queued when the
workers start; the time from the first finished task to the last is measured. Rounds are interleaved and the best of
each counts, so that other load on the machine matters less; compare ratios, not absolute figures.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

import psycopg
from figures import keep
from sqlalchemy import Engine, insert, text

from mks_hardening.contrib.celery_app import TaskNotifier, celery_app
from mks_hardening.db import hardened_engine
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker
from mks_hardening.tasks.store._wake_ups import WakeUps
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer
from testbed.redis_server import RedisServer

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
CELERY = [sys.executable, "-m", "celery", "-A", "tasks_apps", "worker", "-l", "WARNING", "-c"]
EMBEDDED = [sys.executable, str(HERE / "tasks_apps.py")]
Commands = list[list[str]]


class Cost(NamedTuple):
    """Cost of one task in ms: wall clock time, and CPU time including that of the servers."""

    wall: float
    cpu: float


class Bench:
    """The servers and the worker processes."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis", options={"appendonly": "yes"})
        self.postgres = PostgresServer(fsync="on", full_page_writes="on")
        for server in (self.redis, self.postgres):
            server.start()
            stack.callback(server.close)
        self._databases = 0

    def database(self, kind: str) -> str:
        """Return the URL of a new database."""
        self._databases += 1
        if kind == "postgresql":
            return self.postgres.url(self.postgres.create_database())
        return f"sqlite:///{self.folder / f'{self._databases}.db'}"

    def environment(self, engine: str, database: str = "") -> dict[str, str]:
        """Return the variables that ``tasks_apps`` reads."""
        server = self.redis.url.rpartition("/")[0]
        return {
            **os.environ,
            "BENCH_ENGINE": engine,
            "BENCH_REDIS": server,
            "BENCH_DATABASE": database,
            "PYTHONPATH": str(HERE),
        }

    @contextmanager
    def running(self, commands: Commands, environment: dict[str, str]) -> Iterator[list[Any]]:
        """Run processes that are killed at the end."""
        processes = [
            subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdout=(self.folder / "out.log").open("ab"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for command in commands
        ]
        try:
            yield processes
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def cost(self, engine: str, commands: Commands, number: int, *, database: str = "") -> Cost:
        """Measure from the first of these tasks to the last."""
        self.redis.command("FLUSHALL")
        environment = self.environment(engine, database)
        if database:
            fill(database, number)
        else:
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    f"from tasks_apps import enqueue\nfor _ in range({number}): enqueue()",
                ],
                env=environment,
                check=True,
            )
        servers = {self.redis.process.pid, self.postgres.process.pid}
        with self.running(commands, environment) as processes, self.redis.client() as client:
            busy = servers | {process.pid for process in processes}

            def done() -> int:
                return int(client.execute_command("GET", "done") or 0)

            client.execute_command("SELECT", 9)
            first = wait_until(done, timeout=60, what="the first task")
            start, worked = time.perf_counter(), processor_seconds(busy)
            wait_until(lambda: done() >= number, timeout=300, what="the last task")
            share = (number - first) / 1000
            return Cost((time.perf_counter() - start) / share, (processor_seconds(busy) - worked) / share)


def processor_seconds(leaders: set[int]) -> float:
    """Return the CPU time of these processes' sessions so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, rest = stat.parent.name, stat.read_text().rpartition(")")[2].split()
            if int(rest[3]) in leaders or int(pid) in leaders or int(rest[1]) in leaders:
                ticks += int(rest[11]) + int(rest[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def fill(database: str, number: int) -> None:
    tasks = ours(database)
    task = tasks.task("work")(idle)
    with tasks.begin() as connection:
        for _ in range(number):
            task.enqueue(connection)
    tasks.store.engine.dispose()


def ours(database: str) -> Tasks:
    tasks = Tasks(hardened_engine(database))
    tasks.create_table()
    return tasks


def idle(_run: TaskRun) -> None:
    """Do nothing."""


# --- throughput


def throughput(bench: Bench, number: int, rounds: int) -> None:
    contenders: dict[str, tuple[str, Commands, str]] = {
        "plain Celery, results kept": ("celery-results", [[*CELERY, "2"]], ""),
        "plain Celery, results ignored": ("celery", [[*CELERY, "2"]], ""),
        "ours on Celery, SQLite": ("ours", [[*CELERY, "2"]], "sqlite"),
        "ours on Celery, PostgreSQL": ("ours", [[*CELERY, "2"]], "postgresql"),
        "  two workers": ("ours", [[*CELERY, "2", "-n", name] for name in ("a", "b")], "postgresql"),
        "embedded, SQLite, 2 threads": ("ours-embedded", [[*EMBEDDED, "2"]], "sqlite"),
        "  two processes": ("ours-embedded", [[*EMBEDDED, "1"]] * 2, "sqlite"),
        "embedded, PostgreSQL, 2 threads": ("ours-embedded", [[*EMBEDDED, "2"]], "postgresql"),
        "  2 processes": ("ours-embedded", [[*EMBEDDED, "2"]] * 2, "postgresql"),
        "Huey": ("huey", [[str(BIN / "huey_consumer"), "tasks_apps.huey", "-w", "2", "-k", "process"]], ""),
        "Dramatiq": ("dramatiq", [[str(BIN / "dramatiq"), "tasks_apps", "-p", "2", "-t", "1"]], ""),
    }
    best = dict.fromkeys(contenders, Cost(float("inf"), float("inf")))
    for _ in range(rounds):
        for name, (engine, commands, kind) in contenders.items():
            progress(f"throughput, {name.strip()}")
            database = bench.database(kind) if kind else ""
            cost = bench.cost(engine, commands, number, database=database)
            best[name] = Cost(min(best[name].wall, cost.wall), min(best[name].cpu, cost.cpu))
    print(f"\n{number} small tasks, two slots each unless said; best of {rounds}")
    print(f"{'':34}{'tasks/s':>9}{'ms':>7}{'x Celery':>9}{'CPU ms':>9}{'x Celery':>9}")
    plain = best["plain Celery, results kept"]
    keep("task, CPU", {name.strip(): cpu for name, (_, cpu) in best.items()})
    for name, (wall, cpu) in best.items():
        print(
            f"{name:34}{1000 / wall:9.0f}{wall:7.2f}{wall / plain.wall:9.2f}{cpu:9.2f}{cpu / plain.cpu:9.2f}"
        )


# --- start


def start(bench: Bench, rounds: int) -> None:
    best: dict[str, float] = {}
    for _ in range(rounds):
        for engine in ("celery", "ours"):
            environment = bench.environment(engine, bench.database("sqlite"))
            log = bench.folder / "out.log"
            log.unlink(missing_ok=True)
            begin = time.perf_counter()
            with bench.running([[*CELERY, "2", "-l", "INFO"]], environment):
                while not log.exists() or " ready." not in log.read_text():
                    time.sleep(0.005)
                taken = time.perf_counter() - begin
            best[engine] = min(best.get(engine, taken), taken)
    ratio = best["ours"] / best["celery"]
    print(
        f"\na worker is ready after {best['celery']:.2f} s plain, {best['ours']:.2f} s ours ({ratio:.2f} x)"
    )


# --- enqueue


def enqueue(bench: Bench) -> None:
    tasks = ours(bench.database("postgresql"))
    task = tasks.task("work")(idle)
    app = celery_app(tasks, broker_url=bench.redis.url)
    notifier = TaskNotifier(tasks, app)
    notifier.start()

    def accept() -> None:
        with tasks.begin() as connection:
            task.enqueue(connection)

    print("\nlongest of 200 enqueues, each with its commit, while a notifier works in the same process")
    faults: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "Redis is well": (lambda: None, lambda: None),
        "silent": (bench.redis.pause, bench.redis.resume),
        "empty": (lambda: bench.redis.command("FLUSHALL"), lambda: None),
        "down": (bench.redis.kill, bench.redis.start),
    }
    for name, (breaks, mends) in faults.items():
        breaks()
        print(f"  {name:16}{max(timed(accept) for _ in range(200)) * 1000:8.1f} ms")
        if name == "down":
            print(f"  {'plain Celery':16}{plain_enqueue(bench) * 1000:8.0f} ms, and then an error")
        mends()
    notifier.close()
    tasks.store.engine.dispose()


def plain_enqueue(bench: Bench) -> float:
    code = "from tasks_apps import app\nimport time\napp.conf.update(result_backend=app.conf.broker_url, "
    code += "task_ignore_result=False)\nbegin = time.perf_counter()\ntry:\n    app.tasks['work'].delay()\n"
    code += "except Exception: pass\nprint(time.perf_counter() - begin)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=bench.environment("celery"),
        capture_output=True,
        check=True,
        text=True,
    )
    return float(done.stdout)


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


# --- bulk

BULK = 5_000


def bulk(bench: Bench, rounds: int) -> None:
    import procrastinate

    tasks = ours(bench.database("postgresql"))
    task = tasks.task("work")(lambda _run, _number: None)
    embedded = ours(bench.database("sqlite"))
    on_sqlite = embedded.task("work")(lambda _run, _number: None)
    jobs, job = procrastinated(procrastinate, bench)
    keys = iter(range(10**9))

    def one_by_one() -> None:
        with tasks.begin() as connection:
            for number in range(BULK):
                task.enqueue(connection, number)

    def batch() -> None:
        with tasks.begin() as connection:
            tasks.enqueue_many(connection, [task.call(number) for number in range(BULK)])

    def keyed() -> None:
        with tasks.begin() as connection:
            calls = [task.using(key=str(next(keys))).call(number) for number in range(BULK)]
            tasks.enqueue_many(connection, calls)

    def batch_sqlite() -> None:
        with embedded.begin() as connection:
            embedded.enqueue_many(connection, [on_sqlite.call(number) for number in range(BULK)])

    contenders: dict[str, Callable[[], object]] = {
        "one by one": one_by_one,
        "enqueue_many": batch,
        "  each with a key": keyed,
        "  SQLite": batch_sqlite,
        "Procrastinate, one by one": lambda: [job.defer(number=number) for number in range(BULK // 10)],
        "Procrastinate, batch_defer": lambda: job.batch_defer(
            *({"number": number} for number in range(BULK))
        ),
    }
    best = dict.fromkeys(contenders, float("inf"))
    with jobs.open():
        for round_number in range(rounds + 1):
            for name, work in contenders.items():
                progress(f"bulk, {name.strip()}, round {round_number}")
                tidy(tasks.store.engine)
                number = BULK // 10 if name == "Procrastinate, one by one" else BULK
                cost = cpu_of(bench, work) / number
                if round_number:  # the first one warms up
                    best[name] = min(best[name], cost)
    print(f"\nms of CPU to enqueue one task, {BULK} in one transaction, client and server; best of {rounds}")
    peer = best["Procrastinate, batch_defer"]
    keep("enqueue, CPU", {name.strip(): cost * 1000 for name, cost in best.items()})
    for name, cost in best.items():
        print(f"{name:34}{cost * 1000:9.3f}{cost / peer:9.2f} x Procrastinate's batch")
    tasks.store.engine.dispose()
    embedded.store.engine.dispose()


def procrastinated(procrastinate: Any, bench: Bench, database: str = "") -> tuple[Any, Any]:
    """Return an application of Procrastinate on a new database, and its task."""
    # It warns that the application is defined in the main module, which does not matter here.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    url = (database or bench.database("postgresql")).replace("+psycopg", "")
    jobs = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url))
    with jobs.open():
        jobs.schema_manager.apply_schema()
    jobs = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url))
    return jobs, jobs.task(name="late")(lambda **_: None)


def cpu_of(bench: Bench, work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process and of PostgreSQL."""
    server, own = processor_seconds({bench.postgres.process.pid}), time.process_time()
    work()
    return time.process_time() - own + processor_seconds({bench.postgres.process.pid}) - server


# --- wake

WAKES = 40


def wake(bench: Bench) -> None:
    import procrastinate

    print(
        f"\nms from the commit of a task to its start by a waiting worker in another process, {WAKES} tasks"
    )
    print(f"{'':34}{'p50':>9}{'p90':>9}")
    database = bench.database("postgresql")
    jobs, job = procrastinated(procrastinate, bench, database)
    with jobs.open():
        progress("wake, Procrastinate")
        worker = ("procrastinate", database.replace("+psycopg", ""))
        show_wakes("Procrastinate", wakes(bench, worker, lambda: job.defer(sent=time.time())))
    for name, engine, kind in (
        ("PostgreSQL, NOTIFY", "ours-embedded", "postgresql"),
        ("PostgreSQL, polling", "ours-polling", "postgresql"),
        ("SQLite, polling", "ours-embedded", "sqlite"),
    ):
        progress(f"wake, {name}")
        database = bench.database(kind)
        tasks = Tasks(hardened_engine(database), notify=engine != "ours-polling")
        tasks.create_table()
        late = tasks.task("late")(lambda _run, _sent: None)

        def send(tasks: Tasks = tasks, late: Any = late) -> None:
            with tasks.begin() as connection:
                late.enqueue(connection, time.time())

        show_wakes(name, wakes(bench, (engine, database), send))
        tasks.store.engine.dispose()
    wakes_here(bench)


def wakes_here(bench: Bench) -> None:
    """Measure a worker on SQLite in the process that enqueues."""
    tasks, found = ours(bench.database("sqlite")), list[float]()
    late = tasks.task("late")(lambda _run, sent: found.append(time.time() - sent))
    with TaskWorker(tasks, schedule=False):
        for number in range(WAKES):
            time.sleep(0.1 + number % 7 * 0.05)
            with tasks.begin() as connection:
                late.enqueue(connection, time.time())
        wait_until(lambda: len(found) == WAKES, timeout=60, what="every task")
    show_wakes("SQLite, within the process", found)
    tasks.store.engine.dispose()


def wakes(bench: Bench, worker: tuple[str, str], send: Callable[[], object]) -> list[float]:
    bench.redis.command("FLUSHALL")
    with bench.running([[*EMBEDDED, "2"]], bench.environment(*worker)), bench.redis.client() as client:
        client.execute_command("SELECT", 9)

        def received() -> int:
            return int(client.execute_command("LLEN", "late"))

        send()  # until the worker is ready
        wait_until(received, timeout=120, what="the first task")
        for number in range(WAKES):
            time.sleep(0.1 + number % 7 * 0.05)
            send()
        wait_until(lambda: received() == WAKES + 1, timeout=60, what="every task")
        return [float(taken) for taken in client.execute_command("LRANGE", "late", 1, -1)]


def show_wakes(name: str, found: list[float]) -> None:
    ranked = sorted(found)
    middle, high = ranked[len(ranked) // 2], ranked[len(ranked) * 9 // 10]
    keep("wake-up", {name.strip(): middle * 1000})
    print(f"{name:34}{middle * 1000:9.1f}{high * 1000:9.1f}")


def progress(text: str) -> None:
    """Show on stderr what is being measured."""
    print(f"  ... {text}", file=sys.stderr, flush=True)


# --- claims

SIZES = (0, 1_000, 10_000, 100_000)


def claims(bench: Bench, plot: Path | None) -> None:
    print(
        "\nms to claim and finish one task, with so many other rows (half ended, a quarter due, a quarter later)"
    )
    print(f"{'':14}" + "".join(f"{size:>10}" for size in SIZES) + "   looked for by the notifier, last")
    lines: dict[str, list[float]] = {}
    floors = list[float]()
    for kind in ("sqlite", "postgresql"):
        tasks = ours(bench.database(kind))
        task = tasks.task("work", priority="high")(idle)
        worker = TaskWorker(tasks, schedule=False)
        lines[kind] = []
        for before, size in zip((0, *SIZES), SIZES, strict=False):
            progress(f"claims, {kind}, {size} other rows")
            add_rows(tasks.store.engine, tasks, size - before)
            lines[kind].append(claim_cost(tasks, task, worker) * 1000)
            if kind == "postgresql":
                floors.append(claim_by_hand(tasks) * 1000)
        due = due_cost(tasks)
        print(f"{kind:14}" + "".join(f"{cost:10.2f}" for cost in lines[kind]) + f"{due * 1000:10.2f}")
        worker.stop()
        tasks.store.engine.dispose()
    print(f"{'by hand':14}" + "".join(f"{cost:10.2f}" for cost in floors) + "   psycopg: lease, work, UPDATE")
    if plot is not None:
        plot.write_text(svg(lines), encoding="utf-8")


def due_cost(tasks: Tasks) -> float:
    """Measure a query for due tasks to announce, when all have been announced."""
    rings = WakeUps(tasks.store)
    look = partial(rings.due, queues=["default"], again_after=60)
    while look(most=10_000):
        pass
    tidy(tasks.store.engine)
    return min(timed(partial(look, most=200)) for _ in range(20))


def claim_cost(tasks: Tasks, task: Any, worker: TaskWorker) -> float:
    costs = []
    for _ in range(60):
        with tasks.begin() as connection:
            task.enqueue(connection)
        costs.append(timed(lambda: worker.run_pending(most=1)))
    return sorted(costs)[len(costs) // 2]


LEASE_BY_HAND = """
UPDATE mks_task SET state = 'running', due_at = extract(epoch FROM now()) + 30 WHERE id = (
    SELECT id FROM mks_task WHERE queue = 'default' AND priority = 0 AND due_at <= extract(epoch FROM now())
    ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id, arguments
"""
END_BY_HAND = """
UPDATE mks_task SET state = 'done', due_at = NULL, finished_at = extract(epoch FROM now()) WHERE id = %s
"""


def claim_by_hand(tasks: Tasks) -> float:
    """Measure the least that a queue in a table can do: two statements, the second of which waits for the disk."""
    task, costs = tasks.known["work"], list[float]()
    with psycopg.connect(
        tasks.store.engine.url.set(drivername="postgresql").render_as_string(), autocommit=True
    ) as own:

        def claim() -> None:
            own.execute("SET synchronous_commit = off")
            ((task_id, _),) = own.execute(LEASE_BY_HAND)
            own.execute("SET synchronous_commit = on")
            own.execute(END_BY_HAND, [task_id])

        for _ in range(60):
            with tasks.begin() as connection:
                task.enqueue(connection)
            costs.append(timed(claim))
    return sorted(costs)[len(costs) // 2]


def add_rows(engine: Engine, tasks: Tasks, number: int) -> None:
    now = time.time()
    rows = []
    for place in range(number):
        ended, later = place % 2 == 0, place % 4 == 1
        rows.append(
            {
                "id": os.urandom(16).hex(),
                "name": "other",
                "arguments": "[[],{}]",
                "context": "{}",
                "state": "done" if ended else "waiting",
                "queue": "default",
                "priority": 1,
                "due_at": None if ended else now + (86_400 if later else -1),
                "created_at": now,
                "finished_at": now if ended else None,
            }
        )
    with engine.begin() as connection:
        if rows:
            connection.execute(insert(tasks.store.table), rows)
    tidy(engine)


def tidy(engine: Engine) -> None:
    """Do what autovacuum does within a minute."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"))
        if engine.dialect.name == "postgresql":
            # Otherwise the disk is still busy with the rows that were added, and each commit waits for it.
            connection.execute(text("CHECKPOINT"))


BACKLOGS = (200, 10_000, 50_000)


def backlog(bench: Bench) -> None:
    print(
        "\nms of CPU of PostgreSQL for one claim, with so many tasks due, half in each of two queues (analysed)"
    )
    print(f"{'':14}" + "".join(f"{size:>10}" for size in BACKLOGS))
    tasks = ours(bench.database("postgresql"))
    costs: dict[str, list[float]] = {"one queue": [], "two queues": []}
    for before, size in zip((0, *BACKLOGS), BACKLOGS, strict=False):
        add_due(tasks.store.engine, tasks, size - before)
        for name, queues in (("one queue", ["default"]), ("two queues", ["default", "mail"])):
            costs[name].append(processor_cost(bench, partial(claim_and_return, tasks, queues)))
    for name, line in costs.items():
        print(f"{name:14}" + "".join(f"{cost * 1000:10.2f}" for cost in line))
    tasks.store.engine.dispose()


def claim_and_return(tasks: Tasks, queues: list[str]) -> None:
    (taken,) = tasks.store.lease(owner="a" * 32, lease=60, queues=queues, most=1)
    tasks.store.put_back(taken, delay=-3600, error="")


def processor_cost(bench: Bench, work: Callable[[], object], rounds: int = 300) -> float:
    """Return PostgreSQL's CPU seconds per call; it counts in hundredths of a second, so many calls are made."""
    for _ in range(20):
        work()
    before = processor_seconds({bench.postgres.process.pid})
    for _ in range(rounds):
        work()
    return (processor_seconds({bench.postgres.process.pid}) - before) / rounds


def add_due(engine: Engine, tasks: Tasks, number: int) -> None:
    now = time.time()
    rows = [
        {
            "id": os.urandom(16).hex(),
            "name": "other",
            "arguments": "[[],{}]",
            "context": "{}",
            "state": "waiting",
            "queue": ("default", "mail")[place % 2],
            "priority": 1,
            "due_at": now - 1,
            "created_at": now,
        }
        for place in range(number)
    ]
    with engine.begin() as connection:
        connection.execute(insert(tasks.store.table), rows)
    tidy(engine)


def svg(lines: dict[str, list[float]]) -> str:
    """Plot the cost over the number of rows, on a logarithmic scale."""
    top = max(max(costs) for costs in lines.values()) * 1.2
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 460 260" font-family="sans-serif" font-size="12">'
    ]
    for place, size in enumerate(SIZES):
        parts.append(f'<text x="{60 + place * 120}" y="245" text-anchor="middle">{size}</text>')
    for tick in range(5):
        height = 220 - tick * 50
        parts.append(f'<path d="M50 {height}H440" stroke="#ddd"/>')
        parts.append(f'<text x="44" y="{height + 4}" text-anchor="end">{top * tick / 4:.1f}</text>')
    for (name, costs), colour in zip(lines.items(), ("#1f6feb", "#bf3989"), strict=True):
        points = " ".join(
            f"{60 + place * 120},{220 - cost / top * 200:.1f}" for place, cost in enumerate(costs)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="430" y="{210 - costs[-1] / top * 200:.1f}" fill="{colour}" text-anchor="end">{name}</text>'
        )
    parts.append(
        '<text x="60" y="16">ms to claim and finish one task, over the number of other rows</text></svg>\n'
    )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts",
        nargs="*",
        default=[],
        help="throughput, start, enqueue, bulk, wake, claims, backlog; all by default",
    )
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mks-bench-"))), stack)
        parts: dict[str, Callable[[], None]] = {
            "throughput": lambda: throughput(bench, given.tasks, given.rounds),
            "start": lambda: start(bench, max(3, given.rounds)),
            "enqueue": lambda: enqueue(bench),
            "bulk": lambda: bulk(bench, given.rounds),
            "wake": lambda: wake(bench),
            "claims": lambda: claims(bench, given.plot),
            "backlog": lambda: backlog(bench),
        }
        for name in given.parts or parts:
            parts[name]()


if __name__ == "__main__":
    main()
