from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

import pytest

from mks_hardening.logging import StandardStreamHandler
from mks_hardening.logging.handlers import _fork_lock as module

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class SlowStream:
    """A stream that somebody is inside of until the gate opens."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.gate = threading.Event()

    def write(self, text: str) -> None:
        self.inside.set()
        self.gate.wait(10)
        self.inside.clear()

    def flush(self) -> None:
        return


def slow_stdout(monkeypatch: pytest.MonkeyPatch) -> SlowStream:
    """Put in place inside the test: pytest's capturing sets the streams anew after the fixtures."""
    made = SlowStream()
    monkeypatch.setattr(sys, "stdout", made)
    return made


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("app", logging.INFO, __file__, 1, message, None, None)


def child_sees(stream: SlowStream) -> bool:
    """Whether a child that is forked now finds somebody inside the stream."""
    pid = os.fork()
    if pid == 0:
        os._exit(1 if stream.inside.is_set() else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_a_fork_waits_until_nobody_is_inside_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = slow_stdout(monkeypatch)
    handler = StandardStreamHandler("stdout")
    writer = threading.Thread(target=handler.handle, args=(record("slow"),))
    writer.start()
    assert stream.inside.wait(5)
    opener = threading.Timer(0.02, stream.gate.set)
    opener.start()
    assert not child_sees(stream)
    writer.join()
    opener.join()
    assert handler.lock is not None
    assert handler.lock.acquire(blocking=False)  # let go in the parent
    handler.lock.release()


def test_a_stream_that_hangs_does_not_keep_the_process_from_forking(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = slow_stdout(monkeypatch)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    handler = StandardStreamHandler("stdout")
    writer = threading.Thread(target=handler.handle, args=(record("hangs"),))
    writer.start()
    assert stream.inside.wait(5)
    assert child_sees(stream)
    stream.gate.set()
    writer.join()


def test_the_child_can_log_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = slow_stdout(monkeypatch)
    stream.gate.set()
    handler = StandardStreamHandler("stdout")
    pid = os.fork()
    if pid == 0:
        done: list[Any] = []
        writer = threading.Thread(target=lambda: done.append(handler.handle(record("child"))))
        writer.start()
        writer.join(5)
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
