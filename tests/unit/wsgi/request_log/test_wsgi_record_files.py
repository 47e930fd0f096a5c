from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest

from mks_hardening.wsgi import RequestLoggingMiddleware
from wsgi_scripted import environ_of

SIZE = 1000


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Waitress:
    """A wrapper that names its file as waitress does."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file = file

    def __iter__(self) -> Any:
        return iter(self.file.read, b"")

    def close(self) -> None:
        self.file.close()


@pytest.fixture
def file(tmp_path: Path) -> Any:
    (tmp_path / "file").write_bytes(b"x" * SIZE)
    return (tmp_path / "file").open("rb")


def serve(
    file: Any, send: Callable[[Any], None], *, wrapper: type[Any] = FileWrapper, declared: int | None = None
) -> Any:
    """One request whose body is a file, sent by ``send`` as a server does; returns the record."""
    handler = Records()
    logger = logging.Logger("files", level=1)  # noqa: LOG001 - of its own
    logger.addHandler(handler)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        length = [] if declared is None else [("Content-Length", str(declared))]
        start_response("200 OK", [("Content-Type", "text/plain"), *length])
        return environ["wsgi.file_wrapper"](file)

    environ = environ_of({"environ": {"wsgi.file_wrapper": wrapper}})
    result: Any = RequestLoggingMiddleware(app, logger=logger)(environ, lambda *_: None)
    assert type(result) is wrapper
    try:
        send(file)
    except ConnectionResetError:
        with pytest.raises(ConnectionResetError):
            _close_while_it_is_raised(result)
    else:
        result.close()
    result.close()
    assert file.closed
    (record,) = handler.records
    return record


def _close_while_it_is_raised(result: Any) -> None:
    try:
        raise ConnectionResetError
    finally:
        result.close()


def nothing(file: Any) -> None:
    pass


def put_back(file: Any) -> None:
    """As gunicorn does after sendfile."""
    os.lseek(file.fileno(), 0, os.SEEK_SET)


def read_all(file: Any) -> None:
    assert len(file.read()) == SIZE


def read_some(file: Any) -> None:
    file.read(100)


def reset_at_once(file: Any) -> None:
    raise ConnectionResetError


def reset_later(file: Any) -> None:
    file.seek(300)
    raise ConnectionResetError


@pytest.mark.parametrize(
    ("send", "declared", "sent", "outcome"),
    [
        (put_back, None, SIZE, "ok"),
        (put_back, 400, 400, "ok"),
        (put_back, 5000, SIZE, "ok"),
        (read_all, None, SIZE, "ok"),
        (read_some, None, 100, "aborted"),
        (read_some, 100, 100, "ok"),
        (reset_at_once, None, 0, "aborted"),
        (reset_later, None, 300, "aborted"),
    ],
)
def test_what_a_server_sent_of_a_file(
    file: Any, send: Callable[[Any], None], declared: int | None, sent: int, outcome: str
) -> None:
    record = serve(file, send, declared=declared)
    assert (record.bytes, record.outcome) == (sent, outcome)


@pytest.mark.parametrize(("send", "sent", "outcome"), [(nothing, 0, "aborted"), (read_all, SIZE, "ok")])
def test_waitress_leaves_the_position_where_it_is(
    file: Any, send: Callable[[Any], None], sent: int, outcome: str
) -> None:
    record = serve(file, send, wrapper=Waitress)
    assert (record.bytes, record.outcome) == (sent, outcome)


def test_a_file_in_memory_cannot_be_put_back() -> None:
    record = serve(io.BytesIO(b"x" * SIZE), nothing)
    assert (record.bytes, record.outcome) == (0, "aborted")


def test_the_part_of_a_file_before_its_position_is_not_sent(file: Any) -> None:
    file.seek(600)
    record = serve(file, lambda file: file.read())
    assert (record.bytes, record.outcome) == (400, "ok")
