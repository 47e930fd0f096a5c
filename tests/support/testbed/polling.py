"""Waiting without fixed sleeps, and unused ports."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Below the kernel's ephemeral range: no outgoing connection takes the port of a server that is being restarted.
_PORTS = range(15000, 32000)
_random = (
    random.SystemRandom()
)  # pytest-randomly seeds the global one; all sessions would ask for the same ports
_given: set[int] = set()


def free_port(*, row: int = 1) -> int:
    """Return a free TCP port on loopback that this process has not received before.

    Args:
        row: how many neighbours from this port on are to be as free, for a server that counts up from its own.
    """
    for _ in range(500):
        first = _random.choice(_PORTS)
        wanted = range(first, first + row)
        if _given.isdisjoint(wanted) and all(map(_is_free, wanted)):
            _given.update(wanted)
            return first
    raise RuntimeError("no free port on loopback")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def wait_until(question: Callable[[], T], *, timeout: float = 20.0, what: str = "the condition") -> T:
    """Call a function every 10 ms until its result is true, and return the result.

    Raises:
        TimeoutError: the answer was not true within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout:g} s")
        time.sleep(0.01)
    return answer


def accepts_connections(port: int) -> bool:
    """Return whether a process listens on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
