"""Formatter, whole logging call, redaction, tracebacks and rotation, compared with peers in interleaved rounds.

    python benchmarks/bench_logging.py [formatter] [rotation] [text]

Peers that are not installed are skipped. Figures are medians over interleaved rounds; ratios are to
python-json-logger with orjson (formatter, whole call), to the standard library (traceback) or to
concurrent-log-handler (rotation).
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import logging
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from figures import keep

from mks_hardening._core.exception_text import describe_exception
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening._core.redaction.secret_names import STEMS
from mks_hardening._core.redaction.secret_patterns import SECRET_PATTERNS
from mks_hardening.logging import JsonFormatter, ProcessSafeRotatingFileHandler, ReopeningFileHandler, bound

ROUNDS = 11
EXTRAS = {"method": "GET", "path": "/api/items/12", "status": 200, "bytes": 5120, "duration_ms": 12.5}


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def interleaved(title: str, contenders: dict[str, Callable[[], object]], *, base: str, number: int) -> None:
    for call in contenders.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            start = time.perf_counter_ns()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter_ns() - start) / number)
    medians = {name: statistics.median(values) for name, values in times.items()}
    keep(title, medians)
    print(f"\n{title}")
    for name, value in sorted(medians.items(), key=lambda item: item[1]):
        print(f"  {name:44} {value:10.0f} ns   {value / medians[base]:6.2f}")


def exception_info() -> tuple[type[BaseException], BaseException, object]:
    """Return a chain of two exceptions with eight frames."""

    def descend(depth: int) -> None:
        if depth:
            descend(depth - 1)
        else:
            raise KeyError("inner")

    def wrapped(depth: int) -> None:
        if depth:
            wrapped(depth - 1)
            return
        try:
            descend(2)
        except KeyError as error:
            raise RuntimeError("outer") from error

    try:
        wrapped(2)
    except RuntimeError:
        return sys.exc_info()  # type: ignore[return-value]
    raise AssertionError


def records() -> dict[str, tuple[str, tuple[object, ...], dict[str, object], object]]:
    return {
        "simple": ("user logged in", (), {}, None),
        "simple with an argument": ("user %s logged in", ("tanaka",), {}, None),
        "five extras": ("request finished", (), EXTRAS, None),
        "exception": ("it failed", (), {}, exception_info()),
        "a long message": ("the quick brown fox jumps over the lazy dog " * 20, (), {}, None),
        "Japanese": ("利用者がログインしました。担当部署は土木設計部です。", (), {}, None),
        "a URL and a request id": (
            "calling https://example.com/items?page=2",
            (),
            {"request_ref": "6f1d2c3a-9f60-4d8f-8a83-0c2cbb6b8a11"},
            None,
        ),
        "a password in the message": ("login with password=hunter2 refused", (), {}, None),
        "a nested extra": ("x", (), {"user": {"id": 5, "roles": ["a", "b"]}}, None),
    }


def formatters() -> dict[str, logging.Formatter]:
    found: dict[str, logging.Formatter] = {"ours (redacting)": JsonFormatter()}
    fmt = "%(asctime)s %(levelname)s %(name)s %(message)s"
    from pythonjsonlogger.json import JsonFormatter as StandardJson
    from pythonjsonlogger.orjson import OrjsonFormatter

    found["python-json-logger + orjson"] = OrjsonFormatter(
        "%(levelname)s %(name)s %(message)s", timestamp=True
    )
    found["python-json-logger + json"] = StandardJson("%(levelname)s %(name)s %(message)s", timestamp=True)
    if installed("msgspec"):
        from pythonjsonlogger.msgspec import MsgspecFormatter

        found["python-json-logger + msgspec"] = MsgspecFormatter(
            "%(levelname)s %(name)s %(message)s", timestamp=True
        )
    if installed("ecs_logging"):
        import ecs_logging

        found["ecs-logging"] = ecs_logging.StdlibFormatter()
    if installed("structlog"):
        import structlog

        found["structlog ProcessorFormatter"] = structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.format_exc_info,
            ],
            processor=structlog.processors.JSONRenderer(serializer=lambda value, **_: json.dumps(value)),
        )
    found["logging.Formatter (text)"] = logging.Formatter(fmt)
    return found


def bench_formatter() -> None:
    logger = logging.getLogger("app.api.knowledge")
    for title, (message, args, extra, info) in records().items():
        contenders: dict[str, Callable[[], object]] = {}
        for name, formatter in formatters().items():
            record = logger.makeRecord(logger.name, 20, __file__, 1, message, args, info, extra=extra)

            def call(formatter: logging.Formatter = formatter, record: logging.LogRecord = record) -> None:
                record.exc_text = None
                formatter.format(record)

            contenders[name] = call
        interleaved(
            f"Formatter.format, {title}",
            contenders,
            base="python-json-logger + orjson",
            number=300 if info else 2000,
        )


def bench_new_messages() -> None:
    """Worst case for caches: no message is repeated soon enough to be found."""
    logger = logging.getLogger("app.api.knowledge")
    made = [
        logger.makeRecord(logger.name, 20, __file__, 1, f"user {number} opened page {number * 7}", (), None)
        for number in range(10_000)
    ]
    contenders: dict[str, Callable[[], object]] = {}
    for name, formatter in formatters().items():
        endless = itertools.cycle(made)
        contenders[name] = lambda formatter=formatter, endless=endless: formatter.format(next(endless))
    interleaved(
        "Formatter.format, a new message each time",
        contenders,
        base="python-json-logger + orjson",
        number=2000,
    )


def bench_whole_call() -> None:
    class Sink(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            self.format(record)

    for title, (message, args, extra, info) in list(records().items())[:4]:
        contenders: dict[str, Callable[[], object]] = {}
        for name, formatter in formatters().items():
            logger = logging.Logger(f"bench.{name}", logging.INFO)  # noqa: LOG001 - outside the tree
            handler = Sink()
            handler.setFormatter(formatter)
            logger.addHandler(handler)

            contenders[name] = partial(logger.info, message, *args, extra=extra, exc_info=info)
        interleaved(
            f"Logger.info, {title}",
            contenders,
            base="python-json-logger + orjson",
            number=300 if info else 2000,
        )
    formatter, logger = JsonFormatter(), logging.getLogger("bench")
    record = logger.makeRecord("bench", 20, __file__, 1, "x", (), None)

    def in_context() -> None:
        formatter.format(record)

    with bound(request_id="6f1d2c3a-9f60-4d8f-8a83-0c2cbb6b8a11", user_id="u1"):
        interleaved("JsonFormatter with a bound context", {"bound": in_context}, base="bound", number=2000)


def bench_text() -> None:
    redactor = default_redactor()
    _, error, _ = exception_info()
    interleaved(
        "chain of two, eight frames",
        {
            "describe_exception": lambda: describe_exception(error),
            "describe_exception, redacting": lambda: describe_exception(
                error, redact_text=redactor.redact_text
            ),
            "traceback.format_exception": lambda: traceback.format_exception(error),
        },
        base="traceback.format_exception",
        number=300,
    )
    print("\nredact_text, µs of processor time (1,000 characters: at most 500; any length: some thousands)")
    print(f"  for comparison, a loop of 20,000 additions: {_reference():.0f} µs")
    samples = {
        "harmless words": "the quick brown fox ",
        "key=value": "user=tanaka page=2 ",
        "secrets": "password=hunter2 ",
        "short secrets": "pw:a ",
        "stems without separator": "passpass",
        "dashes": "-----BEGIN ",
        "quotes": "password='",
        "brackets": "token=[",
        "digits": "4111 ",
        "digits and blanks": "1 ",
        "codes": "otp=1234 ",
        "eyJ": "eyJ",
        "urls": "https://user:",
        "urls with passwords": "url://a:b@c ",
        "every form": "".join(form.example + " " for form in SECRET_PATTERNS),
        "Japanese": "利用者がログインしました。",
        "wide letters": "\uff30\uff21\uff33\uff33",
        "a token and Japanese": "secret-----にeyJ",
        "a sentence without an end": "%(Authorizationは",
        "open calls": 'token=a("((((((((((',
        "lone surrogates": "%22\udc80",
        "a path that is no password": "PWD=/home",
        "the same with brackets": "PWD=/home{}",
        "a number as a DSN": "dsn=2.",
        "digits with dashes": "12-34",
        "a narrow name and a number": ": 4111 ｼｰｸﾚｯﾄ",
        "a key and a number": "ｷｰ1 ",
        "a query": "a=1&",
        "a query with escapes": "%61=%41&",
    }
    sizes = (500, 1_000, 10_000, 100_000)
    print(f"  {'':28} " + "  ".join(f"{size:>9,}" for size in sizes))
    for name, sample in samples.items():
        redact = redactor.redact_query if "query" in name else redactor.redact_text
        row = []
        for size in sizes:
            text = (sample * (size // len(sample) + 1))[:size]
            row.append(_least(lambda text=text, redact=redact: redact(text), 15 if size <= 1_000 else 5))
        print(f"  {name:28} " + "  ".join(f"{value:9.1f}" for value in row))
    bench_search(redactor.redact_text)


def bench_search(redact: Callable[[str], str], *, seconds: float = 10, seed: int = 7) -> None:
    """Search for the most expensive text of 1,000 characters: repeated fragments of the patterns."""
    chance = random.Random(seed)
    fragments = [
        *(literal for form in SECRET_PATTERNS for literal in form.literals),
        *(form.example for form in SECRET_PATTERNS),
    ]
    fragments += [
        *STEMS,
        *"=:;,.'\"[](){}<>-_ \n\t%&?/@|\\",
        ": ",
        "=>",
        "%3D",
        " is ",
        " to ",
        " for bob: ",
        "--",
    ]
    fragments += ["1 ", "4111 ", "2.", "12-34", "/home", "{}", "=[", "=('", "は", "です", "hunter2"]
    found: list[tuple[float, str]] = []
    end = time.process_time() + seconds
    while time.process_time() < end:
        sample = "".join(chance.choices(fragments, k=chance.randint(1, 4)))
        text = (sample * (1_000 // len(sample) + 1))[:1_000]
        found.append((_least(lambda text=text: redact(text), 3), sample))
    # The dearest are measured again: on a shared machine some of three are disturbed.
    again = [sample for _, sample in sorted(found, reverse=True)[:40]]
    texts = {sample: (sample * (1_000 // len(sample) + 1))[:1_000] for sample in again}
    worst = sorted(
        ((_least(lambda text=text: redact(text), 15), name) for name, text in texts.items()), reverse=True
    )
    keep("redact_text, 1,000 characters", {"most expensive": worst[0][0]})
    print(f"\nredact_text, the dearest of {len(found):,} random texts of 1,000 characters, µs (seed {seed})")
    for value, sample in worst[:5]:
        print(f"  {sample!r:60} {value:9.1f}")


def _least(call: Callable[[], object], times: int) -> float:
    """Return the minimum CPU time in µs over several runs: other load on the machine only adds time."""
    least = float("inf")
    for _ in range(times):
        start = time.process_time_ns()
        call()
        least = min(least, time.process_time_ns() - start)
    return least / 1000


def _reference() -> float:
    def loop() -> int:
        total = 0
        for number in range(20_000):
            total += number
        return total

    return _least(loop, 15)


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def _writer(kind: str, path: str, lines: int, barrier: object) -> None:
    handler: logging.Handler
    if kind == "ours, rotating":
        handler = ProcessSafeRotatingFileHandler(path, max_bytes=4 << 20, backups=100, compress=False)
    elif kind == "ours, rotating and compressing":
        handler = ProcessSafeRotatingFileHandler(path, max_bytes=4 << 20, backups=100, compress=True)
    elif kind == "ours, reopening":
        handler = ReopeningFileHandler(path)
    else:
        from concurrent_log_handler import ConcurrentRotatingFileHandler

        handler = ConcurrentRotatingFileHandler(path, maxBytes=4 << 20, backupCount=100)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.Logger("writer", logging.INFO)  # noqa: LOG001 - outside the tree
    logger.addHandler(handler)
    barrier.wait()  # type: ignore[attr-defined]
    for number in range(lines):
        logger.info("line %d of this process, with some more text in it to be of usual length", number)
    barrier.wait()  # type: ignore[attr-defined]
    handler.close()


def bench_bodies() -> None:
    """Measure the maximum cost of 100 kB of JSON from elsewhere."""
    redactor, formatter = default_redactor(), JsonFormatter()
    shared: object = ["token=x"] * 10
    for _ in range(5):
        shared = [shared] * 10
    bodies: dict[str, object] = {
        "8,000 keys that become alike": {f"token=x{number}": "v" for number in range(8_000)},
        "8,000 secret keys": {f"k{number}_password": "v" for number in range(8_000)},
        "1,200 records": [
            {"id": n, "url": f"https://x/{n}", "code": "a", "tags": ["b"]} for n in range(1_200)
        ],
        "a million leaves that are shared": shared,
        "one text": "auth_token=hunter2 " * 5_263,
    }
    print("\n100 kB of JSON, ms")
    for name, body in bodies.items():
        record = logging.LogRecord("app", 20, __file__, 1, "x", (), None)
        record.__dict__["body"] = body
        direct = min(_timed(lambda body=body: redactor.redact(body)) for _ in range(5))
        line = min(_timed(lambda record=record: formatter.format(record)) for _ in range(5))
        print(f"  {name:40} redact {direct / 1e6:6.2f}   format {line / 1e6:6.2f}")
    notes = ValueError("x")
    for _ in range(25):
        notes.add_note("password=hunter2 " * 240)
    several: dict[str, dict[str, object]] = {
        "25 notes": {"exc_info": (ValueError, notes, None)},
        "100 fields": {f"field_{number}": "password=hunter2 " * 60 for number in range(100)},
        "an exception of surrogates": {"exc_info": (ValueError, ValueError("\udc80" * 100_000), None)},
    }
    for name, attributes in several.items():
        record = logging.LogRecord("app", 20, __file__, 1, "x", (), None)
        record.__dict__.update(attributes)
        line = min(_timed(lambda record=record: formatter.format(record)) for _ in range(5))
        print(f"  {name:40}                 format {line / 1e6:6.2f}")


def bench_rotation(processes: int = 4, lines: int = 15_000) -> None:
    kinds = ["ours, rotating", "ours, rotating and compressing", "ours, reopening"]
    if installed("concurrent_log_handler"):
        kinds.append("concurrent-log-handler")
    context = multiprocessing.get_context("fork")
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(3):
        for kind in kinds:
            with tempfile.TemporaryDirectory() as folder:
                barrier = context.Barrier(processes + 1)
                workers = [
                    context.Process(target=_writer, args=(kind, f"{folder}/app.log", lines, barrier))
                    for _ in range(processes)
                ]
                for worker in workers:
                    worker.start()
                barrier.wait()
                start = time.perf_counter()
                barrier.wait()
                rates[kind].append(processes * lines / (time.perf_counter() - start))
                for worker in workers:
                    worker.join()
                kept = sum(path.stat().st_size for path in Path(folder).iterdir())
                assert kept > 0
    base = statistics.median(rates.get("concurrent-log-handler", [1.0]))
    print(f"\n{processes} processes, {lines} lines each, one file of 4 MiB parts, thousand lines a second")
    for kind, values in rates.items():
        print(
            f"  {kind:44} {statistics.median(values) / 1000:10.0f}      {statistics.median(values) / base:6.2f}"
        )


def main() -> None:
    chosen = sys.argv[1:] or ["formatter", "rotation", "text"]
    logging.raiseExceptions = False
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, line_buffering=True)
    if "formatter" in chosen:
        bench_formatter()
        bench_new_messages()
        bench_whole_call()
    if "text" in chosen:
        bench_text()
        bench_bodies()
    if "rotation" in chosen:
        bench_rotation()


if __name__ == "__main__":
    main()
