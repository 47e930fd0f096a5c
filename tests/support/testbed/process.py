"""One server process: start, stop, kill, freeze; its log becomes part of the error message."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.polling import free_port, wait_until


class ServerDied(RuntimeError):  # noqa: N818 - says what happened
    """The server ended, or did not become ready, during its start."""


def start_on_free_port(start: Callable[[int], None]) -> None:
    """Call a function that starts a server on a port, again if another program has taken the port meanwhile.

    Raises:
        ServerDied: the fifth attempt failed too.
    """
    for attempt in range(5):
        try:
            start(free_port())
        except ServerDied:
            if attempt == 4:
                raise
        else:
            return


class ServerProcess:
    """A child process identified by its id, which ends with the test run.

    Args:
        command: program and arguments.
        log: file that takes standard output and standard error.
        ready: asked every 10 ms; the server is up once it returns true.
        stop_signal: what ends the server in an orderly way.
        identity: further arguments of ``Popen``: the account to run as, for servers that refuse root.
        cwd: working directory.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], object],
        stop_signal: signal.Signals = signal.SIGTERM,
        identity: Mapping[str, Any] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._command = command
        self._log = log
        self._ready = ready
        self._stop_signal = stop_signal
        self._identity = identity or {}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the process exists (frozen or not)."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout: float = 20.0) -> None:
        """Start, and return when the server is ready."""
        assert not self.running, "the server is running already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_dies_with_us(self._stop_signal), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                **self._identity,
            )
        try:
            wait_until(self._is_ready, timeout=timeout, what=f"{self._command[0]}: readiness")
        except TimeoutError as error:
            self.kill()
            raise ServerDied(f"{error}\n{self.log_tail()}") from None

    def _is_ready(self) -> object:
        if not self.running:
            assert self._process is not None
            raise ServerDied(f"{self._command[0]} ended with {self._process.returncode}\n{self.log_tail()}")
        return self._ready()

    def stop(self, *, timeout: float = 10.0) -> None:
        """Stop gracefully, or kill after ``timeout`` seconds."""
        self.resume()
        self.signal(self._stop_signal)
        self._reap(timeout)

    def kill(self) -> None:
        """Kill at once, as in a power failure."""
        self.signal(signal.SIGKILL)
        self._reap(10)
        self._frozen = False

    def pause(self) -> None:
        """Freeze: the port accepts connections, nothing responds."""
        self.signal(signal.SIGSTOP)
        self._frozen = True

    def resume(self) -> None:
        """Continue a frozen server."""
        if self._frozen:
            self.signal(signal.SIGCONT)
            self._frozen = False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server, if it is running."""
        if self.running:
            os.kill(self.pid, number)

    def log_tail(self, *, lines: int = 30) -> str:
        """Return the last lines of the log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _reap(self, timeout: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._process = None


def _dies_with_us(stop_signal: signal.Signals) -> list[str]:
    """Let the kernel kill the server if the test run is killed before its clean-up."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"] if setpriv else []
