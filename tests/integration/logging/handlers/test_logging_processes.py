"""Real processes: rotation by many writers, fork, SIGTERM, exit, logrotate, gunicorn workers."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

WRITER = """
import logging, sys
from mks_hardening.logging import ProcessSafeRotatingFileHandler, ReopeningFileHandler
path, kind, name, lines = sys.argv[1:5]
handler = (ReopeningFileHandler(path) if kind == "reopen" else
           ProcessSafeRotatingFileHandler(path, max_bytes=20_000, backups=500, compress=kind == "gzip"))
handler.setFormatter(logging.Formatter("%(message)s"))
logger = logging.Logger("w")
logger.addHandler(handler)
sys.stdin.read(1)
for number in range(int(lines)):
    logger.info("%s %05d %s", name, number, "x" * (number % 97))
logging.shutdown()
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    # Forking while threads run is what is tried here; Python 3.12 and later warn of it.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code, *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=90)
    return out, err


def all_lines(folder: Path, name: str) -> list[str]:
    texts = []
    for path in folder.glob(f"{name}*"):
        data = path.read_bytes()
        texts.append((gzip.decompress(data) if path.suffix == ".gz" else data).decode())
    assert all(text.endswith("\n") for text in texts if text)
    return [line for text in texts for line in text.splitlines()]


def expected(names: list[str], lines: int) -> Counter[str]:
    return Counter(f"{name} {number:05d} {'x' * (number % 97)}" for name in names for number in range(lines))


@pytest.mark.parametrize("kind", ["gzip", "plain"])
def test_four_processes_rotate_one_file_and_no_line_is_lost_torn_or_doubled(
    tmp_path: Path, kind: str
) -> None:
    names, lines = ["a", "b", "c", "d"], 3000
    writers = [start(WRITER, tmp_path / "app.log", kind, name, lines) for name in names]
    for writer in writers:
        assert finished(writer) == ("", "")
    assert Counter(all_lines(tmp_path, "app.log")) == expected(names, lines)
    assert len(list(tmp_path.glob("app.log.*"))) > 20
    if kind == "gzip":
        assert len(list(tmp_path.glob("*.gz"))) > 10


def test_logrotate_renames_while_four_processes_write(tmp_path: Path) -> None:
    names, lines = ["a", "b", "c", "d"], 3000
    path = tmp_path / "app.log"
    writers = [start(WRITER, path, "reopen", name, lines) for name in names]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("x")
        writer.stdin.flush()
    for number in range(200):
        if path.exists():
            path.rename(tmp_path / f"app.log.{number}")
        if all(writer.poll() is not None for writer in writers):
            break
        time.sleep(0.005)
    for writer in writers:
        assert finished(writer) == ("", "")
    assert Counter(all_lines(tmp_path, "app.log")) == expected(names, lines)


FORKER = """
import logging, os, sys
from mks_hardening.logging import Rotation, setup_logging
logger = setup_logging("app", log_file=sys.argv[1], rotation=Rotation(20_000, 100), queue=True, environment="t")
for number in range(50):
    logger.info("parent before %d", number)
children = []
for child in range(3):
    pid = os.fork()
    if not pid:
        for number in range(400):
            logger.info("child %d %d", child, number)
        logging.shutdown()
        os._exit(0)
    children.append(pid)
for number in range(50):
    logger.info("parent after %d", number)
for pid in children:
    os.waitpid(pid, 0)
"""


def test_children_log_on_after_a_fork_and_nothing_is_written_twice(tmp_path: Path) -> None:
    process = start(FORKER, tmp_path / "app.log")
    _, err = finished(process)
    assert err == ""
    messages = Counter(json.loads(line)["message"] for line in all_lines(tmp_path, "app.log"))
    wanted = [f"parent before {n}" for n in range(50)] + [f"parent after {n}" for n in range(50)]
    wanted += [f"child {child} {n}" for child in range(3) for n in range(400)]
    assert messages == Counter(wanted)


ENDER = """
import logging, os, signal, sys, time
from mks_hardening.logging import setup_logging
logger = setup_logging("app", log_file=sys.argv[1], queue=True)
for number in range(500):
    logger.info("n %d", number)
if sys.argv[2] == "term":
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
if sys.argv[2] == "raise":
    raise ValueError("password=hunter2")
"""


@pytest.mark.parametrize(("how", "code"), [("exit", 0), ("term", -signal.SIGTERM), ("raise", 1)])
def test_the_queue_is_drained_however_the_process_ends(tmp_path: Path, how: str, code: int) -> None:
    process = start(ENDER, tmp_path / "app.log", how)
    _, err = finished(process)
    assert process.returncode == code
    entries = [json.loads(line) for line in (tmp_path / "app.log").read_text().splitlines()]
    assert [entry["message"] for entry in entries[:500]] == [f"n {number}" for number in range(500)]
    if how == "raise":
        assert entries[500]["exception"]["message"] == "password=[REDACTED]"
        assert "hunter2" not in err
    else:
        assert err == ""


STUCK = """
import logging, os, signal, time
from mks_hardening._core.process.exit_hooks import on_exit
from mks_hardening.logging import setup_logging
class Stuck(logging.Handler):
    def emit(self, record):
        time.sleep(3600)
class Owner:
    def close(self):
        logging.getLogger("app").error("the process ends")
owner = Owner()
on_exit(owner.close)  # registered before the queue, so it runs after the queue was closed
setup_logging("app", queue=True, handlers=[Stuck()]).info("the process begins")
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_handler_that_hangs_does_not_hold_the_process(tmp_path: Path) -> None:
    process = start(STUCK, tmp_path)
    _, err = finished(process)
    assert process.returncode == -signal.SIGTERM
    assert "queue was not drained in time" in err


CRASHED = """
import os, sys
from mks_hardening.logging.handlers._rotated_log import RotatedLog
log = RotatedLog(sys.argv[1], max_bytes=2000, backups=50, compress=True)
log._put_in_place = lambda inode, packed: os._exit(0)
for number in range(100):
    log.append(b"%03d xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\n" % number, number)
log.compress()
"""


def test_what_a_crash_left_half_compressed_is_finished_by_the_next(tmp_path: Path) -> None:
    finished(start(CRASHED, tmp_path / "app.log"))
    assert list(tmp_path.glob(".app.log.*.tmp"))
    process = start(WRITER, tmp_path / "app.log", "gzip", "w", 2000)
    assert finished(process) == ("", "")
    lines = all_lines(tmp_path, "app.log")
    assert len(lines) == len(set(lines)) == 2100
    assert list(tmp_path.glob(".app.log.*.tmp")) == []


APPLICATION = """
import logging, os
from mks_hardening.logging import Rotation, setup_logging
logger = setup_logging("app", log_file=os.environ["LOG"], rotation=Rotation(20_000, 500), environment="t")

def application(environ, start_response):
    for number in range(20):
        logger.info("request", extra={"path": environ["PATH_INFO"], "number": number, "pad": "x" * 60})
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_four_gunicorn_workers_share_a_rotating_file(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(APPLICATION)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable, "-m", "gunicorn", "-w", "4", "-b", f"127.0.0.1:{port}", "--no-control-socket",
            "--chdir", str(tmp_path), "--log-level", "critical", "served:application",
        ],
        env={**os.environ, "LOG": str(tmp_path / "app.log")},
    )  # fmt: skip
    try:
        _until_served(port)
        for number in range(150):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}", timeout=10).read()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
    entries = [json.loads(line) for line in all_lines(tmp_path, "app.log")]
    seen = Counter((entry["path"], entry["number"]) for entry in entries if entry["path"] != "/probe")
    assert seen == Counter({(f"/{path}", number): 1 for path in range(150) for number in range(20)})
    assert len(list(tmp_path.glob("app.log.*"))) > 10


def _until_served(port: int) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/probe", timeout=5).read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("gunicorn does not answer")
