"""Alerts of an application behind a real pre-forking server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.http_sink import Answer, HttpSink
from testbed.polling import accepts_connections, free_port, wait_until

APPLICATION = """
import logging, os
from mks_hardening.notify import AlertPolicy, WebhookNotificationHandler

policy = AlertPolicy(rate=1000, backoff=0.05, shared_store=os.environ.get("STORE") or None)
handler = WebhookNotificationHandler(os.environ["SINK"], spool=os.environ["SPOOL"], policy=policy, timeout=2)
log = logging.getLogger("app")
log.addHandler(handler)

def application(environ, start_response):
    log.error("request %s failed in worker", environ["PATH_INFO"].strip("/"))
    start_response("500 Internal Server Error", [("Content-Length", "0")])
    return []
"""


class Server:
    """gunicorn with two workers."""

    def __init__(self, folder: Path, sink: HttpSink, *options: str) -> None:
        (folder / "program.py").write_text(textwrap.dedent(APPLICATION))
        self.port = free_port()
        self.spool = folder / "spool"
        environment = {**os.environ, "SINK": sink.url, "SPOOL": str(self.spool), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--workers", "2"]
        command += ["--graceful-timeout", "10", "--log-level", "critical", *options, "program:application"]
        self.process = subprocess.Popen(command, cwd=folder, env=environment)
        wait_until(lambda: accepts_connections(self.port), what="gunicorn")

    def ask(self, path: str) -> None:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10).close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture(params=["loaded by each worker", "preloaded"])
def server(tmp_path: Path, http_sink: HttpSink, request: pytest.FixtureRequest) -> Iterator[Server]:
    started = Server(tmp_path, http_sink, *(["--preload"] if request.param == "preloaded" else []))
    yield started
    started.stop()


def messages(sink: HttpSink) -> list[str]:
    return sorted(alert["message"] for request in sink.requests for alert in request.json()["alerts"])


def test_every_worker_delivers_before_it_ends(server: Server, http_sink: HttpSink) -> None:
    paths = [f"p{letter}" for letter in "abcdefgh"]
    for path in paths:
        server.ask(path)
    server.stop()
    assert messages(http_sink) == [f"request {path} failed in worker" for path in paths]


def test_what_a_dead_destination_does_not_take_is_replayed_by_the_next_start(
    server: Server, http_sink: HttpSink, tmp_path: Path
) -> None:
    http_sink.stop()
    for letter in "abc":
        server.ask(f"p{letter}")
    server.stop()
    assert len(list(server.spool.glob("*.json"))) == 3
    http_sink.start()
    again = Server(tmp_path, http_sink)
    try:
        wait_until(lambda: not list(again.spool.iterdir()), what="the replay")
    finally:
        again.stop()
    assert messages(http_sink) == [f"request p{letter} failed in worker" for letter in "abc"]


def test_a_reload_loses_nothing(server: Server, http_sink: HttpSink) -> None:
    http_sink.default = lambda _: Answer(delay=0.05)
    for letter in "abcd":
        server.ask(f"before{letter}")
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.05)
    for letter in "abcd":
        server.ask(f"after{letter}")
    server.stop()
    wanted = [f"request {word}{letter} failed in worker" for word in ("after", "before") for letter in "abcd"]
    assert messages(http_sink) == wanted
