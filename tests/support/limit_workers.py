"""Several processes, each with a rate limiter, which take turns or hit simultaneously."""

import subprocess
import sys
from collections.abc import Callable

from testbed.polling import wait_until

__all__ = ["LIMIT", "SLACK", "WORKERS", "LimitWorkers", "play"]

LIMIT, WORKERS, SLACK = 100, 4, 10
PROGRAM = """
import sys
import threading
from mks_hardening import events
from mks_hardening.security import RateLimiter
sources = []
events.add_observer(lambda event: sources.append(getattr(event, "source", "")))
groups = {"g": "100 per hour; 1000 per day"}
storage, strategy, budget = sys.argv[1:]
limiter = RateLimiter(groups, storage=storage, strategy=strategy, store_budget=float(budget))
print("ready", flush=True)
for line in sys.stdin:
    if line == "?\\n":
        print(sum(thread.name == "mks-limits" for thread in threading.enumerate()), flush=True)
        continue
    sources.clear()
    passed = limiter.hit("g", line.strip())
    source = "local" if "local" in sources else "shared"
    print(int(bool(passed)), source, limiter._storage.members.workers, flush=True)
"""


class LimitWorkers:
    """Four processes; ``passed`` counts the hits of the key ``k`` that were allowed."""

    def __init__(self, url: str, strategy: str, budget: float = 0.04) -> None:
        self.children = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, url, strategy, str(budget)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(WORKERS)
        ]
        for child in self.children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        self.passed = 0
        self.own_keys = [f"own {number}" for number in range(WORKERS)]

    def hit(self, number: int, key: str = "k") -> tuple[str, str]:
        child = self.children[number % WORKERS]
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(key + "\n")
        child.stdin.flush()
        passed, source, known = child.stdout.readline().split()
        self.passed += int(passed) * (key == "k")
        return source, known

    def hits(self, tries: int) -> None:
        for number in range(tries):
            self.hit(number)

    def rush(self, tries: int) -> None:
        """Return how many hits are allowed if all workers hit simultaneously."""
        for child in self.children:
            assert child.stdin is not None
            child.stdin.write("k\n" * (tries // WORKERS))
            child.stdin.flush()
        for child in self.children:
            assert child.stdout is not None
            for _ in range(tries // WORKERS):
                self.passed += int(child.stdout.readline().split()[0])

    def all_see_the_server(self) -> bool:
        """Wait until all workers see the server and each other, by hits on separate keys."""
        answers = {self.hit(number, self.own_keys[number]) for number in range(WORKERS)}
        return answers == {("shared", str(WORKERS))}

    def all_are_quiet(self) -> bool:
        """Return whether no worker has a thread that sends hits, which would notice a short outage."""
        for child in self.children:
            assert child.stdin is not None
            child.stdin.write("?\n")
            child.stdin.flush()
        return [child.stdout and child.stdout.readline() for child in self.children] == ["0\n"] * WORKERS

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.communicate(timeout=10)


def play(one: LimitWorkers, *, away: Callable[[], None], back: Callable[[], None] | None) -> int:
    """Return how many hits of one key are allowed in total."""
    wait_until(one.all_see_the_server, timeout=20)
    one.hits(LIMIT // 2)
    assert one.passed == LIMIT // 2
    away()
    one.hits(2 * LIMIT)
    if back is not None:
        back()
        wait_until(one.all_see_the_server, timeout=20)
        one.hits(2 * LIMIT)
    return one.passed
