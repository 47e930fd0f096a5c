"""Demo pages for administrators: provoked errors, the log records they leave, the sink."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, request
from sqlalchemy import text

from knowledge_system.api.body import response_of
from knowledge_system.api.route import ApiResponse
from knowledge_system.demo.sink import read_messages
from knowledge_system.domain import fields
from knowledge_system.web import current_request, forms

pages = Blueprint("demo", __name__)

_SLOW_SQL = (
    "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < :rows) "
    "SELECT count(*) FROM counter"
)
_SLOW_ROWS = 1_500_000
_LOG_BYTES = 2_000_000


@pages.get("/diagnostics")
def overview() -> str:
    """Show the available experiments and the newest log records."""
    wanted = request.args.get("request_id", "")[:200]
    return render_template(
        "diagnostics.html",
        section="diagnostics",
        records=_records(wanted, limit=30),
        request_id_filter=wanted,
        cache=_cache_figures(),
    )


@pages.get("/diagnostics/records")
def records() -> Response:
    """Return the newest log records as JSON, filtered by ``request_id`` if given."""
    return response_of(ApiResponse({"records": _records(request.args.get("request_id", ""), limit=200)}))


@pages.post("/diagnostics/error")
@forms.form({})
def error() -> str:
    """Raise an unexpected exception."""
    raise RuntimeError("診断: わざと起こした例外です")


@pages.post("/diagnostics/slow-query")
@forms.form({})
def slow_query() -> str:
    """Run a statement that takes longer than the slow-query threshold."""
    with current_request.services().engine.connect() as connection:
        connection.execute(text(_SLOW_SQL), {"rows": _SLOW_ROWS}).scalar_one()
    return "/diagnostics?done=slow-query"


@pages.post("/diagnostics/clock")
@forms.form(fields.CLOCK_FORM)
def clock(*, advance: int) -> str:
    """Advance the session clock."""
    current_request.services().session_clock.advance(advance)
    return "/diagnostics?done=clock-moved"


@pages.get("/sink")
def sink() -> str:
    """Show the mails and chat messages that were sent."""
    return render_template("sink.html", section="sink", messages=read_messages(_folder() / "sink"))


@pages.get("/sink.json")
def sink_json() -> Response:
    """Return the mails and chat messages that were sent, as JSON."""
    return response_of(ApiResponse({"messages": read_messages(_folder() / "sink")}))


def _folder() -> Path:
    return current_request.services().settings.data_dir


def _records(request_id: str, *, limit: int) -> list[dict[str, Any]]:
    """Return the last records of the log file, newest first."""
    file = _folder() / "app.log"
    if not file.exists():
        return []
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - _LOG_BYTES))
        lines = log.read().decode("utf-8", "replace").splitlines()
    wanted = (line for line in reversed(lines) if line.startswith("{") and request_id in line)
    return [json.loads(line) for line in islice(wanted, limit)]


def _cache_figures() -> dict[str, int]:
    stats = current_request.services().cache.stats()
    names = ("hits", "misses", "stale", "errors", "bypasses")
    return {name: getattr(stats, name) for name in names if hasattr(stats, name)}
