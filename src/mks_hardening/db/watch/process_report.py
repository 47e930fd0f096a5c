"""Report of the monitors of one process, for ``mks-hardening db``, which runs in another process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

from mks_hardening._core.checks import instance
from mks_hardening.db.watch._monitor import Monitor
from mks_hardening.db.watch.pool_monitor import PoolMonitor
from mks_hardening.db.watch.slow_queries import SlowQueryMonitor

__all__ = ["client_report"]


def client_report(*monitors: SlowQueryMonitor | PoolMonitor) -> str:
    """Return statements and holders of connections as JSON, without values.

    Write it to a file. ``mks-hardening db top --client FILE`` shows it next to the server's statistics, and
    ``mks-hardening db locks --client FILE`` names the lines of the application that hold the connections.

    Args:
        monitors: monitors of this process, of any number of engines.

    Raises:
        ConfigurationError: one of them is not a monitor of this package.
    """
    for monitor in monitors:
        instance(monitor, Monitor, parameter="monitors")
    return json.dumps(
        {
            "process": os.getpid(),
            "statements": [
                asdict(one) for each in monitors if isinstance(each, SlowQueryMonitor) for one in each.stats()
            ],
            "holders": [
                asdict(one)
                for each in monitors
                if isinstance(each, PoolMonitor)
                for one in each.stats().holders
            ],
        },
        ensure_ascii=False,
    )
