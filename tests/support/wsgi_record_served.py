"""Applications for real servers in the tests of the request record; records go to the file named by RECORDS."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.wsgi import MemorySessionStore, RequestLoggingMiddleware, SessionTimeoutMiddleware

FIELDS = (
    *("method", "path", "status", "bytes", "outcome", "exc_type"),
    *("request_id", "duration_ms", "ttfb_ms", "client_ip"),
)
PIECE = b"x" * 65536


class ToFile(logging.Handler):
    """Writes one line of JSON per record."""

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
    """A download in one chunk, as most frameworks send it."""
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


OF_THE_FAILED = [
    *(("Content-Type", "text/plain"), ("Content-Length", "3"), ("ETag", '"x"'), ("Set-Cookie", "a=1")),
    ("Cache-Control", "public"),
]


def fails_after_head(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", list(OF_THE_FAILED))
    raise ValueError("broken")


def fails_in_body(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", list(OF_THE_FAILED))
    if environ:
        raise ValueError("broken")
    yield b"abc"


def fails_after_nothing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", list(OF_THE_FAILED))
    yield b""
    raise ValueError("broken")


def answers_its_own_error(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", list(OF_THE_FAILED))
    try:
        raise ValueError("broken")  # noqa: TRY301 - exc_info is wanted
    except ValueError:
        start_response("500 Internal Server Error", [("Content-Length", "4")], sys.exc_info())
    return [b"oops"]


def text(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[Any]:
    start_response("200 OK", list(OF_THE_FAILED))
    return ["abc"]


def silent(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    return [b"abc"]


def store_away(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", list(OF_THE_FAILED))
    raise BackendUnavailableError("sessions", "refused", operation="start")


PAGES = {
    "/fails-after-head": fails_after_head,
    "/fails-in-body": fails_in_body,
    "/fails-after-nothing": fails_after_nothing,
    "/answers-its-own-error": answers_its_own_error,
    "/text": text,
    "/silent": silent,
    "/store-away": store_away,
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
recorded = RequestLoggingMiddleware(app, logger=_logger)
in_session = SessionTimeoutMiddleware(app, store=MemorySessionStore())


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Records every request except those about sessions."""
    inner: Any = in_session if environ["PATH_INFO"] == "/store-away" else recorded
    return inner(environ, start_response)
