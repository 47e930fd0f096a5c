"""systemd units as systemd-analyze sees them, and the application under what they forbid."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy_host import HOST, Host
from mks_deploy.rendering import render
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from testbed.process import ServerProcess
from testbed.redis_server import RedisServer
from testbed.services import program, unavailable

MOST_EXPOSURE = 1.2


@pytest.fixture(scope="module", params=["nginx", "direct"])
def units(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of units whose programs exist."""
    host = Host(mode=request.param, environment="staging", upkeep="mail_sink = true")
    try:
        folder = host.folder / "units"
        folder.mkdir()
        text = (
            f'{host.settings_text()}\n[offsite]\nrepository = "sftp:backup@backup.example.jp:/srv/copies"\n'
        )
        for file in render(read_settings(text), Installed()):
            if file.path.startswith("etc/systemd/system/"):
                text = re.sub(r"/usr/bin/certbot|/usr/sbin/logrotate", "/bin/true", file.text)
                (folder / Path(file.path).name).write_text(text)
                for command in re.findall(r"(?m)^Exec\w+=\+?(\S+)", text):
                    stub = Path(command.replace("%i", "test_instance"))
                    stub.parent.mkdir(parents=True, exist_ok=True)
                    if not stub.exists():
                        shutil.copy("/bin/true", stub)
        yield folder
    finally:
        host.stop()


def test_the_end_of_a_unit_takes_nothing_from_a_server_of_the_same_account(units: Path) -> None:
    """``RemoveIPC`` takes away the shared memory of the account, and PostgreSQL with it."""
    text = (units / "knowledge-system-base.service").read_text()
    assert "\nUser=postgres\n" in text
    assert re.findall(r"(?m)^RemoveIPC=(\w+)$", text)[-1] == "no"


def test_exposure_stays_below_the_limit(units: Path) -> None:
    exposure = {}
    for unit in sorted(units.glob("*.service")):
        done = subprocess.run(
            [program("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit],
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"Overall exposure level for \S+ ([0-9.]+)", done.stdout)
        assert found is not None, done.stdout
        exposure[unit.name] = float(found[1])
    assert len(exposure) >= 7
    assert max(exposure.values()) <= MOST_EXPOSURE, exposure


def test_systemd_understands_every_line(units: Path) -> None:
    done = subprocess.run(
        [program("systemd-analyze"), "verify", *sorted(units.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("unit", "lines"),
    [
        (
            "knowledge-system@.service",
            [
                "Type=notify",
                "KillMode=mixed",
                "Requires=knowledge-system@%i.socket",
                "StartLimitBurst=10",
                "TimeoutStopSec=45",
            ],
        ),
        (
            "knowledge-system-worker.service",
            ["Type=exec", "KillMode=mixed", "TimeoutStopSec=45", "TasksMax=96"],
        ),
        ("knowledge-system-beat.service", ["Type=exec", "RuntimeDirectory=knowledge-system-beat"]),
        ("knowledge-system-renew.service", ["User=knowledge-system-acme", "SystemCallFilter=@chown"]),
        ("knowledge-system-logrotate.service", ["PrivateNetwork=yes"]),
    ],
)
def test_each_unit_is_what_its_program_needs(unit: str, lines: list[str]) -> None:
    host = Host()
    try:
        texts = {
            Path(file.path).name: file.text
            for file in render(read_settings(host.settings_text()), Installed())
        }
    finally:
        host.stop()
    assert [line for line in lines if line not in texts[unit].splitlines()] == []
    if not unit.endswith(("renew.service", "logrotate.service")):
        assert "LoadCredential=secret_keys:" in texts[unit]
    assert "OnFailure=knowledge-system-alert@%n.service" in texts[unit]


# --- the real application under what its unit forbids -------------------------------------------

# Everything is read-only but for what ReadWritePaths names; then no way to rights and no capability (root all the
# same: another account need not be able to read this tree), and no memory that is writable and executable at once
# (prctl 65, PR_SET_MDWE, Linux 6.3). The socket is handed over as the socket unit does.
CONFINED = """
set -eu
for folder in "$@"; do mount --bind "$folder" "$folder"; done
mount -t tmpfs tmpfs /var/tmp
mount -o remount,bind,ro /
exec setpriv --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
    strace --kill-on-exit -f -qq -e signal=none -o "$TRACE" "$PYTHON" -c '
import ctypes, json, os, sys
assert ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0) == 0, "this kernel has no PR_SET_MDWE"
if os.environ.get("SOCKET"):
    os.dup2(int(os.environ["SOCKET"]), 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", *json.loads(os.environ["WORDS"])])'
"""


@pytest.fixture
def host(redis_server: Any, postgres_url: str) -> Iterator[tuple[Host, dict[str, str]]]:
    """A host with the real application, its database filled with tables, and the variables of its units."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        unavailable("mount namespaces", "need root and a kernel that allows them")
    program("strace")
    host = Host(application="knowledge_system.app:from_env()")
    try:
        host.render()
        variables = host.application_variables(redis_url=redis_server.url, postgres_url=postgres_url)
        _make_tables(variables)
        yield host, variables
    finally:
        host.stop()


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
def test_the_application_needs_nothing_that_its_unit_forbids(host: tuple[Host, dict[str, str]]) -> None:
    site, variables = host
    site.socket_file().parent.mkdir()
    paths = ("/livez", "/readyz", "/sign-in", "/articles", "/api/auth/session")
    words = ["gunicorn", "-c", str(site.path("config") / "gunicorn.conf.py")]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(site.socket_file()))
        listening.listen()
        with _confined(
            site, variables, words, ready=lambda: _ask(site, "/livez") == 200, listening=listening
        ):
            answers = {path: _ask(site, path) for path in paths}
    assert answers["/livez"] == answers["/readyz"] == answers["/sign-in"] == 200, answers
    assert max(answers.values()) < 500
    _needs_nothing_more(site, "knowledge-system@.service")
    assert (site.folder / "logs/app.log").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.parametrize(("unit", "word"), [("worker", "ready."), ("beat", "beat: Starting")])
def test_tasks_need_nothing_that_their_units_forbid(
    host: tuple[Host, dict[str, str]], unit: str, word: str
) -> None:
    site, variables = host
    log = site.folder / "logs/app.log"
    with _redis_socket(site) as address:
        variables["MKS_CELERY_BROKER_URL"] = f"redis+socket://{address}?virtual_host=1"
        words = _command_of(site, f"knowledge-system-{unit}.service")
        with _confined(site, variables, words, ready=lambda: log.exists() and word in log.read_text()):
            pass
    _needs_nothing_more(site, f"knowledge-system-{unit}.service")


@contextmanager
def _redis_socket(host: Host) -> Iterator[Path]:
    """Redis on a socket of the file system, as the rendered settings want it."""
    server = RedisServer(host.folder / "redis", unix_socket=True)
    server.start()
    try:
        yield server.socket_path
    finally:
        server.stop()


def _command_of(host: Host, unit_name: str) -> list[str]:
    """The words of ``ExecStart``, as systemd would read them; the program is run as a module."""
    files = render(read_settings(host.settings_text()), Installed())
    unit = next(file.text for file in files if file.path.endswith(f"/{unit_name}"))
    found = re.search(r"(?m)^ExecStart=((?:.*\\\n)*.*)$", unit)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    runtime = str(host.folder / "state")
    return [
        Path(words[0]).name,
        *(word.replace("%%", "%").replace("%t/knowledge-system-beat", runtime) for word in words[1:]),
    ]


def _make_tables(variables: dict[str, str]) -> None:
    flask = [
        sys.executable,
        "-m",
        "flask",
        "--app",
        "knowledge_system.app:from_env()",
        "knowledge",
        "upgrade",
    ]
    subprocess.run(flask, env={**os.environ, **variables}, check=True, capture_output=True)


@contextmanager
def _confined(
    host: Host,
    variables: dict[str, str],
    words: list[str],
    *,
    ready: Callable[[], object],
    listening: socket.socket | None = None,
) -> Iterator[ServerProcess]:
    """A Python module under what the units forbid; a socket is handed over as the socket unit does."""
    writable = [host.folder / name for name in ("state", "logs")]
    own = {
        "DEPLOY_SLOT": "blue",
        "TRACE": str(host.folder / "logs/trace"),
        "PYTHON": sys.executable,
        "WORDS": json.dumps(words),
        "HOME": "/nonexistent",
        "TMPDIR": "/var/tmp",  # noqa: S108 - private here, as PrivateTmp makes it
        "SOCKET": str(listening.fileno()) if listening else "",
    }
    arguments = [f"{name}={value}" for name, value in {**variables, **own}.items()]
    confined = ["unshare", "-m", "--propagation", "private", "sh", "-c", CONFINED, "sh", *map(str, writable)]
    server = ServerProcess(
        ["env", *arguments, *confined],
        log=host.folder / "confined.out",
        ready=ready,
        identity={"pass_fds": (listening.fileno(),)} if listening else None,
    )
    try:
        server.start(timeout=90)
        yield server
    finally:
        server.stop(timeout=40)


def _needs_nothing_more(host: Host, unit_name: str) -> None:
    """Every system call that was made is one that the unit lets through."""
    files = render(read_settings(host.settings_text()), Installed())
    unit = next(file.text for file in files if file.path.endswith(f"/{unit_name}"))
    trace = (host.folder / "logs/trace").read_text(errors="replace")
    # Only root gives the folder of metrics to another account, and the unit's account is not root.
    trace = re.sub(r"(?m)^.*chown\(\"/var/tmp/mks-metrics.*$", "", trace)
    # SQLite gives its files to the owner of the database where it runs as root, and nowhere else; beat keeps its
    # schedule in one from Python 3.13 on.
    trace = re.sub(r"(?m)^.* fchown\(.*$", "", trace)
    used = set(re.findall(r"(?m)^\d+ +(\w+)\(", trace))
    assert {"execve", "mmap", "connect"} <= used
    assert used - _allowed(unit) == set()
    assert "AF_NETLINK" not in trace


def _ask(host: Host, path: str) -> int:
    done = subprocess.run(
        [
            *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20"),
            *("--unix-socket", str(host.socket_file())),
            *("-H", f"Host: {HOST}", "-H", "X-Forwarded-Proto: https", "-H", f"X-Forwarded-Host: {HOST}"),
            *("-H", "X-Forwarded-For: 203.0.113.9", f"http://{HOST}{path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout)


def _allowed(unit: str) -> set[str]:
    """The system calls that the unit's filter lets through, resolved as systemd does."""
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    groups: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            group = groups.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            group.add(line.strip())

    def members(name: str) -> set[str]:
        found = groups.get(name, set())
        return {call for call in found if not call.startswith("@")}.union(
            *(members(each) for each in found if each.startswith("@"))
        )

    allowed = set[str]()
    for line in re.findall(r"(?m)^SystemCallFilter=(.*)$", unit):
        names = set[str]().union(*(members(word) for word in line.removeprefix("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed
