"""A temporary second demonstration with default settings, free ports and its own session clock."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from knowledge_system.demo.processes import running, wait_until
from knowledge_system.demo.visitor import WalkthroughError, is_live

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
        WalkthroughError: the server does not respond within a minute.
    """
    with TemporaryDirectory(prefix="knowledge-walk-") as name:
        https, http = _free_ports()
        demo = IsolatedDemo(f"https://localhost:{https}", Path(name) / "tls" / "ca.pem")
        ports = ["--https-port", str(https), "--http-port", str(http)]
        command = [sys.executable, "-m", "knowledge_system", "demo", "--data", name, *ports]
        variables = {key: value for key, value in os.environ.items() if not key.startswith(_OWN_VARIABLES)}
        # The launcher stops its child processes in order.
        with running(command, variables, stop_seconds=_STOP_SECONDS) as process:
            if not wait_until(lambda: demo.ca_file.exists() and is_live(demo.url, demo.ca_file), [process]):
                raise WalkthroughError("the demonstration for the clock did not start")
            yield demo


def _free_ports() -> tuple[int, int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socket.socket())) for _ in range(2)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        first, second = (int(probe.getsockname()[1]) for probe in probes)
        return first, second
