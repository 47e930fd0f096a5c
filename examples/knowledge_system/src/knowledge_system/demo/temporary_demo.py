"""A temporary second demonstration with default settings, free ports and its own session clock."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from knowledge_system.demo.visitor import WalkthroughError, is_live

_READY_SECONDS = 60
_STOP_SECONDS = 20
_OWN_VARIABLES = ("MKS_", "DATABASE_URL")


class IsolatedDemo(NamedTuple):
    """URL of the demonstration, and the CA of its certificate."""

    url: str
    ca_file: Path


@contextmanager
def isolated_demo() -> Iterator[IsolatedDemo]:
    """Run a demonstration in a temporary directory, which is removed on exit.

    Raises:
        Broken: the server does not respond within a minute.
    """
    with TemporaryDirectory(prefix="knowledge-walk-") as name:
        https, http = _free_ports()
        demo = IsolatedDemo(f"https://localhost:{https}", Path(name) / "tls" / "ca.pem")
        ports = ["--https-port", str(https), "--http-port", str(http)]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "knowledge_system", "demo", "--data", name, *ports],
            env={key: value for key, value in os.environ.items() if not key.startswith(_OWN_VARIABLES)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, demo)
            yield demo
        finally:
            # The launcher stops its child processes in order.
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports() -> tuple[int, int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socket.socket())) for _ in range(2)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        first, second = (int(probe.getsockname()[1]) for probe in probes)
        return first, second


def _wait_until_ready(process: subprocess.Popen[bytes], demo: IsolatedDemo) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if demo.ca_file.exists() and is_live(demo.url, demo.ca_file):
            return
        time.sleep(0.1)
    raise WalkthroughError("the demonstration for the clock did not start")
