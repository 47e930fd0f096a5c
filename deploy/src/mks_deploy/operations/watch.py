"""Host monitoring: certificate, backup, disk space and servers, as metrics, with a message on new problems."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.alerts import QUEUE_ALARM_AT, REDIS_ALARM_AT, REHEARSAL_MAX_AGE
from mks_deploy.atomic_files import refuse_foreign_path, replace_file
from mks_deploy.operations.backup import damaged_keys, newest_at, oldest_at
from mks_deploy.operations.certificate import ALARM_AT, served_certificate
from mks_deploy.operations.offsite import OffsiteState, read_state
from mks_deploy.operations.server_metrics import Servers

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["Readings", "find_problems", "measure", "record"]

_SERVERS: Final = ("/var/lib/postgresql", "/var/lib/redis")
"""Data directories of Debian's servers: PostgreSQL shuts down if it cannot write."""


_NO_SERVERS: Final = Servers(None, {})
_NO_COPIES: Final = OffsiteState()


@dataclass(frozen=True, slots=True)
class Readings:
    """The values of one check.

    Attributes:
        at: time of the check, in seconds since the epoch.
        certificate_begin: start of the served certificate's validity; 0 if the host does not respond.
        certificate_end: end of its validity; 0 if the host does not respond.
        backup_at: time of the newest complete backup; 0 if there is none.
        free: share of free disk space, by path.
        spooled: alerts spooled on disk.
        damaged_keys: names of damaged key copies.
        servers: metrics of PostgreSQL and Redis.
        offsite: copies elsewhere; before the first one, its ``backup_at`` is the time of the oldest backup.
    """

    at: float
    certificate_begin: float
    certificate_end: float
    backup_at: float
    free: Mapping[str, float]
    spooled: int
    damaged_keys: tuple[str, ...] = ()
    servers: Servers = _NO_SERVERS
    offsite: OffsiteState = _NO_COPIES


def measure(
    settings: Settings,
    *,
    now: datetime,
    usage: Callable[[str], tuple[int, int, int]] = shutil.disk_usage,
    served: Callable[[Settings], bytes | None] = served_certificate,
    servers: Servers = _NO_SERVERS,
) -> Readings:
    """Read all values once; a value that cannot be read counts as a problem."""
    from cryptography import x509

    # Checks what clients get: the files are readable by another account only, and may not be loaded yet.
    presented = served(settings)
    begin = end = 0.0
    if presented is not None:
        certificate = x509.load_der_x509_certificate(presented)
        begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    free = {}
    paths = settings.paths
    for path in (paths.state, paths.logs, paths.backups, paths.wal, *_SERVERS):
        if Path(path).is_dir():
            total, _, left = usage(path)
            free[path] = left / total
    spool = Path(settings.paths.state) / "spool"
    spooled = len(list(spool.rglob("*.json"))) if spool.is_dir() else 0
    at = now.timestamp()
    damaged = tuple(damaged_keys(settings))
    backup_at, offsite = newest_at(settings, now=at), read_state(settings)
    if not offsite.backup_at:
        # Nothing was copied yet: as long as copies could have been made.
        offsite = replace(offsite, backup_at=oldest_at(settings) or at)
    return Readings(at, begin, end, backup_at, free, spooled, damaged, servers, offsite)


def find_problems(readings: Readings, settings: Settings) -> list[str]:
    """Return the problems in words; equal situations give equal texts, so that changes can be detected."""
    found = []
    lifetime = readings.certificate_end - readings.certificate_begin
    if not settings.has_role("edge"):
        pass  # another host serves the certificate
    elif not readings.certificate_end:
        found.append(f"nothing responds over https on port {settings.edge.https_port}")
    elif readings.certificate_end - readings.at < lifetime * ALARM_AT:
        found.append("the certificate was not renewed in time")
    if settings.is_main and readings.at - readings.backup_at > settings.upkeep.backup_max_age:
        found.append("the newest backup is too old")
    if settings.offsite.repository and settings.is_main:
        # A day more: the copy is made after the backup, which may take a while.
        if readings.at - readings.offsite.backup_at > settings.upkeep.backup_max_age + 86_400:
            found.append("the newest copy of a backup elsewhere is too old")
        # Only once copies exist: the first rehearsal follows within a week.
        first = readings.offsite.rehearsed_at or readings.offsite.first_at
        if first and readings.at - first > REHEARSAL_MAX_AGE:
            found.append("no copy elsewhere was restored for two weeks")
    if readings.servers.archive_fails:
        found.append("PostgreSQL cannot archive its segments")
    if readings.servers.standby_absent and settings.serves_database:
        found.append("a standby of PostgreSQL does not follow")
    for role, redis in readings.servers.redis.items():
        if redis is None:
            found.append(f"the Redis server of the role {role} does not respond")
        elif not redis.evicts and redis.memory >= REDIS_ALARM_AT:
            found.append(f"the Redis server of the role {role} is nearly full")
    found += [
        f"the queue {name} of the broker holds much of the memory of its Redis server"
        for name, share in readings.servers.queues.items()
        if share >= QUEUE_ALARM_AT
    ]
    found += [f"the copy of the keys {name} is damaged" for name in readings.damaged_keys]
    least = settings.upkeep.disk_free_percent / 100
    found += [f"little space is left on {path}" for path, share in readings.free.items() if share < least]
    return found


def record(readings: Readings, settings: Settings) -> list[str]:
    """Write metrics for node_exporter's textfile collector; return the problems new since the last check."""
    folder = Path(settings.paths.state) / "metrics"
    refuse_foreign_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# TYPE mks_host_edge_answers gauge",
        f"mks_host_edge_answers {int(readings.certificate_end > 0)}",
        "# TYPE mks_host_certificate_end_seconds gauge",
        f"mks_host_certificate_end_seconds {readings.certificate_end:.0f}",
        "# TYPE mks_host_certificate_begin_seconds gauge",
        f"mks_host_certificate_begin_seconds {readings.certificate_begin:.0f}",
        "# TYPE mks_host_backup_seconds gauge",
        f"mks_host_backup_seconds {readings.backup_at:.0f}",
        "# TYPE mks_host_watched_seconds gauge",
        f"mks_host_watched_seconds {readings.at:.0f}",
        "# TYPE mks_host_damaged_key_copies gauge",
        f"mks_host_damaged_key_copies {len(readings.damaged_keys)}",
        "# TYPE mks_host_spool_files gauge",
        f"mks_host_spool_files {readings.spooled}",
        "# TYPE mks_host_free_ratio gauge",
        *(f'mks_host_free_ratio{{path="{path}"}} {share:.4f}' for path, share in readings.free.items()),
        *_offsite_metrics(readings.offsite, settings),
        *_server_metrics(readings.servers),
    ]
    replace_file(folder / "host.prom", "\n".join(lines) + "\n")
    known = folder / "host.troubles"
    before = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    now = find_problems(readings, settings)
    replace_file(known, "".join(f"{problem}\n" for problem in now))
    return [problem for problem in now if problem not in before]


def _offsite_metrics(offsite: OffsiteState, settings: Settings) -> Iterator[str]:
    if settings.offsite.repository:
        yield "# TYPE mks_host_offsite_seconds gauge"
        yield f"mks_host_offsite_seconds {offsite.backup_at:.0f}"
        yield "# TYPE mks_host_rehearsed_seconds gauge"
        yield f"mks_host_rehearsed_seconds {offsite.rehearsed_at or offsite.first_at:.0f}"


def _server_metrics(servers: Servers) -> Iterator[str]:
    yield "# TYPE mks_host_archive_fails gauge"
    if servers.archive_fails is not None:
        yield f"mks_host_archive_fails {int(servers.archive_fails)}"
    yield "# TYPE mks_host_redis_answers gauge"
    for role, redis in servers.redis.items():
        yield f'mks_host_redis_answers{{role="{role}"}} {int(redis is not None)}'
    answering = {role: redis for role, redis in servers.redis.items() if redis is not None}
    yield "# TYPE mks_host_redis_memory_ratio gauge"
    for role, redis in answering.items():
        policy = "evicts" if redis.evicts else "refuses"
        yield f'mks_host_redis_memory_ratio{{role="{role}",full="{policy}"}} {redis.memory:.4f}'
    yield "# TYPE mks_host_redis_evicted_keys_total counter"
    for role, redis in answering.items():
        yield f'mks_host_redis_evicted_keys_total{{role="{role}"}} {redis.evicted}'
    yield "# TYPE mks_host_redis_rejected_connections_total counter"
    for role, redis in answering.items():
        yield f'mks_host_redis_rejected_connections_total{{role="{role}"}} {redis.rejected}'
    yield "# TYPE mks_host_queue_memory_ratio gauge"
    for name, share in servers.queues.items():
        label = name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        yield f'mks_host_queue_memory_ratio{{queue="{label}"}} {share:.4f}'
