"""Cost of one operation as the work grows from 1 to 1,000 times: a plot of each is on the comparison page.

    python benchmarks/growth.py [kind ...]

Minimum CPU time of one operation, in microseconds, over some rounds. Flat means that the cost does not depend on
how much there is.
"""

from __future__ import annotations

import itertools
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import keep

from mks_hardening.cache import MemoryCache
from mks_hardening.db import SearchIndex, fingerprint, hardened_engine
from mks_hardening.logging import JsonFormatter
from mks_hardening.protocols import SessionRecord
from mks_hardening.security import Limit, RateLimiter
from mks_hardening.tasks import Tasks, TaskWorker
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

TIMES = (1, 10, 100, 1_000)
ROUNDS, CALLS = 7, 200


def least(call: Callable[[], object], *, calls: int = CALLS, rounds: int = ROUNDS) -> float:
    """Return the minimum CPU time of one call in microseconds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time_ns()
        for _ in range(calls):
            call()
        best = min(best, (time.thread_time_ns() - start) / calls / 1000)
    return best


def records(times: int) -> float:
    """Format a record, among 10 to 10,000 different messages."""
    formatter, logger = JsonFormatter(), logging.getLogger("growth")
    made = [
        logger.makeRecord("growth", 20, "x.py", 1, f"user {n} opened page {n * 7}", (), None)
        for n in range(10 * times)
    ]
    turns = itertools.cycle(made)
    for _ in made:
        formatter.format(next(turns))
    return least(lambda: formatter.format(next(turns)))


def keys(times: int) -> float:
    """Get an entry, among 100 to 100,000."""
    cache = MemoryCache(max_entries=200_000)
    names = [f"key {n}" for n in range(100 * times)]
    for name in names:
        cache.set(name, name)
    turns = itertools.cycle(random.Random(7).sample(names, len(names)))
    return least(lambda: cache.get(next(turns)))


def limits(times: int) -> float:
    """Count a hit, among 100 to 100,000 clients."""
    three = [Limit("minute", 10**6, 60.0), Limit("hour", 10**6, 3600.0), Limit("day", 10**6, 86400.0)]
    limiter = RateLimiter({"g": three})
    names = [f"client {n}" for n in range(100 * times)]
    for name in names:
        limiter.hit("g", name)
    turns = itertools.cycle(random.Random(7).sample(names, len(names)))
    return least(lambda: limiter.hit("g", next(turns)))


def sessions(times: int) -> float:
    """Check a session, among 10 to 10,000."""
    from mks_hardening._edge.session.session_ids import key_of

    store, now = MemorySessionStore(), time.time()
    for n in range(10 * times):
        key = key_of(f"{n:043d}")
        store.create(SessionRecord(key, f"user {n}", now, now, now + 1800), now=now)

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    stack: Any = SessionTimeoutMiddleware(app, store=store)
    numbers = itertools.cycle(range(10 * times))

    def check() -> None:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "wsgi.url_scheme": "https",
            "HTTP_COOKIE": f"__Host-mks-session={next(numbers):043d}",
        }
        stack(environ, lambda *_: None)

    return least(check)


def statements(times: int) -> float:
    """Fingerprint a statement, among 10 to 10,000 different ones."""
    turns = itertools.cycle(
        [f"SELECT a{n}, b FROM t WHERE id = {n} ORDER BY a{n} LIMIT 20" for n in range(10 * times)]
    )
    return least(lambda: fingerprint(next(turns)))


def articles(times: int) -> float:
    """Find the first 50 articles with a rare word, among 20 to 20,000."""
    words = ("鉄筋", "継手", "検査", "技術", "基準", "圧接", "試験", "品質", "土木", "設計")
    chance = random.Random(7)
    with tempfile.TemporaryDirectory() as folder:
        engine = hardened_engine(f"sqlite:///{Path(folder) / 'articles'}")
        index = SearchIndex("articles_index")
        with engine.begin() as connection:
            index.create(connection)
            for number in range(20 * times):
                body = "の".join(chance.choices(words, k=20)) + ("溶射" if number % 1_000 == 7 else "")
                index.index(connection, number, title=words[number % 10], body=body)
            found = least(lambda: index.search(connection, "溶射"), calls=20)
        engine.dispose()
    return found


def tasks(times: int) -> float:
    """Enqueue, lease and finish a task on SQLite, among 10 to 10,000 others that are due later."""
    with tempfile.TemporaryDirectory() as folder:
        queue = Tasks(hardened_engine(f"sqlite:///{Path(folder) / 'tasks'}"))
        queue.create_table()
        task: Any = queue.task("work")(lambda _run: None)
        with queue.begin() as connection:
            queue.enqueue_many(connection, [task.using(delay=3600).call() for _ in range(10 * times)])
        worker = TaskWorker(queue, schedule=False)

        def one() -> None:
            with queue.begin() as connection:
                task.enqueue(connection)
            worker.run_pending(most=1)

        found = least(one, calls=10)
        worker.stop()
        queue.store.engine.dispose()
    return found


KINDS: dict[str, Callable[[int], float]] = {
    function.__name__: function for function in (records, keys, limits, sessions, statements, articles, tasks)
}


def main() -> None:
    print(f"{'µs of CPU for one operation':72}" + "".join(f"{f'{times:,} x':>10}" for times in TIMES))
    wanted = sys.argv[1:] or KINDS
    for name in wanted:
        kind = KINDS[name]
        costs = {f"{times} x": kind(times) for times in TIMES}
        keep(f"growth of {name}", costs)
        print(
            f"{(kind.__doc__ or '').strip():72}" + "".join(f"{cost:10.2f}" for cost in costs.values()),
            flush=True,
        )


if __name__ == "__main__":
    main()
