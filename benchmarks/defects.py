"""Figures of the page on the defects of the first version: their cost now.

    python benchmarks/defects.py

Medians over interleaved rounds, in milliseconds of the thread's CPU time; ratios are within the same rounds. The
page compares them with measurements of the first version.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine, text

from mks_hardening.db import SlowQueryMonitor, normalize_sql
from mks_hardening.logging import JsonFormatter, SecretRedactor
from mks_hardening.notify import AlertPolicy, WebhookNotificationHandler
from mks_hardening.testing import RecordingTransport, call_wsgi
from mks_hardening.wsgi import RequestLoggingMiddleware


def nothing() -> None:
    """Do not wait."""


def medians(
    contenders: dict[str, Callable[[], Any]], *, rounds: int = 15, before_each: Callable[[], Any] = nothing
) -> dict[str, float]:
    """Return the CPU time of the caller's thread per call in milliseconds, so that a busy machine matters less."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            before_each()
            started = time.thread_time()
            call()
            times[name].append((time.thread_time() - started) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def record(**extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("app", logging.ERROR, "app.py", 1, "..", None, None)
    made.__dict__.update(extra)
    return made


def redaction() -> dict[str, float]:
    """Structures that once took seconds, by each way that they can arrive."""
    alike = {f"token=x{number}": "v" for number in range(8_000)}
    shared: Any = [0] * 10
    for _ in range(5):
        shared = [shared] * 10
    many = {f"field{number}": "value" for number in range(100_000)}
    redactor, formatter = SecretRedactor(), JsonFormatter()
    handler = WebhookNotificationHandler(
        "http://localhost/hook",
        transport=RecordingTransport(),
        policy=AlertPolicy(dedup_window=0, rate=1e6),
    )
    half = record(body=dict(list(alike.items())[:4_000]))
    body, fields = record(body=alike), record(**many)
    with handler:
        return medians(
            {
                "8,000 keys that become alike, redacted": lambda: redactor.redact(alike),
                "the same in a log line": lambda: formatter.format(body),
                "4,000 of them in an alert, on the caller's thread": lambda: handler.handle(half),
                "a million leaves of shared structures": lambda: redactor.redact(shared),
                "100,000 extra fields in a log line": lambda: formatter.format(fields),
            },
            before_each=lambda: handler.flush(5),
        )


def queries() -> dict[str, float]:
    """A request with a query string of 260 kB, compared with one without."""
    logging.getLogger("mks_hardening.request").addHandler(logging.NullHandler())

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    recorded = RequestLoggingMiddleware(application)
    query = "&".join(f"p{number}=1&token=hunter2" for number in range(11_900))
    return medians(
        {
            "a record without a query": lambda: call_wsgi(recorded),
            f"with one of {len(query) // 1000} kB": lambda: call_wsgi(recorded, query=query),
        }
    )


def statements() -> dict[str, float]:
    """A statement of more than 8,192 characters, with and without the monitor."""
    names = ", ".join(f":the_number_of_the_row_{number:03}" for number in range(500))
    statement = text(f"SELECT 1 WHERE 1 IN ({names})")
    values = {f"the_number_of_the_row_{number:03}": number for number in range(500)}
    engines = {name: create_engine("sqlite://") for name in ("bare", "monitored")}
    monitor = SlowQueryMonitor(engines["monitored"], threshold=60)
    monitor.install()
    connections = {name: engine.connect() for name, engine in engines.items()}
    found = medians(
        {
            f"500 names in a list, {name}": lambda name=name: (
                connections[name].execute(statement, values).all()
            )  # type: ignore[misc]
            for name in engines
        },
        rounds=200,
    )
    monitor.uninstall()
    for name, engine in engines.items():
        connections[name].close()
        engine.dispose()
    return found


def nesting() -> dict[str, float]:
    """Parsing ``(1,(1,(1,...``: four times the depth takes four times as long."""
    return medians(
        {
            f"{depth:,} lists in each other": lambda depth=depth: normalize_sql(  # type: ignore[misc]
                "select " + "(1," * depth + "1" + ")" * depth
            )
            for depth in (1_000, 4_000)
        },
        rounds=5,
    )


def main() -> None:
    for part in (redaction, queries, statements, nesting):
        figures = part()
        base = next(iter(figures.values()))
        print(f"\n{part.__doc__}")
        for name, value in figures.items():
            ratio = "" if part is redaction else f"{value / base:8.2f} x"
            print(f"  {name:52} {value:9.3f} ms{ratio}")


if __name__ == "__main__":
    main()
