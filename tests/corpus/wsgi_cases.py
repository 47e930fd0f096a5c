"""Runs tables of WSGI cases against any stack, ours or yours. Needs the standard library alone.

    python tests/corpus/wsgi_cases.py tests/corpus/wsgi/redirect.jsonl your_package.module:make_stack

``make_stack(app, config)`` wraps the WSGI application ``app`` as the mapping ``config`` asks and returns the
result; a configuration that must be refused is refused by raising ``ValueError``.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.validate import validator

MakeStack = Callable[[Callable[..., Any], dict[str, Any]], Callable[..., Any]]


def read(path: str | Path) -> list[dict[str, Any]]:
    """The cases of one table."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def faults(case: dict[str, Any], make_stack: MakeStack) -> list[str]:
    """What a stack does otherwise than the case expects; empty when it passes."""
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(dict(environ))
        answer = case.get("app", {})
        headers = answer.get("headers", [["Content-Type", "text/plain"]])
        start_response(answer.get("status", "200 OK"), [(name, value) for name, value in headers])
        return [b"the application"]

    expected = case["expect"]
    try:
        stack = make_stack(validator(application), case["config"])
    except ValueError as error:
        return [] if expected.get("refused") else [f"configuration refused: {error}"]
    if expected.get("refused"):
        return ["configuration accepted"]
    environ = _environ(case["request"])
    under_test = validator(stack) if _is_valid(environ) else stack
    answers = [_call(under_test, dict(environ)) for _ in range(2)]  # the second one may come from a memo
    if expected.get("fresh") and answers[0][1] == answers[1][1]:
        return ["both answers are alike"]
    return [fault for answer in answers for fault in _differences(expected, *answer, seen)]


def _call(app: Callable[..., Any], environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
    heads: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        heads.append((status, headers))
        return None

    iterable = app(environ, start_response)
    try:
        body = b"".join(iterable)
    finally:
        getattr(iterable, "close", lambda: None)()
    return int(heads[-1][0][:3]), heads[-1][1], body


def _environ(request: dict[str, Any]) -> dict[str, Any]:
    path, _, query = request.get("target", "/").partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.get("method", "GET"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "server.internal",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.get("scheme", "http"),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.get("peer") is not None:
        environ["REMOTE_ADDR"] = request["peer"]
    for name, value in request.get("headers", []):
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = (
            f"{environ[key]}, {value}" if key in environ else value
        )  # as servers join repeated lines
    environ.update(request.get("environ", {}))
    return environ


def _is_valid(environ: dict[str, Any]) -> bool:
    """Whether the validator would take the environ; some cases show what broken servers hand on."""
    return all(environ[key][:1] in ("", "/") for key in ("SCRIPT_NAME", "PATH_INFO"))


def _differences(
    expected: dict[str, Any],
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    seen: list[dict[str, Any]],
) -> Iterator[str]:
    fields = {name.lower(): value for name, value in headers}
    if expected.get("passes"):
        if not seen or status != 200:
            yield f"answered {status} instead of asking the application"
            return
        yield from _environ_differences(expected, seen[-1])
    elif "status" in expected:
        if seen:
            yield "the application was asked"
        if status != expected["status"]:
            yield f"status {status}, not {expected['status']}"
        if fields.get("location") != expected.get("location"):
            yield f"location {fields.get('location')!r}, not {expected.get('location')!r}"
        if status >= 400 and not body:
            yield "no body"
    yield from _field_differences(expected, headers, fields)


def _environ_differences(expected: dict[str, Any], environ: dict[str, Any]) -> Iterator[str]:
    origin = environ.get("mks_hardening.origin")
    read_as = {
        "scheme": environ["wsgi.url_scheme"],
        "host": environ.get("HTTP_HOST"),
        "client_ip": origin.client_ip if origin else environ.get("REMOTE_ADDR"),
    }
    for name, value in read_as.items():
        if name in expected and value != expected[name]:
            yield f"{name} {value!r}, not {expected[name]!r}"
    for key in expected.get("absent", ()):
        if key in environ:
            yield f"{key} reached the application"


def _field_differences(
    expected: dict[str, Any], headers: list[tuple[str, str]], fields: dict[str, str]
) -> Iterator[str]:
    for name, pattern in expected.get("fields", {}).items():
        if not re.fullmatch(pattern, fields.get(name.lower(), "")):
            yield f"{name}: {fields.get(name.lower())!r} does not match {pattern!r}"
        if sum(field.lower() == name.lower() for field, _ in headers) != 1:
            yield f"{name} does not occur exactly once"
    for name in expected.get("absent_fields", ()):
        if name.lower() in fields:
            yield f"{name} was sent"


def run(cases: Iterable[dict[str, Any]], make_stack: MakeStack) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each case with its faults; an exception that leaves the stack is one."""
    for case in cases:
        try:
            found = faults(case, make_stack)
        except Exception as error:  # noqa: BLE001 - whatever a stack raises is a fault of the stack
            found = [f"{type(error).__name__}: {error}"]
        yield case, found


def main(table: str, target: str) -> int:
    module, _, name = target.partition(":")
    results = list(run(read(table), getattr(importlib.import_module(module), name)))
    for case, found in results:
        if found:
            sys.stdout.write(f"{case['id']}: {case['why']}: {'; '.join(found)}\n")
    failed = sum(bool(found) for _, found in results)
    sys.stdout.write(f"{len(results) - failed} of {len(results)} cases pass\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
