"""Outage log of the task table: one record when it becomes unusable and one when it recovers."""

from __future__ import annotations

import logging

from mks_hardening._core.resilience.outage_log import OutageLog

__all__ = ["table_outage_log"]


def table_outage_log() -> OutageLog:
    """Return a new outage log; the argument of ``failed`` is the summary of the error."""
    return OutageLog(
        logging.getLogger("mks_hardening.tasks"),
        began="the table of tasks is unavailable (%s); it is retried",
        ended="the table of tasks is available again",
    )
