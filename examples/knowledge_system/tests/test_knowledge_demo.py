"""The demonstration as people start it: one command, real processes, TLS, mail over SMTP, chat over HTTP."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from knowledge_system.demo import walkthrough
from knowledge_system.demo.clock import MovableClock, clock_file
from knowledge_system.demo.sink import read_messages
from knowledge_system.demo.temporary_demo import IsolatedDemo, isolated_demo
from knowledge_system.demo.visitor import BrowserClient
from knowledge_system.settings import DEMO_PASSWORD
from testbed.polling import wait_until

# A walk takes four seconds on an idle machine; a busy one may need ten times as long.
pytestmark = pytest.mark.timeout(300)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def second_demos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[IsolatedDemo]:
    """What a walk starts beside the demonstration, in a folder of its own and under settings that do not work."""
    started: list[IsolatedDemo] = []

    @contextmanager
    def noted() -> Iterator[IsolatedDemo]:
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)
        monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
        monkeypatch.setenv("MKS_REDIS_URL", "redis://127.0.0.1:9")
        with isolated_demo() as second:
            started.append(second)
            yield second

    folder = tmp_path / "second"
    folder.mkdir()
    monkeypatch.setattr(walkthrough, "isolated_demo", noted)
    return started


def test_the_walk_passes_on_embedded_defaults_and_everything_ends_with_one_signal(
    start_demo: Callable[..., Any],
    second_demos: list[IsolatedDemo],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo = start_demo()
    before = _signed_in(demo, "suzuki")
    assert demo.walk() == 0, capsys.readouterr()
    # The second demonstration took no settings of this process, and has left nothing.
    (second,) = second_demos
    assert list((tmp_path / "second").iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(second.url.rpartition(":")[2]))) != 0
    assert MovableClock(time, file=clock_file(demo.folder)).offset == 0
    assert before.get("/articles").status_code == 200  # hours would have ended it
    records = (demo.folder / "app.log").read_text(encoding="utf-8")
    assert DEMO_PASSWORD not in records
    assert "__Host-mks-session=" not in records
    assert not re.search(r"otpauth://[^\[]", records)

    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    for port in (demo.https, demo.http):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
def test_the_walk_passes_on_postgresql_and_redis(
    start_demo: Callable[..., Any], postgres_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = start_demo(DATABASE_URL=postgres_url, MKS_REDIS_URL=redis_url)
    assert demo.walk() == 0, capsys.readouterr()


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"zz\r\n{}\r\n0\r\n\r\n", 400),
        (b"-1\r\n{}\r\n0\r\n\r\n", 400),
        (b"2\r\n{}0\r\n\r\n", 400),
        (b"2\r\n{}\r\n0\r\n\r\n", 422),
        (b"10000\r\n" + b" " * 65_536 + b"\r\n", 413),
    ],
    ids=["no number", "negative", "no end of a chunk", "whole", "larger than allowed"],
)
def test_a_body_in_chunks_is_read_whole_or_refused_in_words(
    shared_demo: Any, chunks: bytes, status: int
) -> None:
    """gunicorn finds out while it is read; a proxy in front would have found out before."""
    body = chunks * 17 + b"0\r\n\r\n" if status == 413 else chunks
    context = ssl.create_default_context(cafile=shared_demo.ca)
    head = f"POST /api/auth/login HTTP/1.1\r\nHost: localhost:{shared_demo.https}\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        socket.create_connection(("localhost", shared_demo.https), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(head.encode() + body)
        answer = b""
        with suppress(OSError):
            while part := connection.recv(65_536):
                answer += part
    assert int(answer.split()[1]) == status, answer[:300]
    assert b"application/problem+json" in answer


@pytest.mark.slow
def test_reports_survive_the_death_of_everything(start_demo: Callable[..., Any], tmp_path: Path) -> None:
    demo = start_demo()
    visitor = BrowserClient(demo.url, demo.ca)
    assert visitor.sign_in("kobayashi", DEMO_PASSWORD).status_code == 303
    body = {"kind": "monthly", "subject": "2025-11", "format": "pdf"}
    asked = [
        visitor.api("POST", "/api/reports", {**body, "key": f"{number:016d}"}).json()["id"]
        for number in range(12)
    ]
    for process in _family(demo.process.pid):  # workers in the middle of a report, masters, launcher
        os.kill(process, signal.SIGKILL)
    demo.process.wait(10)
    with closing(sqlite3.connect(demo.folder / "knowledge.db")) as database:
        (left,) = database.execute(
            "SELECT count(*) FROM mks_task WHERE name = 'reports.write' AND state <> 'done'"
        ).fetchone()
    assert left > 0
    again = start_demo()
    visitor = BrowserClient(again.url, again.ca)
    assert visitor.sign_in("kobayashi", DEMO_PASSWORD).status_code == 303
    deadline = time.monotonic() + 100  # what was being written is taken again when its lease is over
    for each in asked:  # one after another, below the limit of how often a client may ask
        while visitor.api("GET", f"/api/tasks/{each}").json()["state"] != "done":
            assert time.monotonic() < deadline
            time.sleep(0.3)
    result = Counter[str]()
    while len(result) < len(asked):
        assert time.monotonic() < deadline
        time.sleep(0.3)
        texts = [message["text"] for message in read_messages(again.folder / "sink", limit=200)]
        result = Counter(each for each in asked for text in texts if each in text)
    # One mail each; one more at most for each of the two threads that were killed.
    assert sum(result.values()) <= len(asked) + 2


def _family(pid: int) -> list[int]:
    """A process and all that it started, the youngest first."""
    return [*(each for child in _children(pid) for each in _family(child)), pid]


@pytest.mark.slow
@pytest.mark.redis
def test_the_walk_passes_on_celery_where_a_broker_is_named(
    start_demo: Callable[..., Any], redis_server: Any, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(redis_server.client().client_list())
    demo = start_demo(MKS_CELERY_BROKER_URL=redis_url)
    assert demo.walk() == 0, capsys.readouterr()
    records = (demo.folder / "app.log").read_text(encoding="utf-8")
    assert '"logger":"celery.app.trace"' in records  # it was Celery that wrote the report
    assert list(demo.folder.glob("celerybeat-schedule*"))
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0
    assert len(redis_server.client().client_list()) == before


@pytest.mark.postgres
def test_with_the_database_gone_answers_say_when_to_come_back_and_one_alert_goes_out(
    start_demo: Callable[..., Any], postgres_url: str, postgres_server: Any
) -> None:
    demo = start_demo(DATABASE_URL=postgres_url)
    visitor = BrowserClient(demo.url, demo.ca)
    assert visitor.sign_in("tanaka", DEMO_PASSWORD).status_code == 303
    postgres_server.kill()
    for _ in range(5):
        page = visitor.get("/articles/1")
        assert page.status_code == 503
        assert page.headers["Retry-After"]
    assert visitor.get("/livez").status_code == 200
    assert visitor.get("/readyz").status_code == 503

    def alerts() -> int:
        return sum(message["channel"] == "slack" for message in read_messages(demo.folder / "sink"))

    wait_until(lambda: alerts() > 0, what="an alert")
    assert alerts() <= 3
    postgres_server.start()
    deadline = time.monotonic() + 30
    while visitor.get("/articles/1").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.redis
@pytest.mark.postgres
def test_with_redis_gone_people_go_on_reading_and_nothing_is_lost(
    start_demo: Callable[..., Any], postgres_url: str, redis_server: Any
) -> None:
    demo = start_demo(DATABASE_URL=postgres_url, MKS_REDIS_URL=redis_server.url, MKS_GUNICORN_WORKERS="1")
    visitor = _signed_in(demo, "tanaka")
    assert visitor.get("/articles").status_code == 200
    redis_server.kill()
    assert visitor.get("/articles").status_code == 200
    assert visitor.get("/articles/1").status_code == 200
    assert visitor.get("/livez").status_code == 200
    ready = visitor.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    refused = BrowserClient(demo.url, demo.ca).sign_in("suzuki", DEMO_PASSWORD)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    redis_server.start()
    _signed_in(demo, "suzuki")


@pytest.mark.redis
def test_workers_killed_in_the_middle_lose_nothing_that_was_answered(
    start_demo: Callable[..., Any], redis_server: Any
) -> None:
    demo = start_demo(MKS_REDIS_URL=redis_server.url)
    visitors = [_signed_in(demo, name) for name in ("tanaka", "suzuki", "sato", "yamamoto")]
    answers = dict[str, int]()

    def write(number: int) -> None:
        for turn in range(8):
            mark = f"印{number}-{turn}印"
            answers[mark] = 0  # not known, until an answer comes
            with suppress(requests.RequestException):
                article = 1 + 8 * number + turn
                visitors[number].get(f"/articles/{article}")
                answers[mark] = (
                    visitors[number].post(f"/articles/{article}/comments", {"body": mark}).status_code
                )

    with ThreadPoolExecutor(len(visitors)) as pool:
        at_work = [pool.submit(write, number) for number in range(len(visitors))]
        master = _serving(demo.process.pid)
        for worker in _children(master):
            known = len(answers)
            wait_until(lambda known=known: len(answers) > known + 3 or all(each.done() for each in at_work))
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda gone=worker: len({*_children(master)} - {gone}) == 2, what="another worker")
        for each in at_work:
            each.result()
    assert set(answers.values()) <= {0, 303, 503}
    written = [mark for mark, status in answers.items() if status == 303]
    assert len(written) > 12
    with closing(sqlite3.connect(demo.folder / "knowledge.db")) as database:
        stored = Counter(body for (body,) in database.execute("SELECT body FROM comments"))
        of_others = {body for (body,) in database.execute(_OF_OTHERS)}
        mails = database.execute("SELECT arguments FROM mks_task WHERE name = 'mks.mail' AND state <> 'dead'")
        asked = [json.dumps(json.loads(each), ensure_ascii=False) for (each,) in mails]
    assert {mark: stored[mark] for mark in written} == dict.fromkeys(written, 1)
    assert all(stored[mark] <= (status in {0, 303}) for mark, status in answers.items())
    assert all(any(mark in mail for mail in asked) for mark in of_others & {*written})
    for visitor in visitors:  # nobody has to sign in again
        assert visitor.get("/articles").status_code == 200


_OF_OTHERS = (
    "SELECT c.body FROM comments c JOIN articles a ON a.id = c.article_id WHERE c.author_id <> a.author_id"
)
"""Remarks of which the author of the article hears by mail."""


def _children(pid: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    ]


def _serving(launcher: int) -> int:
    """The master of the application among what the launcher has started."""
    command = {child: Path(f"/proc/{child}/cmdline").read_text() for child in _children(launcher)}
    (master,) = (child for child, words in command.items() if "demo.application" in words)
    return master


def test_an_error_reaches_the_tracker_once_and_names_nobody(
    start_demo: Callable[..., Any], http_sink: Any
) -> None:
    demo = start_demo(SENTRY_DSN=f"http://key@127.0.0.1:{http_sink.port}/7")
    admin = _signed_in(demo, "ito")
    admin.get("/diagnostics")
    failed = admin.post("/diagnostics/error", {})
    assert failed.status_code == 500
    http_sink.wait_for(timeout=60)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0  # what waited is sent at the end
    bodies = [gzip.decompress(sent.body).decode() for sent in http_sink.requests]
    events = [json.loads(line) for body in bodies for line in body.splitlines()[2::2]]
    # A machine that is late may log other errors, of which the alerts tell as well.
    (event,) = [each for each in events if "exception" in each and "RuntimeError" in str(each["exception"])]
    assert event["tags"] == {"request_id": failed.headers["X-Request-ID"]}
    for part in (DEMO_PASSWORD, "@knowledge.example", "127.0.0.1", "csrf_token="):
        assert part not in "".join(bodies)


def _signed_in(demo: Any, name: str) -> BrowserClient:
    """Where the machine is late, a first answer may be 503 with Retry-After: a budget was used up."""
    visitors = list[BrowserClient]()

    def done() -> bool:
        visitors.append(BrowserClient(demo.url, demo.ca))
        return visitors[-1].sign_in(name, DEMO_PASSWORD).status_code == 303

    wait_until(done, timeout=60)
    return visitors[-1]


def test_a_busy_port_is_named_with_the_way_out(tmp_path: Path, run_command: Run, free_port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_command("demo", "--data", tmp_path, "--https-port", port, "--http-port", free_port)
    assert done.returncode == 3
    assert f"port {port} is in use" in done.stderr
    assert "MKS_DEMO_HTTPS_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_configuration_stops_at_once_with_every_error_once(tmp_path: Path, run_command: Run) -> None:
    wrong = {
        "MKS_SESSION_IDLE_TIMEOUT": "soon",
        "MKS_SMTP_PORT": "mail",
        "MKS_LOG_LEVEL": "LOUD",
        "MKS_AREAS_OFF": "cache,kitchen",
        "MKS_SECRET_KEYS": "short",
        "DATABASE_URL": "oracle://scott:tiger@db/x",
        "MKS_REDIS_URL": "http://cache",
    }
    done = run_command("demo", "--data", tmp_path, **wrong)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "tiger" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert len(lines) == len(wrong)
    for name in wrong:
        assert sum(name in line for line in lines) == 1, (name, done.stderr)


@pytest.mark.parametrize(
    ("name", "value"), [("MKS_DEMO_HTTPS_PORT", "https"), ("MKS_DEMO_HTTP_PORT", "70000")]
)
def test_invalid_ports_are_refused(tmp_path: Path, run_command: Run, name: str, value: str) -> None:
    done = run_command("demo", "--data", tmp_path, **{name: value})
    assert done.returncode == 2
    assert name in done.stderr


@pytest.mark.parametrize("name", ["demo", "seed", "upgrade"])
def test_a_database_that_is_away_is_named_without_its_password(
    tmp_path: Path, run_command: Run, free_port: int, name: str
) -> None:
    url = f"postgresql+psycopg://app:tiger@127.0.0.1:{free_port}/knowledge"
    ports = {"MKS_DEMO_HTTPS_PORT": str(free_port), "MKS_DEMO_HTTP_PORT": str(free_port)}
    as_demo = ["--demo"] if name != "demo" else []
    done = run_command(name, "--data", tmp_path, *as_demo, DATABASE_URL=url, **ports)
    assert done.returncode == 4
    assert "the database cannot be used" in done.stderr
    assert str(free_port) in done.stderr
    assert "tiger" not in done.stderr
    assert "Traceback" not in done.stderr


def test_seed_and_totp_on_the_command_line(tmp_path: Path, run_command: Run) -> None:
    assert "件を追加しました" in run_command("seed", "--data", tmp_path, "--articles", 120).stdout
    assert "記事 0 件" in run_command("seed", "--data", tmp_path, "--articles", 120).stdout
    assert run_command("upgrade", "--data", tmp_path).returncode == 0
    shown = run_command("totp", "JBSW Y3DP", "EHPK 3PXP JBSW Y3DP EHPK 3PXP").stdout
    assert re.match(r"\d{6}  \(あと \d+ 秒\)", shown)
    assert run_command("totp", "1").returncode == 2


def test_a_demo_starts_at_the_real_time_again_and_one_terminate_signal_ends_all(
    start_demo: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    MovableClock(time, file=clock_file(folder)).advance(9 * 3600)
    demo = start_demo()
    assert MovableClock(time, file=clock_file(demo.folder)).offset == 0
    demo.process.terminate()
    assert demo.process.wait(60) == 0
    for port in (demo.https, demo.http):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_walk_fails_loudly_where_nothing_listens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    (tmp_path / "ca.pem").write_text("")
    url = f"http://localhost:{free_port}"
    assert walkthrough.run(url, http_url=url, ca_file=tmp_path / "ca.pem") == 1
    (result,) = capsys.readouterr().err.splitlines()
    assert "make demo" in result
