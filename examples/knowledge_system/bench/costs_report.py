"""Costs of the routes as data for ``mks-deploy capacity``, and as lists for its page in both languages."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime

from bench.route_costs import LIST, ROUTES, SIGN_IN, TRIVIAL, Measured, RouteCost
from mks_deploy.operations.capacity import FASTEST, Load, Size, limits_of, read_costs, size_for

__all__ = ["SIGN_INS", "costs_file", "lists"]

SIGN_INS = 0.1
"""Weight of a sign-in among the requests of a reader, beside those of ``ROUTES`` (19 in all)."""
_USERS = (1000, 10_000, 100_000, 1_000_000)
_FIGURES = [field.name for field in fields(RouteCost)]


def costs_file(measured: Measured, *, articles: int) -> str:
    """Return the file that ``mks-deploy capacity`` reads by default."""
    lines = [
        f"# Written by `tools/bench_app.py --costs` on {datetime.now(UTC):%Y-%m-%d}: {articles} articles,",
        f"# Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}.",
    ]
    weights = {SIGN_IN: SIGN_INS} | {name: weight for name, (_, weight) in ROUTES.items()}
    for name, weight in weights.items():
        lines += ["", f'[routes."{name}"]', f"weight = {weight}"]
        lines += [f"{figure} = {_rounded(value)}" for figure, value in asdict(measured.routes[name]).items()]
    lines += ["", "[stored]", f"session_bytes = {_rounded(measured.session_bytes)}"]
    lines += [f"cached_bytes = {_rounded(measured.cached_bytes)}"]
    return "\n".join(lines) + "\n"


def lists(measured: Measured, costs: str) -> str:
    """Return the lists of the page, which both languages include."""
    parts = {
        "routes": _table("route", _FIGURES, {name: asdict(cost) for name, cost in measured.routes.items()}),
        "connections": _ratios(measured),
        "errors": _table(
            "readers",
            list(next(iter(measured.errors.values()))),
            {
                str(size): {name: f"{100 * (value - 1):+.0f} %" for name, value in found.items()}
                for size, found in measured.errors.items()
            },
        ),
        "sizes": _sizes(costs),
        "limits": _limits(costs),
    }
    text = "# Lists of the capacity page\n\nMade by `tools/bench_app.py --costs`.\n"
    for name, part in parts.items():
        text += f"\n<!-- made: {name} -->\n{part}<!-- end -->\n"
    return text


def _ratios(measured: Measured) -> str:
    rows = {}
    for label, found in (("kept", measured.routes), ("new TLS connection", measured.new_connection)):
        page, trivial = (_processor(found[name]) for name in (LIST, TRIVIAL))
        rows[label] = {LIST: f"{page:.2f} ms", TRIVIAL: f"{trivial:.2f} ms", "÷": f"{page / trivial:.1f}"}
    return _table("connection", [LIST, TRIVIAL, "÷"], rows)


def _processor(cost: RouteCost) -> float:
    return cost.application_ms + cost.nginx_ms + cost.postgresql_ms + cost.redis_ms


def _sizes(costs: str) -> str:
    sizes = {f"{users:,}": size_for(read_costs(costs), Load(users=users)) for users in _USERS}
    names = [field.name for field in fields(Size)]
    return _table(
        "users",
        list(sizes),
        {name: {users: getattr(size, name) for users, size in sizes.items()} for name in names},
    )


def _limits(costs: str) -> str:
    found = limits_of(read_costs(costs), Load(users=1))
    lines = [f"| {name} | {requests:,.0f} |" for name, requests in found if requests <= FASTEST]
    lines += [f"| {name} | > {FASTEST:,} |" for name, requests in found if requests > FASTEST]
    return "\n".join(["| limit | requests/s |", "|---|---|", *lines]) + "\n"


def _table(corner: str, columns: list[str], rows: Mapping[str, Mapping[str, object]]) -> str:
    lines = [
        f"| {corner} | " + " | ".join(f"`{name}`" for name in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, cells in rows.items():
        shown = [_shown(cells[column]) for column in columns]
        lines.append(f"| `{name}` | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return f"{_rounded(value):,}" if isinstance(value, (int, float)) else str(value)


def _rounded(value: float) -> float | int:
    """Round to what is known: two decimals of small figures, whole numbers of large ones."""
    return round(value, 2) if value < 100 else round(value)
