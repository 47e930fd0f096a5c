"""``gunicorn_config`` under real gunicorn: logs, trust, metrics of all workers, and every way a worker can end."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import pytest

from gunicorn_server import Gunicorn
from mks_hardening.cache import RedisCache
from mks_hardening.contrib.uvicorn_config import uvicorn_config
from mks_hardening.contrib.waitress_config import waitress_config
from mks_hardening.exceptions import ConfigurationError
from testbed.http_sink import Answer, HttpSink
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.redis_server import RedisServer

pytest.importorskip("gunicorn")
pytest.importorskip("prometheus_client")

PROGRAM = """
import json, logging, os, time
from mks_hardening._core import hooks
from mks_hardening.events import BreakerChanged, CacheRead

log = logging.getLogger("knowledge")
if "SINK" in os.environ:
    from mks_hardening.notify import AlertPolicy, WebhookNotificationHandler
    policy = AlertPolicy(rate=1000, backoff=30)
    spool = os.environ.get("SPOOL")
    handler = WebhookNotificationHandler(os.environ["SINK"], policy=policy, timeout=30, spool=spool)
    logging.getLogger().addHandler(handler)

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/count":
        hooks.emit(CacheRead("mks", "hit"))
    if path == "/open":
        hooks.emit(BreakerChanged("redis", "closed", "open", "timeout"))
    if path == "/log":
        log.warning("signed in with password=%s", "hunter2")
    if path == "/error":
        log.error("the crane does not answer")
    if path == "/hang":
        log.error("about to hang")
        time.sleep(30)
    shown = {key: environ.get(key) for key in ("wsgi.url_scheme", "SCRIPT_NAME", "REMOTE_ADDR")}
    body = json.dumps({"pid": os.getpid(), **shown}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""

CONFIG = """
from mks_hardening.contrib.gunicorn_config import gunicorn_config

globals().update(gunicorn_config("knowledge", {options}))
"""

Start = Callable[..., Gunicorn]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def started(options: str = "", *, program: str = PROGRAM, **given: Any) -> Gunicorn:
            server = Gunicorn(tmp_path, config=CONFIG.format(options=options), program=program, **given)
            stack.callback(server.process.wait, 5)
            stack.callback(lambda: server.process.poll() is None and server.process.kill())
            stack.callback(server.stop)
            return server

        yield started


def numbers(server: Gunicorn, port: int) -> dict[str, float]:
    text = server.ask("/metrics", port=port)
    return {
        match[1]: float(match[2])
        for match in re.finditer(r"^(mks_\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    }


HITS = 'mks_cache_reads_total{namespace="mks",outcome="hit",reason=""}'
OPEN = 'mks_breakers_not_closed{backend="redis"}'


ASGI_PROGRAM = """
{first}
async def application(scope, receive, send):
    assert scope["type"] == "http", "no lifespan here"
    raise RuntimeError("no crane with password=hunter2")
"""
SET_UP = "from mks_hardening.logging import setup_logging; setup_logging('knowledge')"


def pid_of(server: Gunicorn, path: str = "/") -> int:
    match = re.search(r'"pid": (\d+)', server.ask(path))
    assert match is not None
    return int(match[1])


def test_every_line_is_json_and_nobody_is_trusted(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start(arguments=("--bind", f"unix:{path}"))
    spoofed = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9", "SCRIPT_NAME": "/evil"}
    answers = [server.ask("/log", **spoofed)]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        lines = "".join(f"{name}: {value}\r\n" for name, value in spoofed.items())
        client.sendall(f"GET / HTTP/1.0\r\n{lines}\r\n".encode())
        answers.append(b"".join(iter(lambda: client.recv(65536), b"")).decode())
    for answer in answers:
        assert '"wsgi.url_scheme": "http"' in answer
        assert '"SCRIPT_NAME": ""' in answer
        assert "203.0.113.9" not in answer
    server.stop()
    assert "hunter2" not in server.text()
    loggers = {line["logger"] for line in server.lines()}
    assert loggers == {"gunicorn.error", "knowledge"}


@pytest.mark.parametrize("preload", ["False", "True"])
def test_metrics_of_two_workers_survive_the_end_of_one(start: Start, preload: str, tmp_path: Path) -> None:
    port = free_port()
    server = start(f"workers=2, metrics_port={port}, metrics_directory='numbers', preload_app={preload}")
    wait_until(lambda: len(server.workers()) == 2, what="two workers")
    for _ in range(20):
        server.ask("/count")
    victim = pid_of(server, "/open")
    wait_until(lambda: bool(numbers(server, port).get(HITS)), what="metrics")
    assert numbers(server, port)[HITS] == 20
    assert numbers(server, port)[OPEN] == 1
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in server.workers() and len(server.workers()) == 2, what="another worker")
    for _ in range(20):
        server.ask("/count")
    found = numbers(server, port)
    assert found[HITS] == 40
    assert OPEN not in found
    # Two workers count, and a third has gone on where the killed one was.
    assert len(list((tmp_path / "numbers").glob("counter_mks*.db"))) <= 2


@pytest.mark.slow
def test_metrics_survive_reloads_and_fewer_workers(start: Start, tmp_path: Path) -> None:
    port = free_port()
    server = start(f"workers=2, metrics_port={port}, metrics_directory='numbers'")
    for _ in range(10):
        server.ask("/count")
    for _ in range(2):
        before = set(server.workers())
        server.signal(signal.SIGHUP)
        wait_until(
            lambda before=before: len(server.workers()) == 2 and not before & set(server.workers()),  # type: ignore[misc]  # bound now
            what="the reload",
        )
        for _ in range(10):
            server.ask("/count")
    assert numbers(server, port)[HITS] == 30
    server.ask("/open")
    server.signal(signal.SIGTTOU)
    wait_until(lambda: len(server.workers()) == 1, what="one worker")
    server.ask("/count")
    assert numbers(server, port)[HITS] == 31
    server.stop()
    assert not accepts_connections(port)
    assert len(list((tmp_path / "numbers").glob("counter_mks*.db"))) <= 4


@pytest.mark.parametrize("first", ["", SET_UP], ids=["alone", "with setup_logging"])
def test_what_uvicorn_tells_as_a_worker_is_json_without_secrets(start: Start, first: str) -> None:
    pytest.importorskip("uvicorn.workers")
    server = start("worker_class='uvicorn.workers.UvicornWorker'", program=ASGI_PROGRAM.format(first=first))
    server.ask()
    wait_until(lambda: "no crane" in server.text(), what="the traceback")
    server.stop()
    assert "hunter2" not in server.text()
    assert {line["logger"] for line in server.lines()} == {"gunicorn.error", "uvicorn.error"}


@pytest.mark.slow
def test_a_worker_class_that_replaces_threads(start: Start, http_sink: HttpSink) -> None:
    pytest.importorskip("gevent")
    port = free_port()
    server = start(
        # gunicorn's gevent workers overlook a SIGTERM now and then; the master waits for them no longer than this.
        f"worker_class='gevent', workers=2, metrics_port={port}, metrics_directory='numbers', graceful_timeout=4",
        environ={"SINK": http_sink.url},
    )
    for _ in range(10):
        server.ask("/count")
    wait_until(lambda: numbers(server, port).get(HITS) == 10, what="metrics")
    server.ask("/error")
    wait_until(lambda: messages(http_sink) == {"the crane does not answer"}, what="the alert")
    server.stop()


PRELOADED = f"""
from mks_hardening.logging import setup_logging
setup_logging("knowledge", queue=True)
{PROGRAM}
log.error("loaded in the master")
"""


def test_logs_and_alerts_of_a_preloaded_application_under_gevent(start: Start, http_sink: HttpSink) -> None:
    gevent = pytest.importorskip("gevent")
    server = start(
        "worker_class='gevent', workers=1, preload_app=True, graceful_timeout=4",
        program=PRELOADED,
        environ={"SINK": http_sink.url},
    )
    assert all(server.ask("/error") for _ in range(3))  # the first one starts the thread of the alerts
    wait_until(
        lambda: messages(http_sink) == {"loaded in the master", "the crane does not answer"},
        what="the alerts of the master and of the worker",
    )
    server.stop()
    written = server.text()
    if gevent.version_info < (25,):  # it cannot say its thread while the interpreter ends (_removeHandlerRef)
        written = written.partition("Exception ignored in: <function _removeHandlerRef")[0]
    said = [json.loads(line)["message"] for line in written.splitlines()]  # and nothing that is not JSON
    assert said.count("the crane does not answer") == 3
    assert any(message.startswith("Booting worker") for message in said)


@pytest.mark.slow
def test_a_new_start_counts_from_zero_and_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    port = free_port()
    server = start(f"metrics_port={port}", environ={"TMPDIR": str(tmp_path)})
    server.ask("/count")
    assert numbers(server, port)[HITS] == 1
    assert len(list(tmp_path.glob("mks-metrics-*"))) == 1
    server.stop()
    assert list(tmp_path.glob("mks-metrics-*")) == []
    for _ in range(2):
        again = start(f"metrics_port={port}, metrics_directory='numbers'")
        again.ask("/count")
        assert numbers(again, port)[HITS] == 1
        again.stop()


@pytest.mark.slow
def test_an_upgrade_of_the_master_keeps_the_metrics_port(start: Start, tmp_path: Path) -> None:
    port = free_port()
    server = start(f"metrics_port={port}, metrics_directory='numbers', pidfile='pid'")
    server.ask("/count")
    server.signal(signal.SIGUSR2)
    wait_until((tmp_path / "pid.2").exists, what="the new master")
    new = int((tmp_path / "pid.2").read_text())
    server.signal(signal.SIGTERM)
    server.process.wait(20)
    try:
        wait_until(lambda: accepts_connections(port), what="metrics of the new master")
        server.ask("/count")
        assert numbers(server, port)[HITS] == 2
    finally:
        os.kill(new, signal.SIGTERM)
        wait_until(lambda: not accepts_connections(server.port), what="the end")


# --- the end of a worker


def messages(sink: HttpSink) -> set[str]:
    return {alert["message"] for request in sink.requests for alert in request.json()["alerts"]}


def in_the_background(call: Callable[[], object]) -> None:
    def quietly() -> None:
        with contextlib.suppress(Exception):
            call()

    Thread(target=quietly, daemon=True).start()


@pytest.mark.slow
def test_a_worker_that_hangs_tells_where_and_delivers_its_alerts(start: Start, http_sink: HttpSink) -> None:
    http_sink.default = lambda _: Answer(delay=2.5)  # longer than gunicorn waits between SIGABRT and SIGKILL
    server = start("worker_class='sync', timeout=2", environ={"SINK": http_sink.url})
    in_the_background(lambda: server.ask("/hang"))
    result = "a worker timed out while it was running this code"
    wait_until(lambda: {"about to hang", result} <= messages(http_sink), what="the alerts of a worker")
    wait_until(lambda: "Worker exiting" in server.text(), what="the end of the worker")
    server.stop()
    (record,) = [line for line in server.lines() if line["message"] == result]
    assert record["level"] == "CRITICAL"
    assert "time.sleep(30)" in record["stack"]
    assert "SIGKILL" not in server.text()


@pytest.mark.slow
def test_a_thread_that_hangs_keeps_no_alert_from_the_spool(
    start: Start, http_sink: HttpSink, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    http_sink.default = lambda _: Answer(delay=25)  # the first alert is still on its way at the end
    server = start("graceful_timeout=13", environ={"SINK": http_sink.url, "SPOOL": str(spool)})
    in_the_background(lambda: server.ask("/hang"))
    wait_until(lambda: "about to hang" in server.text(), what="the request")
    server.ask("/error")
    server.stop()
    spooled = {json.loads(file.read_text())["message"] for file in spool.glob("*.json")}
    assert spooled == {"about to hang", "the crane does not answer"}


# --- the start of a worker, and a reload

GATED = """
import gc, json, os
from pathlib import Path
from time import sleep

{first}
Path(f"loading{{os.getpid()}}").write_text(str(gc.get_threshold()[0]))
while Path("closed").exists():
    sleep(0.01)

def application(environ, start_response):
    said = dict(pid=os.getpid(), threshold=gc.get_threshold()[0], frozen=gc.get_freeze_count())
    body = json.dumps(said).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("metrics", [False, True], ids=["without metrics", "with metrics"])
def test_a_reload_keeps_the_old_workers_until_the_new_ones_are_loaded(
    start: Start, metrics: bool, tmp_path: Path
) -> None:
    options = f", metrics_port={free_port()}, metrics_directory='numbers'" if metrics else ""
    server = start(f"workers=2{options}", program=GATED.format(first=""))
    for _ in range(2):
        wait_until(lambda: len(list(tmp_path.glob("loading*"))) == 2, what="two workers")
        old = set(server.workers())
        (tmp_path / "closed").touch()
        for file in tmp_path.glob("loading*"):
            file.unlink()
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(list(tmp_path.glob("loading*"))) == 2, what="two new workers")
        assert {pid_of(server) for _ in range(20)} <= old
        (tmp_path / "closed").unlink()
        wait_until(lambda old=old: not old & set(server.workers()), what="the end of the old workers")  # type: ignore[misc]  # bound now
        assert pid_of(server) not in old


VERSIONED = """
import os
from pathlib import Path

exec(Path("version").read_text())
Path(f"loaded{os.getpid()}").touch()

def application(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
VERSIONED_ASGI = """
import os
from asyncio import sleep
from pathlib import Path

refuses = False
exec(Path("version").read_text())
Path(f"loaded{os.getpid()}").touch()

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        Path(f"starting{os.getpid()}").touch()
        while Path("closed").exists():
            await sleep(0.01)
        await send({"type": f"lifespan.startup.{'failed' if refuses else 'complete'}"})
        if not refuses:
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(os.getpid()).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"""
UVICORN = "worker_class='uvicorn.workers.UvicornWorker'"
# With version 25, its own ASGI worker serves although the startup was refused, and ends 30 s late: it waits for
# connections that are closed.
NEEDS_26 = pytest.mark.skipif(
    int(version("gunicorn").partition(".")[0]) < 26, reason="defects of gunicorn 25's own ASGI worker"
)


@pytest.mark.parametrize(
    ("options", "program", "version"),
    [
        ("", VERSIONED, "raise ImportError('no crane')"),
        pytest.param("worker_class='asgi'", VERSIONED_ASGI, "refuses = True", marks=NEEDS_26),
        (UVICORN, VERSIONED_ASGI, "refuses = True"),
    ],
    ids=["not imported", "startup refused", "startup refused, uvicorn"],
)
def test_a_reload_of_a_broken_version_keeps_the_old_workers(
    start: Start, options: str, program: str, version: str, tmp_path: Path
) -> None:
    (tmp_path / "version").touch()
    server = start(f"workers=2, {options}", program=program)
    wait_until(lambda: len(list(tmp_path.glob("loaded*"))) == 2, what="two workers")
    old = set(server.workers())
    (tmp_path / "version").write_text(version)
    server.signal(signal.SIGHUP)
    wait_until(lambda: "the reload failed" in server.text(), what="the failure")
    wait_until(lambda: set(server.workers()) == old, what="the end of the new workers")
    assert int(server.ask()) in old
    (tmp_path / "version").write_text("")
    server.signal(signal.SIGHUP)
    wait_until(lambda: not old & set(server.workers()), what="the reload of the repaired version")
    assert int(server.ask()) in server.workers()
    assert server.stop() == 0


class _Visitor(Thread):
    """Sends one request after the other, each on a new connection."""

    def __init__(self, server: Gunicorn) -> None:
        super().__init__(daemon=True)
        self._server, self._ended = server, Event()
        self.pids: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self.pids.append(self._server.ask() or "broken")
            except OSError as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(60)

    def wait_for_more(self) -> None:
        """Wait for some responses from now on."""
        before = len(self.pids)
        wait_until(lambda: len(self.pids) >= before + 20, what="responses")


def _break_syntax(file: Path) -> None:
    file.write_text(file.read_text() + "\nworkers = = 2\n")


def _break_setting(file: Path) -> None:
    file.write_text(file.read_text() + "\nworkers = 'many'\n")


def _break_import(file: Path) -> None:
    file.write_text("from no_crane import settings\n")


def _take_port(file: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    file.write_text(CONFIG.format(options=f"workers=2, metrics_port={taken.getsockname()[1]}"))
    _TAKEN.append(taken)


_TAKEN: list[socket.socket] = []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_break_syntax, "SyntaxError: invalid syntax"),
        (_break_setting, "invalid literal for int"),
        (_break_import, "No module named 'no_crane'"),
        (lambda file: file.unlink(), "doesn't exist"),
        (_take_port, "the port for metrics cannot be opened"),
    ],
    ids=["syntax", "setting", "import", "missing", "port in use"],
)
def test_a_reload_with_a_broken_configuration_changes_nothing(
    start: Start, damage: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "version").touch()
    server = start("workers=2, raw_env=['CRANE=red']", program=VERSIONED)
    wait_until(lambda: len(list(tmp_path.glob("loaded*"))) == 2, what="two workers")
    old = {str(pid) for pid in server.workers()}
    file = tmp_path / "gunicorn.conf.py"
    right = file.read_text()
    with _Visitor(server) as visitor:
        visitor.wait_for_more()
        damage(file)
        server.signal(signal.SIGHUP)
        wait_until(lambda: "the reload failed" in server.text(), what="the failure")
        visitor.wait_for_more()
        assert {str(pid) for pid in server.workers()} == old
        assert set(visitor.pids) <= old
        # A worker that ends is replaced with the configuration that serves.
        os.kill(int(min(old)), signal.SIGTERM)
        wait_until(lambda: len(set(server.workers()) - {int(pid) for pid in old}) == 1, what="another worker")
        visitor.wait_for_more()
        for taken in _TAKEN:
            taken.close()
        _TAKEN.clear()
        file.write_text(right)
        (tmp_path / "version").write_text("assert os.environ['CRANE'] == 'red'")
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(list(tmp_path.glob("loaded*"))) == 5, what="two new workers")
        visitor.wait_for_more()
    assert visitor.failures == []
    assert server.stop() == 0
    (failure,) = [line for line in server.lines() if "the reload failed" in json.dumps(line)]
    assert reason in json.dumps(failure)


@pytest.mark.parametrize(
    ("options", "program"),
    [
        ("worker_class='gthread'", VERSIONED),
        ("worker_class='sync'", VERSIONED),
        pytest.param("worker_class='asgi'", VERSIONED_ASGI, marks=NEEDS_26),
    ],
    ids=["gthread", "sync", "asgi"],
)
def test_after_a_failed_reload_no_worker_is_recycled(
    start: Start, options: str, program: str, tmp_path: Path
) -> None:
    (tmp_path / "version").touch()
    server = start(f"workers=2, max_requests=1000, {options}", program=program)
    wait_until(lambda: len(list(tmp_path.glob("loaded*"))) == 2, what="two workers")
    old = {str(pid) for pid in server.workers()}
    (tmp_path / "version").write_text("raise ImportError('no crane')")
    server.signal(signal.SIGHUP)
    wait_until(lambda: "the reload failed" in server.text(), what="the failure")
    # More than both may answer.
    assert {server.ask() for _ in range(2100)} == old
    # One that ends for another reason is not replaced: the other one continues.
    os.kill(int(min(old)), signal.SIGKILL)
    wait_until(lambda: "not replaced" in server.text(), what="the failure of its successor")
    assert {server.ask() for _ in range(20)} == {max(old)}
    assert server.process.poll() is None
    (tmp_path / "version").write_text("")
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(list(tmp_path.glob("loaded*"))) >= 4, what="the repaired version")
    wait_until(lambda: not {int(pid) for pid in old} & set(server.workers()), what="the end of the old one")
    assert len(server.workers()) == 2
    assert server.stop() == 0


def test_a_reload_that_waits_for_new_workers_is_ended_by_sigterm(start: Start, tmp_path: Path) -> None:
    server = start("workers=2, timeout=600", program=GATED.format(first=""))
    wait_until(lambda: len(list(tmp_path.glob("loading*"))) == 2, what="two workers")
    (tmp_path / "closed").touch()
    for file in tmp_path.glob("loading*"):
        file.unlink()
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(list(tmp_path.glob("loading*"))) == 2, what="two new workers")
    # A server that waits for the new workers first would be killed by systemd, with its old workers.
    assert server.stop(timeout=60) == 0


@pytest.mark.parametrize(
    "worker", [pytest.param("worker_class='asgi'", marks=NEEDS_26), UVICORN], ids=["asgi", "uvicorn"]
)
def test_a_reload_waits_for_the_startup_of_asgi_applications(
    start: Start, worker: str, tmp_path: Path
) -> None:
    (tmp_path / "version").touch()
    server = start(f"workers=2, {worker}", program=VERSIONED_ASGI)
    wait_until(lambda: len(list(tmp_path.glob("starting*"))) == 2, what="two workers")
    old = set(server.workers())
    server.ask()
    (tmp_path / "closed").touch()
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(list(tmp_path.glob("starting*"))) == 4, what="two new workers")
    assert {int(server.ask()) for _ in range(20)} <= old
    (tmp_path / "closed").unlink()
    wait_until(lambda: not old & set(server.workers()), what="the end of the old workers")
    assert int(server.ask()) not in old


@pytest.mark.parametrize(
    ("first", "threshold"),
    [("", gc.get_threshold()[0]), ("gc.set_threshold(4000)", 4000)],
    ids=["default", "own threshold"],
)
def test_no_garbage_is_collected_while_a_worker_loads(
    start: Start, first: str, threshold: int, tmp_path: Path
) -> None:
    server = start(program=GATED.format(first=f"at_first = gc.get_threshold()[0]\n{first}"))
    said = json.loads(server.ask())
    assert said["threshold"] == threshold
    assert said["frozen"] > 1000
    (file,) = tmp_path.glob("loading*")
    assert file.read_text() == ("4000" if first else "0")


# --- fork-safe clients

SHARED = """
import json, os
from sqlalchemy import text
from mks_hardening.cache import RedisCache
from mks_hardening.db import hardened_engine

engine = hardened_engine(os.environ["DATABASE"])
cache = RedisCache(os.environ["REDIS"])
with engine.connect() as connection:  # the master has used both before it forks
    MASTER = connection.execute(text("select pg_backend_pid()")).scalar_one()
cache.set("from", "master")

def application(environ, start_response):
    with engine.connect() as connection:
        backend, echo = connection.execute(
            text("select pg_backend_pid(), cast(:pid as integer)"), {"pid": os.getpid()}
        ).one()
    cache.set(f"pid{os.getpid()}", os.getpid())
    environ = {
        "pid": os.getpid(), "right": echo == os.getpid() == cache.get(f"pid{os.getpid()}"),
        "backend": backend, "master": MASTER, "cached": cache.get("from"),
    }
    body = json.dumps(environ).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.postgres
@pytest.mark.redis
def test_an_engine_and_a_cache_used_before_the_fork(
    start: Start, postgres_url: str, redis_server: RedisServer
) -> None:
    server = start(
        "workers=2, preload_app=True",
        program=SHARED,
        environ={"DATABASE": postgres_url, "REDIS": redis_server.url},
    )
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        answers.extend(json.loads(server.ask()) for _ in range(20))

    # On a busy machine one worker may answer a whole round.
    while len({answer["pid"] for answer in answers}) < 2:
        threads = [Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) % 80 == 0
    assert all(answer["right"] and answer["cached"] == "master" for answer in answers)
    assert all(answer["backend"] != answer["master"] for answer in answers)


THREADS = """
import json, logging, os
from mks_hardening.cache import BaseCDN, MemoryCache, PurgeQueue, PurgeResult, RedisCache, TieredCache
from mks_hardening.logging import setup_logging

class CDN(BaseCDN):
    def send_items(self, items):
        with open("purged", "a") as purged:
            purged.writelines(f"{os.getpid()} {item.value}\\n" for item in items)
        return PurgeResult.of_items(done=items)

setup_logging("knowledge", queue=True)
log = logging.getLogger("knowledge")
queue = PurgeQueue(CDN(), window=0.1)
cache = TieredCache(MemoryCache(), RedisCache(os.environ["REDIS"]), l1_ttl=3600, client_tracking=True)
cache.set("k", "old")
cache.get("k")  # each has its thread in the master before the fork
queue.purge_cache(tags=[f"by-{os.getpid()}"])
log.error("used by %d", os.getpid())

def application(environ, start_response):
    if environ["PATH_INFO"] == "/use":
        queue.purge_cache(tags=[f"by-{os.getpid()}"])
        log.error("used by %d", os.getpid())
    body = json.dumps({"pid": os.getpid(), "read": cache.get("k")}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.redis
@pytest.mark.timeout(600)
def test_threads_of_a_preloaded_application_run_in_each_worker(
    start: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """No worker is given up by the master, however long a busy machine lets it stand still."""
    server = start(
        "workers=2, preload_app=True, timeout=600, graceful_timeout=600",
        program=THREADS,
        environ={"REDIS": redis_server.url},
    )
    far = RedisCache(redis_server.url, store_budget=60)
    used = [server.process.pid]

    def tracked() -> int:
        with redis_server.client() as client:
            return sum("B" in row["flags"] for row in client.client_list())

    def logged() -> list[int]:
        return sorted(int(pid) for pid in re.findall(r'"message": ?"used by (\d+)"', server.text()))

    for value in ("new", "newer"):
        wait_until(lambda: len(server.workers()) == 2, timeout=120, what="two workers")
        workers = set(server.workers())
        while not workers <= set(used):  # one worker may answer many requests
            used.append(pid_of(server, "/use"))
        wait_until(lambda: tracked() == 3, timeout=120, what="channels of the master and of both workers")
        far.set("k", value)
        read: set[tuple[int, str]] = set()

        def both_read(read: set[tuple[int, str]] = read, value: str = value) -> bool:
            said = json.loads(server.ask())
            read.add((said["pid"], said["read"]))
            return {(pid, value) for pid in server.workers()} <= read

        wait_until(both_read, timeout=120, what="the new value in both workers")
        wait_until(lambda: purged(tmp_path) == set(used), timeout=120, what="the purges of all processes")
        wait_until(lambda: logged() == sorted(used), timeout=120, what="the lines of all processes")
        server.signal(signal.SIGHUP)
        wait_until(lambda old=workers: not old & set(server.workers()), timeout=120, what="the reload")  # type: ignore[misc]  # bound now
    far.close()
    server.stop(120)
    assert "post_fork" not in server.text()
    assert logged() == sorted(used)


@pytest.mark.parametrize(
    ("preload", "lost"),
    [("True", ["reports, mks-task-0"]), ("False", [])],
    ids=["preloaded", "not preloaded"],
)
def test_threads_that_a_preloaded_application_loses_are_named(
    start: Start, preload: str, lost: list[str]
) -> None:
    threads = "for name in ('reports', 'mks-task-0', 'mks-log-queue'):\n"
    threads += "    threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()"
    server = start(f"preload_app={preload}", program=f"import threading\n{threads}\n{PROGRAM}")
    server.ask()
    said = [line["message"] for line in server.lines() if line["logger"] == "mks_hardening.gunicorn"]
    assert [words.partition("post_fork: ")[2] for words in said] == lost


def purged(folder: Path) -> set[int]:
    """Return who purged, after a check that each process sends what it was given itself."""
    file = folder / "purged"  # absent until the first purge
    pairs = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    assert all(tag == f"by-{pid}" for pid, tag in pairs)
    return {int(pid) for pid, _ in pairs}


# --- bad use


def test_the_command_line_cannot_make_gunicorn_trust(start: Start) -> None:
    server = start(arguments=("--forwarded-allow-ips", "*"), wait=False)
    assert server.process.wait(20) != 0
    assert "remove --forwarded-allow-ips" in server.text()


def test_a_taken_metrics_port_is_said_at_the_start(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start(f"metrics_port={taken.getsockname()[1]}", wait=False)
        assert server.process.wait(20) != 0
    assert "the port for metrics cannot be opened" in server.text()


def test_hooks_of_ones_own_are_called_after_ours(start: Start, tmp_path: Path) -> None:
    port = free_port()
    hooks = """
def note(name):
    with open("notes", "a") as notes:
        notes.write(f"{name} ")
def on_starting(server): note("starting")
def post_worker_init(worker): note("worker")
def worker_exit(server, worker): note("exit")
def child_exit(server, worker): note("child")
def post_fork(server, worker): note("fork")
own = dict(on_starting=on_starting, post_worker_init=post_worker_init, worker_exit=worker_exit,
           child_exit=child_exit, post_fork=post_fork)
"""
    server = Gunicorn(
        tmp_path,
        config=hooks + CONFIG.format(options=f"metrics_port={port}, **own"),
        program=PROGRAM,
    )
    try:
        server.ask("/count")
        assert numbers(server, port)[HITS] == 1
    finally:
        server.stop()
    assert (tmp_path / "notes").read_text().split() == ["starting", "fork", "worker", "exit", "child"]


# --- the other servers

SERVED = """
import sys
from mks_hardening.contrib.{server}_config import {server}_config
import {server}

{application}

{server}.{run}(application, host="127.0.0.1", port=int(sys.argv[1]), **{server}_config("knowledge"))
"""
RUN = {"uvicorn": "run", "waitress": "serve"}
OF_UVICORN = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        text = f"{scope['scheme']} {scope['client'][0]}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})
"""
OF_WAITRESS = """
def application(environ, start_response):
    text = f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']} {environ.get('HTTP_X_FORWARDED_FOR')}"
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text.encode()]
"""


@pytest.mark.parametrize(
    ("server", "source", "result", "logger"),
    [
        ("uvicorn", OF_UVICORN, "http 127.0.0.1", "uvicorn.error"),
        ("waitress", OF_WAITRESS, "http 127.0.0.1 203.0.113.9", "waitress"),
    ],
)
def test_uvicorn_and_waitress(server: str, source: str, result: str, logger: str, tmp_path: Path) -> None:

    pytest.importorskip(server)
    port = free_port()
    script = tmp_path / "served.py"
    script.write_text(SERVED.format(server=server, run=RUN[server], application=source))
    output = tmp_path / "output"
    with output.open("wb") as both:
        process = subprocess.Popen(
            [sys.executable, str(script), str(port)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "MKS_ENV": "test"},
            stdout=both,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: accepts_connections(port), what=server)
        spoofed = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=spoofed)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.read().decode() == result
            assert answer.headers["Server"] is None
    finally:
        process.terminate()  # SIGINT is ignored below a shell's background job
        process.wait(20)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert {line["logger"] for line in lines} == {logger}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (uvicorn_config, "proxy_headers"),
        (uvicorn_config, "log_config"),
        (waitress_config, "trusted_proxy"),
        (waitress_config, "url_scheme"),
    ],
)
def test_their_options_that_would_undo_it_are_refused(make: Callable[..., object], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"remove {name}|{name} is set"):
        make("knowledge", **{name: "*"})
