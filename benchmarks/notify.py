"""Cost of an alert for the logging thread, and handling of a burst, compared with peers in interleaved rounds.

    python benchmarks/notify.py [emit] [burst]

The floor is ``logger.error`` with a handler that only puts the record into a ``SimpleQueue``. Peers that are not
installed are skipped; those that send on the caller's thread are measured with few calls.
"""

from __future__ import annotations

import importlib.util
import logging
import logging.handlers
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from figures import keep

from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify import AlertPolicy, SlackNotificationHandler
from mks_hardening.protocols import OutgoingAlert, Transport

ROUNDS = 6
CALLS = 900
URL = "http://127.0.0.1/"
WORDS = ["".join(chr(ord("a") + int(digit)) for digit in str(number)) for number in range(ROUNDS * CALLS)]

Call = Callable[[logging.Logger, int], None]


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class ToQueue(logging.Handler):
    """The floor."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into the queue."""
        self.queue.put(record)


class Accepting:
    """A destination that accepts everything."""

    def send(self, _message: OutgoingAlert, /) -> None:
        """Accept the message."""

    def close(self) -> None:
        """Nothing to close."""


class Dead(Accepting):
    """An unavailable destination."""

    def send(self, _message: OutgoingAlert, /) -> None:
        """Fail."""
        raise DeliveryError("refused", temporary=True)


def logger_with(handler: logging.Handler) -> logging.Logger:
    log = logging.Logger("bench")  # noqa: LOG001 - not in the registry, so that nothing else listens
    log.addHandler(handler)
    return log


def slack(transport: Transport, **policy: float) -> SlackNotificationHandler:
    return SlackNotificationHandler(URL, transport=transport, policy=AlertPolicy(**policy))  # type: ignore[arg-type]


def different(log: logging.Logger, number: int) -> None:
    log.error("order %s failed in %d ms", WORDS[number], number)


def repeated(log: logging.Logger, number: int) -> None:
    log.error("order failed in %d ms", number)


def with_exception(log: logging.Logger, number: int) -> None:
    try:
        descend(6)
    except ZeroDivisionError:
        start = time.perf_counter_ns()
        log.exception("order %s failed", WORDS[number])
        spent.append(time.perf_counter_ns() - start)


def descend(depth: int) -> float:
    return descend(depth - 1) if depth else 1 / 0


spent: list[int] = []


def timed(call: Call, log: logging.Logger, offset: int) -> list[int]:
    spent.clear()
    if call is with_exception:
        for number in range(CALLS):
            call(log, offset + number)
        return list(spent)
    times = []
    for number in range(CALLS):
        start = time.perf_counter_ns()
        call(log, offset + number)
        times.append(time.perf_counter_ns() - start)
    return times


def emit() -> None:
    floor, accepting = ToQueue(), slack(Accepting(), rate=1e9)
    full = slack(Dead(), backoff=60, max_queue=1000)
    for number in range(2000):
        different(logger_with(full), number)
    stdlib: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    contenders: list[tuple[str, logging.Handler, Call]] = [
        ("floor: SimpleQueue", floor, different),
        ("alert, first of its kind", accepting, different),
        ("alert, repetition", accepting, repeated),
        ("alert, server dead and queue full", full, different),
        ("logging.handlers.QueueHandler", logging.handlers.QueueHandler(stdlib), different),
        ("floor: SimpleQueue, with exception", floor, with_exception),
        ("alert, first, with exception", accepting, with_exception),
        ("QueueHandler, with exception", logging.handlers.QueueHandler(stdlib), with_exception),
    ]
    if installed("sentry_sdk"):
        contenders += sentry_contenders()
    loggers = {name: logger_with(handler) for name, handler, _ in contenders}
    results: dict[str, list[int]] = {name: [] for name in loggers}
    for turn in range(ROUNDS):
        for name, _, call in contenders:
            results[name] += timed(call, loggers[name], turn * CALLS)
            accepting.flush(5)
        while not (floor.queue.empty() and stdlib.empty()):
            (stdlib if floor.queue.empty() else floor.queue).get()
    print(
        f"emit on the caller's thread, {ROUNDS * CALLS} calls each; ratio of medians to the floor of its kind"
    )
    keep("alert", {name: statistics.median(times) for name, times in results.items()})
    for name, times in results.items():
        base = statistics.median(
            results["floor: SimpleQueue" + (", with exception" if "exception" in name else "")]
        )
        median, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"  {name:38} median {median / 1000:8.1f} us   p99 {p99 / 1000:8.1f} us   {median / base:7.2f}")
    print(f"  queue full: {full.stats()}")
    full.close(0)
    accepting.close(0)


def sentry_contenders() -> list[tuple[str, logging.Handler, Call]]:
    import sentry_sdk
    from sentry_sdk.integrations.logging import EventHandler

    class Nowhere(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope: object) -> None:
            """Accept the envelope."""

    sentry_sdk.init(dsn="http://key@127.0.0.1/1", transport=Nowhere, default_integrations=False)
    return [
        ("sentry-sdk EventHandler", EventHandler(), different),
        ("sentry-sdk, with exception", EventHandler(), with_exception),
    ]


@contextmanager
def sink() -> Iterator[tuple[str, list[int]]]:
    """A local server that accepts everything."""
    sizes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sizes.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Do not log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", sizes
    finally:
        server.shutdown()
        server.server_close()


class SlackSdk(logging.Handler):
    """A typical handler written around slack_sdk."""

    def __init__(self, url: str) -> None:
        from slack_sdk.webhook import WebhookClient

        super().__init__()
        self.client = WebhookClient(url)

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record."""
        self.client.send(text=self.format(record))


def burst() -> None:
    print("a burst of equal errors against a local server")
    contenders: list[tuple[str, Callable[[str], logging.Handler], int]] = [
        ("SlackNotificationHandler", SlackNotificationHandler, 10_000)
    ]
    if installed("slack_sdk"):
        contenders.append(("handler around slack_sdk", SlackSdk, 500))
    for name, build, number in contenders:
        with sink() as (url, sizes):
            handler = build(url)
            log = logger_with(handler)
            start = time.perf_counter()
            for n in range(number):
                repeated(log, n)
            caller = time.perf_counter() - start
            handler.close()
            whole = time.perf_counter() - start
            per_call = caller / number * 1e6
            print(
                f"  {name:38} {number:6} errors, {len(sizes):5} messages, {per_call:8.1f} us a call, {whole:5.2f} s"
            )
            if isinstance(handler, SlackNotificationHandler):
                print(f"  {handler.stats()}")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["emit", "burst"]
    for part in (emit, burst):
        if part.__name__ in wanted:
            part()
