"""Delay of the event loop while PostgreSQL is stopped (SIGSTOP) under 60 tasks that use it.

    python benchmarks/db_loop_lag.py

Each task requests a connection and sends a statement, repeatedly, whatever the outcome. The lag is the delay of a
1 ms sleep in the same loop; the maximum counts. The number in brackets is the longest time that the loop's thread
computed in between; the rest of the lag is waiting, for a server or for a busy machine. The lag while the server
responds is the cost of the machine and the tasks themselves. Python's garbage collection is kept out
(``gc.freeze``). SQLAlchemy's own ``create_async_engine`` has no deadline, and waits until the server continues.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from mks_hardening.db import hardened_async_engine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from testbed.postgres_server import PostgresServer

TASKS = 60
STEP = 0.001
SECONDS = 8


class Lag:
    """Measures the delay of short sleeps in the loop."""

    def __init__(self) -> None:
        self.longest = self.work = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            began, computed = time.perf_counter(), time.thread_time()
            await asyncio.sleep(STEP)
            self.longest = max(self.longest, time.perf_counter() - began - STEP)
            self.work = max(self.work, time.thread_time() - computed)

    def take(self) -> str:
        """Return the maximum lag in ms since the last call."""
        said = f"{self.longest * 1000:.1f} ({self.work * 1000:.1f})"
        self.longest = self.work = 0.0
        return said


async def use(engine: AsyncEngine, failed: list[str]) -> None:
    while True:
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(0.05)"))
        except Exception as error:  # noqa: BLE001 - whatever comes of it
            failed.append(type(error).__name__)
            await asyncio.sleep(0.05)


async def measure(server: PostgresServer, engine: AsyncEngine) -> tuple[str, str, str, int]:
    lag, failed = Lag(), list[str]()
    tasks = [asyncio.ensure_future(use(engine, failed)) for _ in range(TASKS)]
    await asyncio.sleep(1)  # all connections are open
    gc.collect()
    gc.freeze()
    watching = asyncio.ensure_future(lag.watch())
    await asyncio.sleep(1)
    before = lag.take()
    await asyncio.to_thread(server.freeze)
    lag.take()
    await asyncio.sleep(SECONDS)
    stopped, failures = lag.take(), len(failed)
    await asyncio.to_thread(server.resume)
    await asyncio.sleep(1)
    after = lag.take()
    for task in (watching, *tasks):
        task.cancel()
    await asyncio.gather(watching, *tasks, return_exceptions=True)
    with suppress(Exception):
        await engine.dispose()
    return before, stopped, after, failures


def main() -> None:
    server = PostgresServer(max_connections="100")
    server.start()
    try:
        print(f"Longest lag of the event loop in ms, {TASKS} tasks, server stopped for {SECONDS} s")
        print(f"  {'':32} {'answering':>14} {'stopped':>14} {'resumed':>14} {'errors':>7}")
        for driver in ("psycopg", "asyncpg"):
            url = f"postgresql+{driver}://{server.user}@{server.host}:{server.port}/postgres"
            makers: dict[str, Callable[[], AsyncEngine]] = {
                "hardened_async_engine": lambda url=url: hardened_async_engine(url, threads=TASKS),  # type: ignore[misc]
                "create_async_engine": lambda url=url: create_async_engine(
                    url, pool_size=TASKS, pool_pre_ping=True
                ),  # type: ignore[misc]
            }
            for name, make in makers.items():
                before, stopped, after, failures = asyncio.run(measure(server, make()))
                print(
                    f"  {driver:8}{name:24} {before:>14} {stopped:>14} {after:>14} {failures:7}", flush=True
                )
    finally:
        server.resume()
        server.stop()


if __name__ == "__main__":
    main()
