"""Cost of the shared core, and the delay of a caller when Redis is broken, compared with redis-py alone.

    python benchmarks/core.py [redis-server]

Medians over interleaved rounds. The second part starts a redis-server on a free loopback port, and is skipped if
redis-server is not installed.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from figures import keep

from mks_hardening._core import hooks
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.codec import Codec
from mks_hardening._core.exception_text import describe_exception
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.resilience.breaker import CircuitBreaker
from mks_hardening.events import CacheRead
from mks_hardening.exceptions import BackendUnavailableError

RECORD = {"id": 17, "title": "鉄筋の継手", "tags": ["鉄筋", "品質"], "draft": False, "score": 4.5}


def per_call(contenders: dict[str, Callable[[], Any]], *, calls: int, rounds: int = 15) -> dict[str, float]:
    """Return the median time of one call in microseconds; all contenders run in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, figures: dict[str, float], *, goal: str = "") -> None:
    keep(title, figures)
    print(f"\n{title}{f'   (goal: {goal})' if goal else ''}")
    for name, value in figures.items():
        print(f"  {name:44} {value:10.2f} µs")


def nested(depth: int) -> None:
    if depth:
        nested(depth - 1)
    else:
        raise KeyError("missing")


def chain_of_two() -> BaseException:
    try:
        try:
            nested(3)
        except KeyError as error:
            raise RuntimeError("could not load") from error
    except RuntimeError as error:
        return error
    raise AssertionError


def small_parts() -> None:
    error = chain_of_two()
    breaker = CircuitBreaker("x")
    breaker.failed("refused")
    worker: BackgroundWorker[int] = BackgroundWorker(lambda _: None, name="bench", max_queue=10**9)
    text = "knowledge article 17 was opened by tanaka from the site office in 12 ms"
    redactor, codec = default_redactor(), Codec()
    encoded = codec.encode(RECORD)

    def unobserved() -> None:
        if hooks.observers:
            hooks.emit(CacheRead("mks", "hit"))

    def refused() -> None:
        try:
            breaker.check()
        except BackendUnavailableError:
            return

    show("an event nobody listens to", per_call({"ours": unobserved}, calls=100_000), goal="≤ 0.1 µs")
    show("an open breaker", per_call({"check, refused": refused}, calls=20_000), goal="≤ 5 µs")
    show(
        "a traceback: chain of two, eight frames",
        per_call(
            {
                "describe_exception": lambda: describe_exception(error),
                "traceback.format_exception": lambda: traceback.format_exception(error),
            },
            calls=200,
        ),
        goal="≤ 20 µs",
    )
    show(
        "harmless text through the redactor",
        per_call({"ours": lambda: redactor.redact_text(text)}, calls=20_000),
    )
    show("handing an item to the worker", per_call({"put": lambda: worker.put(1)}, calls=2_000))
    show(
        "a small record",
        per_call(
            {"encode": lambda: codec.encode(RECORD), "decode": lambda: codec.decode(encoded)}, calls=5_000
        ),
    )
    worker.close()


@contextlib.contextmanager
def redis_server(program: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield port, process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise SystemExit("redis-server did not start")


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    with contextlib.suppress(Exception):
        call()
    return time.perf_counter() - start


def through_redis(program: str) -> None:
    import redis

    with redis_server(program) as (port, process):
        ours = RedisClient(f"redis://127.0.0.1:{port}/0")
        bare = redis.Redis(port=port)
        ours.call("SET", "a", b"x" * 400)
        contenders = {
            "redis-py": lambda: bare.get("a"),
            "ours": lambda: ours.call("GET", "a", idempotent=True),
        }
        show("one GET of a living server", per_call(contenders, calls=400))

        process.send_signal(signal.SIGSTOP)
        print("\nserver stopped (SIGSTOP): seconds of each call, ours with a budget of 0.1 s")
        get = contenders["ours"]
        print("  ours               ", " ".join(f"{seconds_of(get):.6f}" for _ in range(8)))
        one = redis.Redis(port=port, socket_timeout=0.25)
        print("  redis-py, 0.25 s   ", f"{seconds_of(lambda: one.get('a')):.3f}  (default retries)")
        show(
            "while the breaker is open",
            per_call({"ours": lambda: seconds_of(get)}, calls=2_000),
            goal="≤ 1 ms",
        )
        process.send_signal(signal.SIGCONT)
        start = time.perf_counter()
        while not ours.ping():
            time.sleep(0.005)
        print(f"\nback after the server goes on: {time.perf_counter() - start:.2f} s   (goal: ≤ 2 s)")
        ours.close()


def main() -> None:
    small_parts()
    program = sys.argv[1] if len(sys.argv) > 1 else shutil.which("redis-server")
    if program is None:
        print("\nno redis-server: the second part is left out")
        return
    through_redis(program)


if __name__ == "__main__":
    main()
