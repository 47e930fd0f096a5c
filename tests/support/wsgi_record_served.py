"""What a real server runs in the tests of the request record; the record goes to the file named by RECORDS."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from mks_hardening.wsgi import RequestLoggingMiddleware

FIELDS = (
    *("method", "path", "status", "bytes", "outcome", "exc_type"),
    *("request_id", "duration_ms", "ttfb_ms", "client_ip"),
)
PIECE = b"x" * 65536


class ToFile(logging.Handler):
    """One line of JSON for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        line = json.dumps({name: getattr(record, name) for name in FIELDS})
        with open(os.environ["RECORDS"], "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(line + "\n")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """One path for each kind of body."""
    return PAGES[environ["PATH_INFO"]](environ, start_response)


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def stream(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(3):
        yield b"abc"


def endless(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    while True:
        yield PIECE


def one_chunk(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """A download that was put together in memory, as most frameworks send it."""
    body = b"x" * os.stat(os.environ["BIG_FILE"]).st_size  # noqa: PTH116
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def broken(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    raise ValueError("broken")


def breaks_later(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    yield b"abc"
    raise ValueError("broken")


def file(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    handle = open(os.environ["BIG_FILE"], "rb")  # noqa: PTH123, SIM115 - the server closes it
    size = os.fstat(handle.fileno()).st_size
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(size))])
    return environ["wsgi.file_wrapper"](handle)


PAGES = {
    "/": page,
    "/stream": stream,
    "/endless": endless,
    "/broken": broken,
    "/breaks-later": breaks_later,
    "/file": file,
    "/one-chunk": one_chunk,
}
_logger = logging.Logger("served", level=logging.INFO)  # noqa: LOG001 - of its own
_logger.addHandler(ToFile())
application = RequestLoggingMiddleware(app, logger=_logger)
