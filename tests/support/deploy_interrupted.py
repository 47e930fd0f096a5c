"""A host in files, and a release in its own process that is killed, or finds its disk full, at one of its steps.

What nginx has loaded and which versions run are files below ``folder``, so that they outlive the process.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy_host import as_released
from deploy_settings import deployed
from mks_deploy import cli
from mks_deploy.cli import release_commands
from mks_deploy.operations import host_steps
from mks_deploy.operations.host_steps import HostSteps
from mks_deploy.operations.release import State
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import read_settings

_STEPS = ("os.rename", "os.link", "os.symlink", "subprocess.Popen", "fcntl.flock")
"""What changes something: between two of these, a killed process leaves the same as at the second one."""


class HostInFiles:
    """Versions 1 and 2 were released; version 3 is there.

    Args:
        folder: where everything is.
        disk: folder of a file system for what a release writes; ``folder`` by default.
    """

    def __init__(self, folder: Path, disk: Path | None = None) -> None:
        self.folder, self.disk = folder, disk or folder
        self.file = folder / "deploy.toml"
        self._loaded, self._running = folder / "loaded.conf", folder / "running"

    def make(self) -> None:
        """Make it."""
        paths = "".join(f'{name} = "{self.disk / name}"\n' for name in ("releases", "nginx", "nginx_logs"))
        self._running.mkdir(parents=True)
        self.file.write_text(deployed(f"[paths]\n{paths}", '[app]\nstatic = "static"\n'))
        for version in ("1", "2", "3"):
            program = self.disk / "releases/versions" / version / "venv/bin/gunicorn"
            program.parent.mkdir(parents=True)
            program.touch()
            (program.parents[2] / "static").mkdir()
            (program.parents[2] / "static/app.css").write_text(version)
        as_released(self.settings, State("blue", "2", "1", before="1"))
        (self._running / "blue").write_text("2")
        self.run(["systemctl", "reload", "nginx.service"])

    def run(self, words: Sequence[str]) -> int:
        """Do what ``systemctl`` and ``nginx`` would."""
        sys.audit("subprocess.Popen", words[0], words, None, None)
        slot = next((slot for slot in ("blue", "green") if f"@{slot}." in words[-1]), "")
        if words[1] == "reload":
            shutil.copy(self.disk / "nginx/knowledge-system/upstream.conf", self._loaded)
        elif words[1] == "enable":
            link = self.disk / "releases/slots" / slot
            (self._running / slot).write_text(link.resolve().name)
        elif words[1] == "disable":
            (self._running / slot).unlink(missing_ok=True)
        return 0

    def ready(self, _settings: object, slot: str) -> bool:
        """Whether a slot runs."""
        return (self._running / slot).exists()

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return read_settings(self.file.read_text())

    @property
    def running(self) -> dict[str, str]:
        """The version that runs in each slot."""
        return {file.name: file.read_text() for file in self._running.iterdir()}

    @property
    def served(self) -> dict[str, int]:
        """The percentage of requests that each version gets from nginx as it runs."""
        found = re.findall(r"/(\w+)\.sock weight=(\d+) ", self._loaded.read_text())
        return {self.running[slot]: int(weight) for slot, weight in found}

    def command(self, *words: str) -> int:
        """Run a command of the kit on this host."""
        steps = functools.partial(HostSteps, command=self.run, pause=lambda _: None)
        before: Any = release_commands.HostSteps, release_commands.ready, host_steps.ready
        release_commands.HostSteps = steps  # type: ignore[misc] # with another command
        release_commands.ready = host_steps.ready = self.ready
        try:
            return cli.main([*words, "--settings", str(self.file)])
        finally:
            release_commands.HostSteps, release_commands.ready, host_steps.ready = before


def run_until(
    host: HostInFiles, step: int, *words: str, fills: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command of the kit in a process that is killed, or finds its disk full, at the step of this number.

    Args:
        host: where it runs.
        step: number of the step; with a larger one than there are, it ends by itself.
        words: command and its arguments.
        fills: whether its disk is filled instead.
    """
    command = [sys.executable, __file__, str(host.folder), str(host.disk), str(step), "-f" if fills else "-k"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([*command, *words], env=environment, capture_output=True, text=True, check=False)


def _fill(folder: Path) -> None:
    """Write until neither a byte nor a file fits any more."""
    for size in (65_536, 1):
        with suppress(OSError), (folder / "filler").open("ab", buffering=0) as stream:
            while True:
                stream.write(bytes(size))


def _at_step(number: int, action: Callable[[], object]) -> None:
    left = number

    def step(event: str, _arguments: object) -> None:
        nonlocal left
        if event in _STEPS:
            left -= 1
            if left == 0:
                action()

    sys.addaudithook(step)


def _main(folder: str, disk: str, step: str, how: str, *words: str) -> int:
    host = HostInFiles(Path(folder), Path(disk))
    end = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
    _at_step(int(step), functools.partial(_fill, host.disk) if how == "-f" else end)
    return host.command(*words)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
