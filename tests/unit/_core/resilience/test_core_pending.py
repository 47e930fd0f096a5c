"""What is remembered during an outage, and what is sent afterwards."""

from __future__ import annotations

import logging
import threading

import pytest

from mks_hardening._core.resilience.last_known import LastKnown
from mks_hardening._core.resilience.outage_log import OutageLog
from mks_hardening._core.resilience.pending_writes import FlushThread, PendingWrites
from mks_hardening.exceptions import BackendUnavailableError


def test_the_oldest_values_are_dropped() -> None:
    known: LastKnown[int, str] = LastKnown(3)
    for number in range(5):
        known[number] = str(number)
    known.trim()
    assert list(known) == [2, 3, 4]


def test_a_write_that_is_superseded_is_not_pending() -> None:
    pending: PendingWrites[str] = PendingWrites(most=10, everything="*")
    pending.add(["a", "b"])
    pending.supersede(["a", "never added"])
    assert (list(pending.snapshot()), pending.changes) == (["b"], 1)


def test_a_write_that_is_added_again_while_it_is_flushed_stays_pending() -> None:
    pending: PendingWrites[str] = PendingWrites(most=10, everything="*")
    pending.add(["a", "b"])
    flushed = pending.snapshot()
    pending.add(["b"])
    pending.mark_flushed(flushed)
    assert (list(pending.snapshot()), pending.changes) == (["b"], 1)


def test_more_writes_than_the_maximum_become_one() -> None:
    pending: PendingWrites[str] = PendingWrites(most=2, everything="*")
    pending.add(["a", "b", "c"])
    assert list(pending.snapshot()) == ["*"]
    assert "a" not in pending


def test_pending_writes_are_flushed_by_one_thread_until_nothing_is_left() -> None:
    threads: set[str] = set()
    done = threading.Event()
    results = [True, True, False]

    def flush() -> bool:
        threads.add(threading.current_thread().name)
        more = results.pop(0)
        if not more:
            done.set()
        return more

    thread = FlushThread(flush, every=0.001, name="mks-flush-test")
    for _ in range(3):
        thread.start()
    assert done.wait(10)
    assert threads == {"mks-flush-test"}


@pytest.mark.parametrize(("reason", "more"), [("open", True), ("timeout", True), ("closed", False)])
def test_the_thread_ends_with_its_client_and_outlasts_an_outage(reason: str, *, more: bool) -> None:
    def flush() -> bool:
        raise BackendUnavailableError("redis", reason)

    thread = FlushThread(flush, every=60, name="mks-flush-test")
    assert thread.close(last_try=True) is more
    assert thread.close(last_try=True) is False  # closed already


def test_an_outage_is_one_record_at_its_beginning_and_one_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = OutageLog(logging.getLogger("outage"), began="%s is unavailable", ended="it is available again")
    outage.succeeded()
    waits = [outage.failed("redis") for _ in range(8)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    for _ in range(3):
        outage.succeeded()
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "redis is unavailable"),
        ("WARNING", "it is available again"),
    ]
    assert outage.failed("redis") == 0.5
