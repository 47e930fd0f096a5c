"""The request log over ASGI changes nothing but the id, and its record is true, whatever the application sends."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asgi_bridge import drive
from asgi_server import http
from mks_hardening.asgi import RequestLoggingMiddleware
from mks_hardening.testing import FrozenClock

PARTS = st.lists(st.binary(max_size=6), min_size=1, max_size=4)
STATUS = st.sampled_from([200, 204, 304, 404, 503])


class Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Script:
    """Sends a head and parts of a body, and raises before the message with a number."""

    def __init__(
        self, status: int, parts: list[bytes], raises_at: int | None, error: type[Exception]
    ) -> None:
        last = len(parts) - 1
        self.messages: list[dict[str, Any]] = [
            {"type": "http.response.start", "status": status, "headers": [(b"x-own", b"1")]},
            *(
                {"type": "http.response.body", "body": part, "more_body": number < last}
                for number, part in enumerate(parts)
            ),
        ]
        self.raises_at = raises_at
        self.error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for number, message in enumerate(self.messages):
            if number == self.raises_at:
                raise self.error("from the application")
            await send(dict(message))
        if self.raises_at is not None and self.raises_at >= len(self.messages):
            raise self.error("after the response")


@given(
    status=STATUS,
    parts=PARTS,
    raises_at=st.none() | st.integers(0, 5),
    error=st.sampled_from([ValueError, KeyError, RuntimeError]),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_the_wrapper_changes_nothing_but_the_id_and_its_record_is_true(
    status: int, parts: list[bytes], raises_at: int | None, error: type[Exception], method: str
) -> None:
    app = Script(status, parts, raises_at, error)
    plain = drive(app, http(method=method))
    logger, handler = logging.Logger("p", level=1), Collect()  # noqa: LOG001
    logger.addHandler(handler)
    wrapped = RequestLoggingMiddleware(app, logger=logger, clock=FrozenClock())
    served = drive(wrapped, http(method=method))

    (record,) = handler.records
    # The record is written at the last byte: an error of background work is not one of the response. That of a 5xx
    # waits, since frameworks send their 500 page and then raise what led to it.
    raised = raises_at is not None and (raises_at < len(app.messages) or status >= 500)
    assert (record.outcome == "error") == raised
    assert record.exc_type == (error.__name__ if raised else None)
    ids = [value for name, value in served.sent[0]["headers"] if name == b"x-request-id"]
    assert ids == [record.request_id.encode()]
    if raises_at == 0:  # before the response: the wrapper sends one
        assert (served.sent[0]["status"], record.status) == (500, 500)
        assert served.raised is None
        return
    assert type(served.raised) is type(plain.raised)
    assert record.status == status
    head, *bodies = served.sent
    assert [field for field in head["headers"] if field[0] != b"x-request-id"] == [(b"x-own", b"1")]
    assert bodies == plain.sent[1:]
    has_body = method != "HEAD" and status not in (204, 304)
    assert record.bytes == (sum(len(message["body"]) for message in bodies) if has_body else 0)
    is_fine = status < 500 and not raised
    assert record.levelno == (logging.INFO if is_fine else logging.ERROR)
