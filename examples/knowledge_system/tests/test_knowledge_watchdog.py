"""A request that hangs is seen where it hangs, once, and its end is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from knowledge_system.web.watchdog import RequestWatchdog
from mks_hardening.testing import FrozenClock, call_wsgi


class Hanging:
    """An application that waits for a lock that somebody else holds."""

    def __init__(self) -> None:
        self.entered, self.lock = threading.Event(), threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["REQUEST_ID"] = "7"
        if environ["PATH_INFO"] == "/hang":
            self.wait_for_the_pool()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    def wait_for_the_pool(self) -> None:
        self.entered.set()
        self.lock.wait(30)


def test_the_stack_of_a_hanging_request_is_told_once(
    clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = Hanging()
    watchdog = RequestWatchdog(app, limit=20, every=3600, clock=clock)
    thread = threading.Thread(target=call_wsgi, args=(watchdog, "/hang"), kwargs={"query": "password=x"})
    thread.start()
    assert app.entered.wait(10)
    clock.advance(19)
    watchdog.check()
    assert caplog.records == []
    clock.advance(2)
    assert call_wsgi(watchdog, "/other").status == 200
    watchdog.check()
    watchdog.check()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("GET /hang (request 7) has been running for 21.0 s")
    assert "in wait_for_the_pool" in record.getMessage()
    assert "password" not in record.getMessage()
    app.lock.set()
    thread.join(10)
    assert caplog.records[-1].getMessage() == "GET /hang (request 7) finished after 21.0 s"
    watchdog.check()
    assert len(caplog.records) == 2


def test_an_error_leaves_nothing_behind(clock: FrozenClock, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_environ: Any, _start_response: Any) -> list[bytes]:
        raise RuntimeError("x")

    watchdog = RequestWatchdog(broken, clock=clock, every=3600)
    with pytest.raises(RuntimeError):
        call_wsgi(watchdog, "/")
    clock.advance(100)
    watchdog.check()
    assert caplog.records == []


def test_it_looks_until_it_is_closed(clock: FrozenClock) -> None:
    watchdog = RequestWatchdog(Hanging(), clock=clock, every=0.01)
    before = set(threading.enumerate())
    call_wsgi(watchdog, "/")
    (thread,) = set(threading.enumerate()) - before
    watchdog.close()
    thread.join(10)
    assert not thread.is_alive()
    assert call_wsgi(watchdog, "/").status == 200


def test_it_stands_around_the_whole_application(make_app: Callable[..., Any]) -> None:
    assert isinstance(make_app().wsgi_app, RequestWatchdog)
