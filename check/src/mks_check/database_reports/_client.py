"""Reports of the application's processes (``client_report``), to join with the server's statistics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mks_check.database_reports._report import Row, in_short
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Client", "read_clients"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Measurements of an application's processes.

    Attributes:
        statements: calls, total time, percentile and most frequent caller, by fingerprint; the slowest first.
        holders: holder of a connection, by process of the server.
    """

    statements: Mapping[str, Row]
    holders: Mapping[int, str]


def read_clients(paths: Sequence[str]) -> Client:
    """Read the files of one or more processes.

    Raises:
        ConfigurationError: a file cannot be read, or does not contain a report.
    """
    statements: dict[str, dict[str, Any]] = {}
    holders: dict[int, str] = {}
    for path in paths:
        try:
            report: Any = json.loads(Path(path).read_text("utf-8"))
            for one in report["statements"]:
                _add(statements, one)
            for one in report["holders"]:
                if one["backend_pid"] is not None:
                    holders[int(one["backend_pid"])] = f"{one['caller']} ({one['thread']})"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"--client must be a file with the text of client_report(), not {path!r}: {type(error).__name__}",
                parameter="client",
            ) from None
    slowest_first = sorted(statements.items(), key=lambda item: -item[1]["total ms"])
    return Client(
        statements={name: {**row, "total ms": in_short(row["total ms"])} for name, row in slowest_first},
        holders=holders,
    )


def _add(statements: dict[str, dict[str, Any]], one: dict[str, Any]) -> None:
    """Add a statement of one process; of the percentiles the largest counts, because they cannot be added."""
    places = one["callers"]
    row = statements.setdefault(
        str(one["fingerprint"]),
        {
            "calls": 0,
            "total ms": 0.0,
            "p95 ms": 0.0,
            "caller": f"{places[0]['caller']} {places[0]['route']}".strip() if places else "",
            "statement": str(one["statement"]),
        },
    )
    row["calls"] += int(one["calls"])
    row["total ms"] += float(one["total_ms"])
    row["p95 ms"] = max(row["p95 ms"], round(float(one["p95_ms"]), 3))
