"""The application behind the edge in tests: returns the request that it received, as the path selects."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


_requests: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def application() -> WSGIApplication:
    """The WSGI application, loaded by gunicorn as the real one is."""
    return _answer


def trivial() -> WSGIApplication:
    """A page without work: the floor for measurements of other pages."""
    page = b"<!doctype html><title>page</title>" + b"x" * 10_000

    def answer(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(page)))])
        return [page]

    return answer


def _parts(more: Path) -> Iterator[bytes]:
    yield b"first\n"
    more.read_bytes()  # of a named pipe: waits until somebody writes to it
    yield b"second\n"


def _answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    fields = [("Content-Type", "application/json")]
    status = 500 if path == "/" and os.environ.get("ECHO_VERSION") == "fails" else 200
    if path == "/" and os.environ.get("ECHO_VERSION") == "slow":
        time.sleep(1)
    if path.startswith(("/status/", "/api/status/")):
        status = int(path.rpartition("/")[2])
    elif path == "/readyz":
        status = 503 if os.environ.get("ECHO_READY") == "no" else 200
    elif path == "/own-headers":
        fields += [
            ("Content-Security-Policy", "default-src 'self'"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "private, max-age=7"),
            ("Strict-Transport-Security", "max-age=1"),
            ("X-Request-ID", "mine"),
            ("X-Powered-By", "luck"),
        ]
    elif path == "/upload":
        fields = [
            ("Content-Type", "image/jpeg"),
            ("Content-Disposition", "inline; filename*=UTF-8''%E5%86%99%E7%9C%9F.jpg"),
            ("Content-Security-Policy", "default-src 'none'; sandbox"),
            ("Cache-Control", "private, no-cache"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Accel-Redirect", "/-/uploads/ab/" + environ["QUERY_STRING"]),
        ]
    elif path == "/send":  # no more than that
        fields = [("Cache-Control", "private"), ("X-Accel-Redirect", f"/-/uploads/{environ['QUERY_STRING']}")]
    elif path == "/api/tagged":
        fields += [("ETag", '"v-1"')]
    elif path == "/large-head":
        fields += [("X-Filler", "x" * 12_000)]
    elif path == "/slow":
        time.sleep(float(environ["QUERY_STRING"] or 1))
    elif path == "/kill":  # the first request for each file ends the worker
        if not (file := Path(environ["QUERY_STRING"])).exists():
            file.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif path == "/html":
        fields = [("Content-Type", "text/html; charset=utf-8")]
    elif path == "/framed":
        fields = [("Content-Type", "text/html; charset=utf-8"), ("X-Frame-Options", "DENY")]
    elif path == "/redirect":
        status, fields = 302, [*fields, ("Location", "/elsewhere")]
    elif path == "/parts":
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
        return _parts(Path(environ["QUERY_STRING"]))
    connection = environ["gunicorn.socket"]
    _requests[connection] = _requests.get(connection, 0) + 1
    length = len(environ["wsgi.input"].read())
    received = {name: value for name, value in environ.items() if isinstance(value, str)}
    body = json.dumps(
        {
            "environ": received,
            "length": length,
            "version": os.environ.get("ECHO_VERSION", ""),
            "on_connection": _requests[connection],
            "filler": "あ" * 2000,
        }
    ).encode()
    start_response(f"{status} Said So", fields)
    return [] if status in {204, 304} else [body]
