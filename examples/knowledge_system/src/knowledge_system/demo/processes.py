"""Child processes of the demonstration: started, waited for, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

Child = subprocess.Popen[bytes]

_READY_SECONDS = 60


@contextmanager
def running(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    stop_seconds: float,
    output: BinaryIO | int = subprocess.DEVNULL,
) -> Iterator[Child]:
    """Run a child process in its own session: Ctrl-C reaches only the launcher, which stops the others in order.

    Args:
        command: the program and its arguments.
        variables: its environment.
        stop_seconds: seconds that it has to end before it is killed.
        output: where its output goes.
    """
    child = subprocess.Popen(  # noqa: S603 - our own interpreter
        command,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(stop_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_until(is_ready: Callable[[], bool], children: Sequence[Child]) -> bool:
    """Wait up to a minute, while all children run; return whether they are ready."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and all(child.poll() is None for child in children):
        if is_ready():
            return True
        time.sleep(0.05)
    return False
