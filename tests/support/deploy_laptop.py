"""A laptop that sets up machines over OpenSSH, as operators do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_machine import APT, PREFIX, ROOT, Machine
from deploy_settings import deployed
from mks_deploy.cli import main
from testbed.polling import wait_until
from testbed.services import program

if TYPE_CHECKING:
    import pytest

APPLICATIONS = ROOT / "deploy" / "tests" / "apps"
HOST = "shop.example.test"

_DAEMON = """
Port 2222
ListenAddress {address}
HostKey /etc/ssh/test_key
AuthorizedKeysFile /etc/ssh/test_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""

_CLIENT = """
Host server shop.example.test
HostName 127.0.0.1

Host *
Port 2222
User root
IdentityFile {folder}/key
IdentitiesOnly yes
UserKnownHostsFile {folder}/known
StrictHostKeyChecking yes
"""

# The index of packages cannot be reached: the environment is there, as pip would leave it.
_PYTHON = '#!/bin/sh\n[ "$1 $2" = "-m venv" ] && [ -d "$3" ] && exit 0\nexec /usr/bin/python3 "$@"\n'


class Laptop:
    """This machine, in the network of others, with a key that leads to their root.

    Args:
        machines: the others, by address; the first one reaches all of them.
        folder: an empty folder.
    """

    def __init__(self, machines: Mapping[str, Machine], folder: Path) -> None:
        self._machine, self._folder = next(iter(machines.values())), folder
        for name in ("key", "host"):
            subprocess.run(
                [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
            )
        (folder / "config").write_text(_CLIENT.format(folder=folder))
        key = (folder / "host.pub").read_text()
        (folder / "known").write_text("".join(f"[{address}]:2222 {key}" for address in machines))
        self._daemons = [self._let_in(address, machine) for address, machine in machines.items()]
        for address in machines:
            wait_until(lambda at=address: "SSH" in self._banner(at), timeout=30, what="sshd")  # type: ignore[misc]  # bound now

    def _let_in(self, address: str, machine: Machine) -> subprocess.Popen[bytes]:
        machine.write("/etc/ssh/test_key", (self._folder / "host").read_text(), mode=0o600)
        machine.write("/etc/ssh/test_keys", (self._folder / "key.pub").read_text())
        machine.write("/etc/ssh/test_config", _DAEMON.format(address=address))
        machine.run("mkdir", "-p", "/run/sshd")
        # The shell of ssh reads this machine's, which may lead to another Python.
        machine.write("/root/.bashrc", "")
        machine.write("/usr/local/bin/python3", _PYTHON, mode=0o755)
        machine.write("/usr/local/bin/apt-get", APT, mode=0o755)
        words = ("/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/test_config")
        return machine.background(*words, variables={})

    def _banner(self, address: str) -> str:
        code = "import socket, sys; print(socket.create_connection((sys.argv[1], 2222), 5).recv(3))"
        return self._machine.run(f"{PREFIX}/python/bin/python3", "-c", code, address, check=False)

    def stop(self) -> None:
        """End the daemons of ssh."""
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait(10)

    def up(self, *words: str, seconds: int = 300) -> tuple[int, str]:
        """Run ``mks-deploy up``, and kill it after so many seconds."""
        return self.run("up", "--no-certificate", *words, seconds=seconds)

    def close_during_up(self, *words: str, when: Callable[[], bool]) -> None:
        """Kill ``mks-deploy up`` and its connections when something has happened."""
        process = subprocess.Popen(
            self._command("up", "--no-certificate", *words), stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_until(when, timeout=120, what="the moment to close the laptop")
            assert process.poll() is None, "mks-deploy up had ended"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _command(self, *words: str) -> list[str]:
        command = (sys.executable, "-m", "mks_deploy", *words, "--ssh-config", str(self._folder / "config"))
        return self._machine.in_its_network(*command)

    def run(self, what: str, *words: str, seconds: int = 300, folder: Path | None = None) -> tuple[int, str]:
        """Run a command of the kit that uses ssh, in a folder; return its exit code and output."""
        done = subprocess.run(
            ["timeout", "-s", "KILL", str(seconds), *self._command(what, *words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=folder,
        )
        return done.returncode, done.stdout


def committed_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch, application: str = "flask_guestbook", *, hosts: str = ""
) -> Path:
    for name, value in (
        ("SECRET_KEY", "only for the import"),
        ("DATABASE_URL", "postgresql:///x"),
        ("REDIS_URL", "redis://localhost"),
        ("CELERY_BROKER_URL", "redis://localhost"),
    ):
        monkeypatch.setenv(name, value)
    source = Path(shutil.copytree(APPLICATIONS / application, folder / "source"))
    words = ["--name", "shop", "--host", HOST, "--mail", "ops@example.test", "--python", sys.executable]
    assert main(["init", str(source), *words, "--yes"]) == 0
    settings = source / "deploy.toml"
    more = "[edge]\nipv6 = false\n[host]\nfirewall = true\nssh_port = 2222\n"
    more += '[app]\nmigrate = ["python", "jobs.py", "migrate"]\n' if hosts else ""
    settings.write_text(deployed(more, base=settings.read_text("utf-8")) + hosts, "utf-8")
    # Those that init made are for one host.
    shutil.rmtree(source / "secrets", ignore_errors=True)
    assert main(["secrets", "--settings", str(settings), "--secrets", str(source / "secrets")]) == 0
    author = ("-c", "user.name=x", "-c", "user.email=x@example.test")
    code = sorted(path.name for path in (APPLICATIONS / application).iterdir() if path.name[0] not in "._")
    for words in (["init", "-q"], ["add", *code], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", source, *words], check=True)
    return source


def make_version(machine: Machine, version: str) -> None:
    machine.make_environment(f"/opt/shop/versions/{version}")
    machine.write(f"/opt/shop/versions/{version}/venv/bin/pip", "#!/bin/sh\n", mode=0o755)
