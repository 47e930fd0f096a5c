"""The two log records of an outage."""

import logging

import pytest

from mks_hardening._core.resilience.outage_log import OutageLog


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
