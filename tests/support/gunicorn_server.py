"""gunicorn as operators run it: with a configuration file, workers and signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from testbed.polling import accepts_connections, free_port, wait_until


class Gunicorn:
    """gunicorn in its own directory, on a free loopback port.

    Args:
        folder: where its files are written.
        config: source of ``gunicorn.conf.py``.
        program: source of the application's module; it has ``application``.
        arguments: further arguments of the command line.
        environ: further variables.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: str,
        program: str,
        arguments: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        (folder / "gunicorn.conf.py").write_text(config)
        (folder / "program.py").write_text(program)
        self.port = free_port()
        self.output = folder / "output"
        # The script: with ``-m`` the command that USR2 repeats finds gunicorn's own ``http`` first.
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", "gunicorn.conf.py"]
        command += ["--bind", f"127.0.0.1:{self.port}", *arguments, "program:application"]
        variables = {**os.environ, "PYTHONWARNINGS": "ignore", "MKS_ENV": "test", **(environ or {})}
        with self.output.open("wb") as both:
            self.process = subprocess.Popen(
                command, cwd=folder, env=variables, stdout=both, stderr=subprocess.STDOUT
            )
        if wait:
            wait_until(lambda: accepts_connections(self.port), what="gunicorn")

    def ask(self, path: str = "/", *, port: int | None = None, **headers: str) -> str:
        """Return the body of the response; empty if the connection broke."""
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", headers=headers)
        with (
            contextlib.suppress(urllib.error.HTTPError, ConnectionError),
            urllib.request.urlopen(request, timeout=60) as answer,
        ):
            body: bytes = answer.read()
            return body.decode()
        return ""

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def stop(self, timeout: float = 20) -> int:
        """Stop the server and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def text(self) -> str:
        """Return the output on both streams."""
        return self.output.read_text()

    def lines(self) -> list[dict[str, Any]]:
        """Return the output, each line parsed as JSON."""
        return [json.loads(line) for line in self.text().splitlines()]
