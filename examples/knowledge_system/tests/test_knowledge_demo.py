"""The demonstration as people start it: one command, real processes, TLS, mail over SMTP, chat over HTTP."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from knowledge_system import walkthrough
from knowledge_system.settings import DEMO_PASSWORD
from knowledge_system.walkthrough import Visitor


class Demo(NamedTuple):
    process: subprocess.Popen[str]
    folder: Path
    https: int
    http: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def ca(self) -> Path:
        return self.folder / "tls" / "ca.pem"

    def walk(self) -> int:
        return walkthrough.run(self.url, http_url=f"http://localhost:{self.http}", ca_file=self.ca)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def clean_environment(**variables: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MKS_", "DATABASE_URL", "PYTHONWARNINGS"))
    }
    return {**kept, **variables}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "knowledge_system", *map(str, arguments)]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(**variables: str) -> Demo:
        https, http = free_ports(2)
        folder = tmp_path / f"demo{len(started)}"
        log = (tmp_path / f"demo{len(started)}.log").open("w")
        process = subprocess.Popen(
            command("demo", "--data", folder, "--https-port", https, "--http-port", http),
            env=clean_environment(**variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log.close()
        demo = Demo(process, folder, https, http)
        started.append(demo)
        deadline = time.monotonic() + 60
        while "Ctrl-C" not in Path(log.name).read_text():
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.05)
        return demo

    yield start
    for demo in started:
        demo.process.terminate()
        demo.process.wait(20)


def test_the_walk_passes_on_embedded_defaults_and_everything_ends_with_one_signal(
    start_demo: Callable[..., Demo], capsys: pytest.CaptureFixture[str]
) -> None:
    demo = start_demo()
    assert demo.walk() == 0, capsys.readouterr()
    records = (demo.folder / "app.log").read_text(encoding="utf-8")
    assert DEMO_PASSWORD not in records
    assert "__Host-mks-session=" not in records
    assert not re.search(r"otpauth://[^\[]", records)

    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(15) == 0
    for port in (demo.https, demo.http):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.redis
@pytest.mark.postgres
def test_the_walk_passes_on_postgresql_and_redis(
    start_demo: Callable[..., Demo], postgres_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = start_demo(DATABASE_URL=postgres_url, MKS_REDIS_URL=redis_url)
    assert demo.walk() == 0, capsys.readouterr()


@pytest.mark.redis
@pytest.mark.postgres
def test_with_redis_gone_people_go_on_reading_and_nothing_is_lost(
    start_demo: Callable[..., Demo], postgres_url: str, redis_server: Any
) -> None:
    demo = start_demo(DATABASE_URL=postgres_url, MKS_REDIS_URL=redis_server.url, MKS_GUNICORN_WORKERS="1")
    visitor = Visitor(demo.url, demo.ca)
    assert visitor.sign_in("tanaka", DEMO_PASSWORD).status_code == 303
    assert visitor.get("/articles").status_code == 200
    redis_server.kill()
    assert visitor.get("/articles").status_code == 200
    assert visitor.get("/articles/1").status_code == 200
    assert visitor.get("/livez").status_code == 200
    ready = visitor.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    refused = Visitor(demo.url, demo.ca).sign_in("suzuki", DEMO_PASSWORD)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    redis_server.start()
    deadline = time.monotonic() + 20
    while Visitor(demo.url, demo.ca).sign_in("suzuki", DEMO_PASSWORD).status_code != 303:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_terminate_signal_ends_all(start_demo: Callable[..., Demo]) -> None:
    demo = start_demo()
    demo.process.terminate()
    assert demo.process.wait(15) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", demo.https)) != 0


def test_a_busy_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            command("demo", "--data", tmp_path, "--https-port", port, "--http-port", free_ports(1)[0]),
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 3
    assert f"port {port} is in use" in done.stderr
    assert "MKS_DEMO_HTTPS_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_configuration_stops_at_once_with_every_fault_once(tmp_path: Path) -> None:
    wrong = {
        "MKS_SESSION_IDLE_TIMEOUT": "soon",
        "MKS_SMTP_PORT": "mail",
        "MKS_LOG_LEVEL": "LOUD",
        "MKS_AREAS_OFF": "cache,kitchen",
        "MKS_SECRET_KEYS": "short",
        "DATABASE_URL": "oracle://scott:tiger@db/x",
        "MKS_REDIS_URL": "http://cache",
    }
    done = subprocess.run(
        command("demo", "--data", tmp_path),
        env=clean_environment(**wrong),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "tiger" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert len(lines) == len(wrong)
    for name in wrong:
        assert sum(name in line for line in lines) == 1, (name, done.stderr)


@pytest.mark.parametrize(("name", "value"), [("MKS_DEMO_HTTPS_PORT", "https"), ("MKS_DEMO_HTTP_PORT", "70000")])
def test_faulty_ports_are_refused(tmp_path: Path, name: str, value: str) -> None:
    done = subprocess.run(
        command("demo", "--data", tmp_path),
        env=clean_environment(**{name: value}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert name in done.stderr


def test_seed_and_totp_on_the_command_line(tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        done = subprocess.run(
            command(*arguments), env=clean_environment(), capture_output=True, text=True, timeout=100, check=True
        )
        return done.stdout

    assert "件を追加しました" in run("seed", "--data", tmp_path, "--articles", 120)
    assert "記事 0 件" in run("seed", "--data", tmp_path, "--articles", 120)
    assert re.match(r"\d{6}  \(あと \d+ 秒\)", run("totp", "JBSW Y3DP", "EHPK 3PXP JBSW Y3DP EHPK 3PXP"))


def test_the_walk_fails_loudly_where_nothing_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.pem").write_text("")
    port = free_ports(1)[0]
    url = f"http://localhost:{port}"
    assert walkthrough.run(url, http_url=url, ca_file=tmp_path / "ca.pem") == 1
    assert "failed" in capsys.readouterr().err
