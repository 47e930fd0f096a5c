"""Rotation by the rendered logrotate file while processes write: every line is there, once."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_host import Host
from testbed.services import program

PROCESSES, LINES = 4, 3000


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host(upkeep="log_days = 100")
    try:
        host.render()
        yield host
    finally:
        host.stop()


def rotate(host: Host, *more: str) -> subprocess.CompletedProcess[str]:
    logs = host.path("logs")
    # The unit has an account of its own; as root, logrotate refuses a folder that its group may write to.
    logs.chmod(0o750)
    command = [
        program("logrotate"),
        *more,
        "--state",
        logs / ".logrotate",
        host.path("config") / "logrotate.conf",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_logrotate_has_nothing_to_say(host: Host) -> None:
    done = rotate(host, "--debug")
    assert done.returncode == 0
    assert "error" not in done.stderr
    assert "warning" not in done.stderr.replace("warning: logrotate in debug mode does nothing", "")


@pytest.mark.parametrize("logs", ["logs", "nginx_logs"])
def test_files_are_kept_by_age_and_not_by_number(logs: str) -> None:
    """A file that grows fast is rotated several times a day; its lines are kept as long as those of a quiet one."""
    host = Host(upkeep="log_days = 30")
    try:
        host.render()
        folder = host.path(logs)
        folder.chmod(0o750)
        live, now = folder / "site.log", time.time()
        old = {f"site.log-20261001-{number}.gz": 0.5 for number in range(1790000000, 1790000040)}
        old |= {"site.log-20261001-1790000200.gz": 29.0, "site.log-20261001-1790000201.gz": 32.0}
        for name, days in old.items():
            (folder / name).write_bytes(gzip.compress(b"line"))
            os.utime(folder / name, (now - days * 86_400,) * 2)
        live.write_text("line\n")
        rendered = (
            host.path("config") / "logrotate.conf" if logs == "logs" else host.root / "etc/logrotate.d/nginx"
        )
        command = [program("logrotate"), "--force", "--state", folder / ".logrotate", rendered]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        left = {file.name for file in folder.glob("site.log-*.gz")}
        assert old.keys() - left == {"site.log-20261001-1790000201.gz"}
        assert len([file for file in folder.glob("site.log-*") if file.suffix != ".gz"]) == 1
        assert live.stat().st_size == 0
    finally:
        host.stop()


@pytest.mark.slow
def test_no_line_is_lost_while_four_processes_write(host: Host) -> None:
    log = host.path("logs") / "app.log"
    writers = [
        subprocess.Popen([sys.executable, _writer(), log, str(number), str(LINES)], stdout=subprocess.DEVNULL)
        for number in range(PROCESSES)
    ]
    rotations = 0
    while any(writer.poll() is None for writer in writers):
        time.sleep(1.05)  # the names of rotated files have the second in them
        done = rotate(host, "--force")
        assert done.returncode == 0, done.stderr
        rotations += 1
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    found = Counter(_numbers(host.path("logs")))
    whole = {(process, number) for process in range(PROCESSES) for number in range(LINES)}
    assert rotations >= 3
    assert found.keys() == whole
    assert set(found.values()) == {1}


def _writer() -> Path:
    import deploy_writer

    return Path(str(deploy_writer.__file__))


def _numbers(folder: Path) -> Iterator[tuple[int, int]]:
    for file in folder.glob("app.log*"):
        data = file.read_bytes()
        text = gzip.decompress(data) if file.suffix == ".gz" else data
        for line in text.splitlines():
            record = json.loads(line)
            yield record["process_number"], record["number"]
