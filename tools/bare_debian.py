"""Time the way from a bare Debian to a working site, by the page about an application of one's own.

A new Debian from debootstrap gets its packages from the distribution and from PyPI; systemd runs in namespaces. The
application has PostgreSQL, Redis and Celery, and belongs to the tests. ``make verify-deploy`` writes the figure.
"""

from __future__ import annotations

import ctypes
import http.client
import http.server
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

PAGE = ROOT / "docs/en/how-to/own-application.md"
APPLICATION = ROOT / "deploy/tests/apps/flask_jobs"
HOST, PROXY = "shop.example.test", 3128
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# What a server has that nobody has logged on to yet, and curl, which looks at the site.
_INCLUDED = "systemd,systemd-sysv,dbus,mount,iproute2,curl"
_SETTINGS = """
[edge]
ipv6 = false
[app]
migrate = ["python", "jobs.py", "migrate"]
"""
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the first command of the page to a task that is done, and those of apt and pip in them."""

    whole: float
    fetching: float


def measure(debian: Path | None = None) -> Times:
    """Carry out the commands of the page.

    Args:
        debian: folder that debootstrap wrote; it is not changed. A new one by default.

    Raises:
        AssertionError: a command fails, or the site does not respond.
        RuntimeError: a task is not done within a minute.
    """
    from deploy_machine import Machine

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mksb")))
        if debian is None:
            debian = folder / "debian"
            words = ["debootstrap", "--variant=minbase", f"--include={_INCLUDED}", "trixie", str(debian)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        wheels, source = folder / "wheels", folder / "source"
        shutil.copytree(APPLICATION, source)
        _lock(source, wheels)
        machine = Machine(folder, root=debian)
        stack.callback(machine.stop)
        machine.start()
        _connect(machine, stack, wheels)
        started = time.monotonic()
        _describe(source)
        shutil.copytree(source, machine.path("/root/kit"))
        fetching = 0.0
        variables = {"PIP_PROXY": f"http://127.0.0.1:{PROXY}", "PIP_CERT": "/root/certificates.pem"}
        variables |= {"PIP_FIND_LINKS": "/root/wheels", "DEBIAN_FRONTEND": "noninteractive"}
        for line in commands():
            before = time.monotonic()
            print(f"# {line}", flush=True)
            print(machine.run("sh", "-c", f"cd /root/kit && {line}", variables=variables)[-2000:], flush=True)
            if re.match(r"apt-get |\S+/pip ", line):
                fetching += time.monotonic() - before
        ask = ["curl", "-fsk", "--max-time", "60", "--resolve", f"{HOST}:443:127.0.0.1"]
        machine.run(*ask, "--data", "text=21", f"https://{HOST}/jobs")
        for _ in range(120):
            if machine.run(*ask, f"https://{HOST}/jobs/21") == "42":
                return Times(time.monotonic() - started, fetching)
            time.sleep(0.5)
        raise RuntimeError("the task was not done")


def commands() -> list[str]:
    """Return the commands of the page for a host without ssh; there is no provider of certificates here."""
    section = PAGE.read_text("utf-8").partition("(own-host)=")[2].partition("\n(own-later)=")[0]
    block = next(each for each in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) if "apt-get" in each)
    lines = [line.replace(" apply ", " apply --no-certificate ") for line in block.splitlines()]
    update = "apt-get -qq update"  # debootstrap leaves no lists
    return [update, *(line.replace("apt-get install", "apt-get -qq install") for line in lines)]


def _lock(source: Path, wheels: Path) -> None:
    """Build our wheels, which are on no index, and lock the requirements with hashes, as the page presupposes."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(wheels),
    ]
    subprocess.run([*build, str(ROOT), str(ROOT / "check"), str(ROOT / "deploy")], check=True)
    requirements = source / "requirements.txt"
    wanted = requirements.with_suffix(".in")
    wanted.write_text(f"{requirements.read_text('utf-8')}\nmks-deploy\ngunicorn\n", "utf-8")
    compiled = [str(ROOT / ".venv-uv/bin/uv"), "pip", "compile", "-q", "--generate-hashes", "--no-header"]
    compiled += ["--python-version", "3.13", "--find-links", str(wheels), "--no-emit-find-links"]
    subprocess.run([*compiled, str(wanted), "-o", str(requirements)], check=True)


def _describe(source: Path) -> None:
    """``init``, ``secrets``, ``render`` and a commit, as the page says."""
    given = {"SECRET_KEY": "x", "DATABASE_URL": "postgresql:///x"}
    given |= {"REDIS_URL": "redis://localhost", "CELERY_BROKER_URL": "redis://localhost"}
    kit = [sys.executable, "-m", "mks_deploy"]
    words = [
        "--name",
        "shop",
        "--host",
        HOST,
        "--mail",
        "ops@example.test",
        "--python",
        sys.executable,
        "--yes",
    ]
    environ = {**os.environ, **given}
    subprocess.run([*kit, "init", str(source), *words], check=True, env=environ, stdout=subprocess.DEVNULL)
    from deploy_settings import deployed

    settings = source / "deploy.toml"
    settings.write_text(deployed(_SETTINGS, base=settings.read_text("utf-8")), "utf-8")
    for words in (["secrets"], ["render", "--out", "out"]):
        subprocess.run([*kit, *words], check=True, cwd=source, stdout=subprocess.DEVNULL)
    for words in (["init", "-q"], ["add", ".", ":!secrets", ":!out"], ["commit", "-qm", "x"]):
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *words]
        subprocess.run(git, check=True, cwd=source)


# --- the machine's way to the packages ------------------------------------------------------------


def _connect(machine: object, stack: ExitStack, wheels: Path) -> None:
    """Give the machine, whose network is its own, a proxy for apt and pip."""
    from deploy_machine import Machine

    assert isinstance(machine, Machine)
    listening = list[socket.socket]()

    def listen() -> None:  # in a thread of its own, which alone changes its namespace
        with machine.namespace("net").open("rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        listening.append(socket.create_server(("127.0.0.1", PROXY)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    stack.enter_context(_proxy(listening[0]))
    options = f'Acquire::http::Proxy "http://127.0.0.1:{PROXY}";\nAPT::Get::Assume-Yes "true";\n'
    # The clock of a machine of tests may be wrong.
    options += 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\n'
    machine.write("/etc/apt/apt.conf.d/99proxy", options)
    machine.write("/root/certificates.pem", Path(_CERTIFICATES).read_text("utf-8"))
    shutil.copytree(wheels, machine.path("/root/wheels"))


@contextmanager
def _proxy(listening: socket.socket) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Enough of a proxy for apt (absolute addresses) and pip (tunnels)."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), 60) as there:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: there, there: self.connection}
            while True:
                for end in select.select(list(ends), [], [], 120)[0]:
                    data = end.recv(65_536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        connection = http.client.HTTPConnection(parts.netloc, timeout=120)
        fields = {
            name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")
        }
        connection.request("GET", parts.path, headers={**fields, "Connection": "close"})
        with connection.getresponse() as response:
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in {"transfer-encoding", "connection"}:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(response, self.wfile)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> int:
    """Measure once; the first argument may name a folder that debootstrap wrote."""
    times = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"{times.whole / 60:.1f} minutes, {times.fetching / 60:.1f} of them apt and pip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
