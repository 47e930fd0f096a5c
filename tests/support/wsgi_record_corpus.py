"""Runs the cases of ``tests/corpus/wsgi/record.jsonl`` over a request recorder.

A case has ``name``, ``request``, ``app`` (see ``wsgi_scripted``), ``read``, ``options`` and ``expect``: ``record``
(attributes), ``level``, ``answer`` (status, body, header), ``closed`` (calls of the application's ``close()``),
``raised`` (what reached the server), ``environ`` (what the application saw), ``records`` (1 unless said).
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mks_hardening.testing import FrozenClock
from wsgi_scripted import ScriptedApp, environ_of, serve

CASES = Path(__file__).parents[1] / "corpus" / "wsgi" / "record.jsonl"
Recorder = Callable[[Any, logging.Logger, FrozenClock, dict[str, Any]], Any]


def load_cases() -> list[dict[str, Any]]:
    """Return all cases, in the order of the file."""
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines() if line.strip()]


class _Collect(logging.Handler):
    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.raises = raises

    def handle(self, record: logging.LogRecord) -> bool:
        self.records.append(record)
        if self.raises:
            raise OSError("the log is gone")
        return True


def faults_of(case: dict[str, Any], recorder: Recorder, *, record: bool = True) -> list[str]:
    """Return the errors of the recorder in one case.

    Without ``record`` only the answer and the application's treatment count, not what was recorded.
    """
    logger = logging.Logger("corpus", level=1)  # noqa: LOG001 - of its own, without handlers of others
    handler = _Collect(raises=case.get("logger") == "raises")
    logger.addHandler(handler)
    clock = FrozenClock()
    app = ScriptedApp(case.get("app", {}), clock)
    wrapped = recorder(app, logger, clock, case.get("options", {}))
    environ = environ_of(case.get("request", {})) | {"wsgi.errors": io.StringIO()}
    read = case.get("read", "all")
    if isinstance(read, int):
        environ["test.leaves_after"] = read
    served = serve(wrapped, environ, read=read)
    expect = case["expect"]
    faults: list[str] = []

    def check(what: str, actual: Any, expected: Any) -> None:
        if not _matches(actual, expected):
            faults.append(f"{what}: {actual!r} instead of {expected!r}")

    if record:
        check("records", len(handler.records), expect.get("records", 1))
    if record and handler.records:
        written = handler.records[0]
        for name, value in expect.get("record", {}).items():
            check(name, getattr(written, name, None), value)
        if "level" in expect:
            check("level", written.levelname, expect["level"])
        if "exc_info" in expect:
            check("exc_info", written.exc_info is not None, expect["exc_info"])
    check("raised", served.raised, expect.get("raised", ""))
    if "closed" in expect:
        check("closed", app.closed, expect["closed"])
    for name, value in expect.get("environ", {}).items() if record else ():
        check(f"environ {name}", app.environ.get(name), value)
    answer = expect.get("answer", {})
    if "status" in answer:
        check("status line", served.status[:3], str(answer["status"]))
    if "body" in answer:
        check("body", served.body.decode(), answer["body"])
    for name, value in answer.get("headers", {}).items() if record else ():
        found = [text for field, text in served.headers if field.lower() == name.lower()]
        check(f"header {name}", found[0] if len(found) == 1 else found or None, value)
    if "length" in answer:
        check("len()", len(served.result) if hasattr(served.result, "__len__") else None, answer["length"])
    if answer.get("server_file"):
        check("file wrapper kept", type(served.result).__name__, "FileWrapper")
    return faults


def _matches(actual: Any, expected: Any) -> bool:
    """Return whether the values are equal, or match an expectation of the form ``/pattern/``."""
    if (
        isinstance(expected, str)
        and len(expected) > 2
        and expected[0] == expected[-1] == "/"
        and "[" in expected
    ):
        return isinstance(actual, str) and re.fullmatch(expected[1:-1], actual) is not None
    return bool(actual == expected)
