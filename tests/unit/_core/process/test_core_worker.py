from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any, Literal

import pytest

from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening.exceptions import ConfigurationError


class Gate:
    """A handler that can be held shut, and remembers what it was given."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.seen: list[int] = []

    def __call__(self, item: int) -> None:
        self.entered.set()
        self.open.wait(10)
        if item < 0:
            raise ValueError(item)
        self.seen.append(item)


def test_items_are_handled_in_order_and_flush_waits_for_them() -> None:
    gate = Gate()
    worker = BackgroundWorker(gate, name="test")
    assert all(worker.put(number) for number in range(100))
    assert worker.flush(5)
    assert gate.seen == list(range(100))
    assert worker.pending == 0
    assert worker.close() == []


def test_no_thread_before_the_first_item() -> None:
    before = threading.active_count()
    worker = BackgroundWorker(Gate(), name="idle")
    assert worker.flush(0)
    assert threading.active_count() == before
    assert worker.close() == []


@pytest.mark.parametrize(("overflow", "kept"), [("drop_new", [0, 1, 2]), ("drop_oldest", [0, 3, 4])])
def test_a_full_queue_drops_and_counts(overflow: Literal["drop_new", "drop_oldest"], kept: list[int]) -> None:
    gate = Gate()
    gate.open.clear()
    worker = BackgroundWorker(gate, name="full", max_queue=2, overflow=overflow)
    worker.put(0)
    assert gate.entered.wait(5)  # item 0 is in hand, two more may wait
    results = [worker.put(number) for number in (1, 2, 3, 4)]
    assert results == ([True, True, False, False] if overflow == "drop_new" else [True] * 4)
    assert worker.dropped == 2
    assert worker.pending == 3
    gate.open.set()
    assert worker.flush(5)
    assert gate.seen == kept
    worker.close()


def test_an_item_that_raises_is_counted_and_the_next_is_handled() -> None:
    gate = Gate()
    worker = BackgroundWorker(gate, name="raises")
    for item in (1, -1, 2):
        worker.put(item)
    assert worker.flush(5)
    assert (gate.seen, worker.failed, worker.pending) == ([1, 2], 1, 0)
    worker.close()


def test_close_hands_back_what_could_not_be_handled_with_the_item_in_hand() -> None:
    gate = Gate()
    gate.open.clear()
    left: list[int] = []
    worker = BackgroundWorker(gate, name="stuck", leftover=left.extend)
    for item in (1, 2, 3):
        worker.put(item)
    assert gate.entered.wait(5)
    assert worker.close(timeout=0.01) == [1, 2, 3]
    assert left == [1, 2, 3]
    assert worker.pending == 0
    assert worker.put(4) is False
    assert worker.dropped == 1
    assert worker.close(timeout=0.01) == []
    gate.open.set()


def test_an_item_put_while_closing_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    worker = BackgroundWorker(Gate(), name="late", leftover=left.extend)
    monkeypatch.setattr(worker, "_has_ended", lambda: True)
    worker.put(7)
    assert left == [7]
    worker.close()


class RacingQueue:
    """Lets another thread close the worker after an item was let in and before it is queued."""

    def __init__(self, worker: BackgroundWorker[int]) -> None:
        self.worker = worker
        self.real = worker._queue
        self.closing = threading.Thread(target=worker.close, args=(5,))

    def put(self, item: object) -> None:
        if item == 7:
            self.closing.start()
            while self.real.qsize() == 0:  # until the mark that stops the thread is in
                threading.Event().wait(0.001)
        self.real.put(item)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def test_a_put_that_races_with_close_does_not_swallow_the_mark_that_stops_the_thread() -> None:
    gate = Gate()
    gate.open.clear()
    left: list[int] = []
    worker = BackgroundWorker(gate, name="race", leftover=left.extend)
    worker.put(1)
    assert gate.entered.wait(5)
    racing = RacingQueue(worker)
    worker._queue = racing  # type: ignore[assignment]
    assert worker.put(7)
    gate.open.set()
    racing.closing.join(3)
    assert not racing.closing.is_alive()
    assert worker._thread is not None
    assert not worker._thread.is_alive()
    assert (gate.seen, left) == ([1], [7])
    assert worker.pending == 0


class LateQueue:
    """A queue whose thread is overtaken between its look for the end and its wait for an item."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.waiting, self.go_on = threading.Event(), threading.Event()

    def get(self, timeout: float | None = None) -> object:
        self.waiting.set()
        assert self.go_on.wait(5)
        return self.real.get(timeout=timeout)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@pytest.mark.parametrize("wait", [None, 100.0])
def test_a_thread_that_is_about_to_wait_for_an_item_ends_when_it_is_given_up(wait: float | None) -> None:
    worker = BackgroundWorker[int](lambda _: None, name="late", tick=lambda: wait)
    late = LateQueue(worker._queue)
    worker._queue = late  # type: ignore[assignment]
    worker.put(1)
    assert late.waiting.wait(5)
    thread = worker._thread
    assert thread is not None
    assert worker.close(0) == [1]
    assert worker.flush(0)
    late.go_on.set()
    thread.join(5)
    assert not thread.is_alive()
    assert worker.close(0) == []
    assert worker.flush(0)


def test_close_waits_for_a_thread_that_another_is_just_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    starting, go_on = threading.Event(), threading.Event()
    start = threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        if thread.name == "slow to start":
            starting.set()
            assert go_on.wait(5)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    gate = Gate()
    worker = BackgroundWorker(gate, name="slow to start")
    putting = threading.Thread(target=worker.put, args=(1,))
    putting.start()
    assert starting.wait(5)
    left: list[int] = []
    closing = threading.Thread(target=lambda: left.extend(worker.close(5)))
    closing.start()
    go_on.set()
    for thread in (putting, closing):
        thread.join(5)
        assert not thread.is_alive()
    assert gate.seen + left == [1]
    assert worker.pending == 0


def test_a_thread_that_was_busy_at_the_end_stops_after_its_item() -> None:
    gate = Gate()
    gate.open.clear()
    worker = BackgroundWorker(gate, name="busy")
    worker.put(1)
    assert gate.entered.wait(5)
    assert worker.close(timeout=0.001) == [1]
    gate.open.set()
    assert worker._thread is not None
    worker._thread.join(3)
    assert not worker._thread.is_alive()


@pytest.mark.parametrize("death", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_item_that_ends_the_thread_does_not_strand_the_others(death: type[BaseException]) -> None:
    seen: list[int] = []

    def handle(item: int) -> None:
        if item == 1:
            raise death
        seen.append(item)

    worker = BackgroundWorker(handle, name="exit")
    for item in (1, 2, 3):
        assert worker.put(item)
    assert worker.flush(5)
    assert (seen, worker.failed, worker.pending) == ([2, 3], 1, 0)
    worker.close()


@pytest.mark.filterwarnings("ignore:Exception in thread killed")
def test_a_thread_that_is_killed_is_replaced_by_the_next_put(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    worker = BackgroundWorker(gate, name="killed")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_work", _killed)
        worker.put(1)
        for thread in threading.enumerate():
            if thread.name == "killed":
                thread.join(5)  # its last words belong to this test
    worker.put(2)
    assert worker.flush(5)
    assert gate.seen == [1, 2]
    worker.close()


def _killed() -> None:
    raise SystemExit


def test_tick_is_called_after_items_and_when_its_time_has_come() -> None:
    ticks: list[int] = []
    due = threading.Event()

    def tick() -> float | None:
        ticks.append(1)
        if len(ticks) >= 3:
            due.set()
            return None
        return 0.001

    worker: BackgroundWorker[int] = BackgroundWorker(lambda _: None, name="tick", tick=tick)
    worker.put(1)
    assert due.wait(5)
    worker.close()


def test_a_tick_that_raises_is_counted() -> None:
    def tick() -> float | None:
        raise RuntimeError

    worker: BackgroundWorker[int] = BackgroundWorker(lambda _: None, name="tick", tick=tick)
    worker.put(1)
    assert worker.flush(5)
    assert worker.failed >= 1
    worker.close()


def test_put_from_a_signal_handler_while_putting() -> None:
    gate = Gate()
    worker = BackgroundWorker(gate, name="signal", max_queue=100_000)
    before = signal.signal(signal.SIGUSR1, lambda *_: worker.put(-5) and None)
    try:
        for number in range(2_000):
            worker.put(number)
            if number % 10 == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert worker.flush(10)
    assert len(gate.seen) == 2_000
    assert worker.failed >= 1
    assert worker.pending == 0
    worker.close()


def test_counts_are_exact_over_threads() -> None:
    gate = Gate()
    worker = BackgroundWorker(gate, name="many", max_queue=50)
    accepted: list[int] = []

    def hammer() -> None:
        accepted.append(sum(worker.put(number) for number in range(2_000)))

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worker.flush(10)
    assert sum(accepted) == len(gate.seen)
    assert worker.dropped == 8 * 2_000 - len(gate.seen)
    worker.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_repeat_the_parents_items() -> None:
    gate = Gate()
    gate.open.clear()
    worker = BackgroundWorker(gate, name="fork")
    for item in (1, 2, 3):
        worker.put(item)
    assert gate.entered.wait(5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        gate.seen.clear()
        gate.open = threading.Event()
        gate.open.set()
        worker.put(9)
        worker.flush(5)
        os.write(write, repr((gate.seen, worker.dropped)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"([9], 0)"
    gate.open.set()
    assert worker.flush(5)
    assert gate.seen == [1, 2, 3]
    worker.close()


SCRIPT = """
import os, signal, sys, threading, time
from mks_hardening._core.process.background_worker import BackgroundWorker
def handle(item):
    time.sleep(0.01)
    os.write(1, f"{item}\\n".encode())
def make():
    global worker
    worker = BackgroundWorker(handle, name="exit")
    if sys.argv[1] == "sigterm, made elsewhere":
        worker.put(-1)
if sys.argv[1] == "sigterm, made elsewhere":
    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    worker.flush(5)
else:
    make()
for number in range(20):
    worker.put(number)
if sys.argv[1].startswith("sigterm"):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
"""


@pytest.mark.parametrize(
    ("how", "code"), [("exit", 0), ("sigterm", -signal.SIGTERM), ("sigterm, made elsewhere", -signal.SIGTERM)]
)
def test_the_queue_is_drained_at_exit_and_on_sigterm(how: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    numbers = [int(line) for line in done.stdout.split()]
    assert [number for number in numbers if number >= 0] == list(range(20))


@pytest.mark.parametrize("wrong", [{"max_queue": 0}, {"overflow": "block"}])
def test_wrong_parameters_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BackgroundWorker(print, name="wrong", **wrong)  # type: ignore[arg-type]
    assert caught.value.parameter in str(caught.value)


def test_a_drained_worker_has_no_thread_and_starts_another() -> None:
    seen: list[int] = []
    worker = BackgroundWorker(seen.append, name="drained")
    worker.drain()
    worker.put(1)
    worker.drain()
    assert seen == [1]
    assert not any(thread.name == "drained" for thread in threading.enumerate())
    worker.put(2)
    assert worker.flush(5)
    assert seen == [1, 2]
    assert worker.close() == []
    worker.drain()
