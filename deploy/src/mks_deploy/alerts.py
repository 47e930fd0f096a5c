"""Prometheus alerting rules, each with the runbook section that describes the response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["QUEUE_ALARM_AT", "REDIS_ALARM_AT", "REHEARSAL_MAX_AGE", "Alert", "alerts_of"]

REDIS_ALARM_AT: Final = 0.85
"""Used share of ``maxmemory`` at which a Redis without eviction will soon reject writes."""


REHEARSAL_MAX_AGE: Final = 15 * 86_400
"""Seconds without a restore from a copy elsewhere that raise an alert; rehearsals are weekly."""


QUEUE_ALARM_AT: Final = 0.2
"""Share of Redis's memory at which a broker queue raises an alert: sessions and limits need the rest."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule.

    Attributes:
        name: name of the alert.
        expression: PromQL expression.
        lasting: how long it must hold; empty to fire at once.
        severity: ``page`` for immediate action, ``ticket`` for the next working day.
        summary: the problem, in one sentence.
        runbook: section of the runbooks.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    runbook: str


def alerts_of(settings: Settings) -> tuple[Alert, ...]:
    """Return the rules of one deployment."""
    job = f'{{job="{settings.name}"}}'
    errors = f'sum(rate(mks_requests_total{{job="{settings.name}",status=~"5.."}}[5m]))'
    guesses = (
        f'sum(increase(mks_sign_in_events_total{{job="{settings.name}",change=~"refused|factor_refused|limited"}}'
        "[10m]))"
    )
    locked = f'sum(increase(mks_sign_in_events_total{{job="{settings.name}",change="locked"}}[1h]))'
    decisions = "sum by (group) (rate(mks_rate_limit_decisions_total"
    refused = f'{decisions}{{job="{settings.name}",outcome="refused"}}[10m]))'
    decided = f"{decisions}{job}[10m]))"
    cached = f'sum(rate(mks_cache_reads_total{{job="{settings.name}",outcome=~"hit|stale"}}[30m]))'
    read = f'sum(rate(mks_cache_reads_total{{job="{settings.name}",outcome=~"hit|stale|miss"}}[30m]))'
    slow = f"sum by (le) (rate(mks_request_duration_seconds_bucket{job}[5m]))"
    pool = f'sum(increase(mks_pool_events_total{{job="{settings.name}",change="exhausted"}}[5m]))'
    dropped = f'sum(increase(mks_alerts_total{{job="{settings.name}",state="dropped"}}[15m]))'
    full = f'sum(increase(mks_backend_failures_total{{job="{settings.name}",reason="oom"}}[5m]))'
    answers = "(mks_host_edge_answers == 1)"
    life = "(mks_host_certificate_end_seconds - mks_host_certificate_begin_seconds)"
    left = "(mks_host_certificate_end_seconds - time())"
    free = settings.upkeep.disk_free_percent / 100
    page, ticket = "page", "ticket"
    rules = (
        Alert(
            "ApplicationDown",
            f"max(up{job}) < 1 or absent(up{job})",
            "2m",
            page,
            "No slot responds.",
            "rollback",
        ),
        Alert(
            "EdgeDown",
            "max(mks_host_edge_answers) < 1",
            "5m",
            page,
            "Nothing responds over https.",
            "rollback",
        ),
        Alert(
            "ErrorRate",
            f"{errors} / sum(rate(mks_requests_total{job}[5m])) > 0.02",
            "5m",
            page,
            "More than 2 % of the responses are server errors.",
            "rollback",
        ),
        Alert(
            "SlowRequests",
            f"histogram_quantile(0.95, {slow}) > 0.5",
            "10m",
            ticket,
            "5 % of the requests take longer than half a second.",
            "database",
        ),
        Alert(
            "BreakerOpen",
            f"max by (backend) (mks_breakers_not_closed{job}) > 0",
            "2m",
            page,
            "A server is unavailable: {{ $labels.backend }}.",
            "redis",
        ),
        Alert(
            "PoolExhausted",
            f"{pool} > 0",
            "",
            page,
            "Requests timed out waiting for a database connection.",
            "database",
        ),
        Alert(
            "QueueOld",
            f"max(mks_task_queue_oldest_due_seconds{job}) > 300",
            "5m",
            page,
            "Tasks have been due for five minutes.",
            "queue-stuck",
        ),
        Alert(
            "NoWorker",
            f"max(mks_task_queue_stalled{job}) > 0",
            "2m",
            page,
            "Tasks are due and no worker takes them.",
            "queue-stuck",
        ),
        Alert(
            "DeadTasks",
            f"max(mks_task_queue_dead{job}) > 0",
            "15m",
            ticket,
            "Tasks failed permanently and wait for an operator.",
            "queue-stuck",
        ),
        Alert("AlertsDropped", f"{dropped} > 0", "", ticket, "Alerts were lost.", "spool"),
        Alert(
            "SpoolNotEmpty",
            "max(mks_host_spool_files) > 0",
            "30m",
            ticket,
            "Alerts wait on disk: mail or chat is unavailable.",
            "spool",
        ),
        Alert(
            "LogsDropped",
            f"sum(increase(mks_log_records_dropped_total{job}[15m])) > 0",
            "",
            ticket,
            "Log lines were lost.",
            "disk-full",
        ),
        Alert(
            "SignInAttack",
            f"{guesses} > 100",
            "",
            page,
            "More than 100 sign-ins were refused within ten minutes.",
            "sign-in-attack",
        ),
        Alert(
            "AccountsLocked",
            f"{locked} > 2",
            "",
            page,
            "Several accounts were locked within an hour.",
            "sign-in-attack",
        ),
        Alert(
            "LimitsRefuse",
            f"max({refused} / {decided} and {decided} > 0.1) > 0.2",
            "15m",
            ticket,
            "A limit refuses more than one request in five: the dashboard shows which.",
            "limits",
        ),
        Alert(
            "CacheHitRate",
            f"({cached} / {read} < 0.7) and {read} > 1",
            "30m",
            ticket,
            "Less than 70 % of the reads are cache hits.",
            "cache",
        ),
        Alert(
            "CertificateEnds",
            f"max(({left} / {life}) and {answers}) < 0.25",
            "",
            page,
            "The certificate was not renewed in time.",
            "certificate",
        ),
        Alert(
            "DiskFull",
            f"min by (path) (mks_host_free_ratio) < {free:g}",
            "5m",
            page,
            "Little space is left on {{ $labels.path }}.",
            "disk-full",
        ),
        Alert(
            "BackupOld",
            f"time() - max(mks_host_backup_seconds) > {settings.upkeep.backup_max_age}",
            "",
            page,
            "The newest backup is too old.",
            "backup",
        ),
        *_offsite_alerts(settings),
        Alert(
            "KeysDamaged",
            "max(mks_host_damaged_key_copies) > 0",
            "",
            page,
            "A copy of the keys is not what was written.",
            "backup",
        ),
        Alert(
            "ArchiveFails",
            "max(mks_host_archive_fails) > 0",
            "10m",
            page,
            "PostgreSQL cannot archive its segments.",
            "archive",
        ),
        Alert(
            "RedisNearlyFull",
            f'max by (role) (mks_host_redis_memory_ratio{{full="refuses"}}) >= {REDIS_ALARM_AT:g}',
            "5m",
            page,
            "Redis ({{ $labels.role }}) will soon refuse to write.",
            "redis",
        ),
        Alert(
            "QueueFillsRedis",
            f"max by (queue) (mks_host_queue_memory_ratio) >= {QUEUE_ALARM_AT:g}",
            "5m",
            page,
            "The queue {{ $labels.queue }} of the broker fills the Redis that sessions and limits share.",
            "queue-fills-redis",
        ),
        Alert(
            "RedisFull",
            f"{full} > 0",
            "",
            page,
            "Redis refuses to write because its memory is full: nobody can sign in.",
            "redis",
        ),
        Alert(
            "RedisEvicts",
            'sum by (role) (increase(mks_host_redis_evicted_keys_total{role="state"}[15m])) > 0',
            "",
            page,
            "Redis ({{ $labels.role }}) evicts sessions and limits because its memory is full.",
            "redis",
        ),
        Alert(
            "RedisRejects",
            "sum by (role) (increase(mks_host_redis_rejected_connections_total[15m])) > 0",
            "",
            page,
            "Redis ({{ $labels.role }}) refuses connections beyond maxclients.",
            "redis",
        ),
        Alert(
            "HostNotWatched",
            "time() - max(mks_host_watched_seconds) > 900 or absent(mks_host_watched_seconds)",
            "5m",
            ticket,
            "Certificate, backup and disk are not monitored.",
            "disk-full",
        ),
    )
    # Without metrics of the application, the host alone can tell.
    return tuple(
        rule for rule in rules if settings.server.metrics or f'job="{settings.name}"' not in rule.expression
    )


def _offsite_alerts(settings: Settings) -> tuple[Alert, ...]:
    if not settings.offsite.repository:
        return ()
    old = f"time() - max(mks_host_offsite_seconds) > {settings.upkeep.backup_max_age + 86_400}"
    unproved = f"time() - max(mks_host_rehearsed_seconds) > {REHEARSAL_MAX_AGE}"
    return (
        Alert("OffsiteOld", old, "", "page", "The newest copy elsewhere is too old.", "backup"),
        Alert("OffsiteUnproved", unproved, "1d", "ticket", "No copy was restored for two weeks.", "backup"),
    )
