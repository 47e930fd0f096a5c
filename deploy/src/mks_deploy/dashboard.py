"""Grafana dashboard for operators."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["dashboard", "expressions"]

_WIDTH, _HEIGHT = 8, 7


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]


def dashboard(settings: Settings) -> str:
    """Return the dashboard as JSON, for import into Grafana."""
    panels = [_as_grafana(panel, number) for number, panel in enumerate(_panels(settings))]
    whole = {
        "title": settings.name,
        "uid": settings.name,
        "tags": ["mks_hardening"],
        "timezone": "browser",
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def expressions(settings: Settings) -> list[str]:
    """Return every query of the dashboard."""
    return [expression for panel in _panels(settings) for expression, _ in panel.queries]


def _panels(settings: Settings) -> tuple[_Panel, ...]:
    job = f'{{job="{settings.name}"}}'

    def rate(metric: str, by: str = "") -> str:
        return f"sum{f' by ({by})' if by else ''} (rate({metric}{job}[5m]))"

    buckets = rate("mks_request_duration_seconds_bucket", "le")
    hits = f'sum(rate(mks_cache_reads_total{{job="{settings.name}",outcome="hit"}}[5m]))'
    return (
        _Panel("Requests by status", "reqps", ((rate("mks_requests_total", "status"), "{{status}}"),)),
        _Panel(
            "Time of a request",
            "s",
            tuple(
                (f"histogram_quantile({share}, {buckets})", f"p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ),
        ),
        _Panel(
            "Refused by the edge",
            "reqps",
            ((rate("mks_requests_refused_total", "wrapper, reason"), "{{wrapper}} {{reason}}"),),
        ),
        _Panel(
            "Answers from the cache", "percentunit", ((f"{hits} / {rate('mks_cache_reads_total')}", "hits"),)
        ),
        _Panel(
            "Statements above the threshold",
            "short",
            ((rate("mks_slow_query_duration_seconds_count"), "slow"),),
        ),
        _Panel("Connection pool", "short", ((rate("mks_pool_events_total", "change"), "{{change}}"),)),
        _Panel(
            "Unavailable servers",
            "short",
            ((f"max by (backend) (mks_breakers_not_closed{job})", "{{backend}}"),),
        ),
        _Panel(
            "Tasks",
            "short",
            (
                (f"max(mks_task_queue_due{job})", "due"),
                (f"max(mks_task_queue_running{job})", "running"),
                (f"max(mks_task_queue_dead{job})", "dead"),
            ),
        ),
        _Panel(
            "How long the oldest task has been due",
            "s",
            ((f"max(mks_task_queue_oldest_due_seconds{job})", "oldest"),),
        ),
        _Panel(
            "Limits",
            "short",
            ((rate("mks_rate_limit_decisions_total", "group, outcome"), "{{group}} {{outcome}}"),),
        ),
        _Panel(
            "Second factors and sign-ins",
            "short",
            (
                (rate("mks_two_factor_events_total", "change"), "{{change}}"),
                (rate("mks_sign_in_events_total", "change"), "{{change}}"),
            ),
        ),
        _Panel(
            "Alerts",
            "short",
            ((rate("mks_alerts_total", "state"), "{{state}}"), ("max(mks_host_spool_files)", "on disk")),
        ),
        _Panel(
            "Days of the certificate",
            "d",
            (("(max(mks_host_certificate_end_seconds) - time()) / 86400", "left"),),
        ),
        _Panel("Free space", "percentunit", (("min by (path) (mks_host_free_ratio)", "{{path}}"),)),
        _Panel("Age of the newest backup", "s", (("time() - max(mks_host_backup_seconds)", "age"),)),
    )


def _as_grafana(panel: _Panel, number: int) -> dict[str, Any]:
    across = 24 // _WIDTH
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {
            "x": number % across * _WIDTH,
            "y": number // across * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + position), "expr": expression, "legendFormat": legend, "datasource": source}
            for position, (expression, legend) in enumerate(panel.queries)
        ],
    }
