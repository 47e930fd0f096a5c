"""Consistency rules between options: order of timeouts, distinct ports, size of connection pools."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = [
    "APPLICATION_SLOTS",
    "WORKER_GENERATIONS",
    "connections_needed",
    "connections_of_workers",
    "consistency_errors",
    "max_pods",
]

APPLICATION_SLOTS: Final = 2
"""Two versions run side by side during a release."""

WORKER_GENERATIONS: Final = APPLICATION_SLOTS + 1
"""Sets of workers at the same time: both slots, and the new workers of a slot that is being reloaded."""

_RESERVED: Final = 10
"""Connections reserved for backups, migrations and administrators."""
_RESERVED_BY_PLAN: Final = 3
"""The part of these that ``plan_pool`` reserves itself."""

_YEAR: Final = 31_536_000
_OWN_FOLDERS: Final = (
    "releases",
    "config",
    "credentials",
    "share",
    "state",
    "logs",
    "backups",
    "key_backups",
    "wal",
    "acme",
)
_SYSTEM: Final = """
/ /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp /usr /var
/var/backups /var/cache /var/lib /var/log /var/mail /var/opt /var/run /var/spool /var/tmp /var/www
/usr/bin /usr/include /usr/lib /usr/libexec /usr/local /usr/sbin /usr/share /usr/src
/etc/nginx /etc/postgresql /etc/prometheus /etc/redis /etc/ssl /etc/systemd
"""
_OF_THE_SYSTEM: Final = frozenset(_SYSTEM.split())


def connections_needed(settings: Settings) -> int:
    """Return the database connections needed while two versions run and one of them is reloaded."""
    return WORKER_GENERATIONS * _threads(settings) + _of_tasks(settings) + _RESERVED


def connections_of_workers(settings: Settings) -> int:
    """Return the database connections available to all sets of workers together."""
    return settings.stores.database_connections - _of_tasks(settings) - (_RESERVED - _RESERVED_BY_PLAN)


def max_pods(settings: Settings) -> int:
    """Return the maximum number of pods with a connection per thread, minus one for rolling updates."""
    left = settings.stores.database_connections - _of_tasks(settings) - _RESERVED
    return max(APPLICATION_SLOTS, left // _threads(settings) - 1)


def _threads(settings: Settings) -> int:
    return settings.gunicorn.workers * settings.gunicorn.threads


def _of_tasks(settings: Settings) -> int:
    return settings.tasks.processes + 2 if settings.has_tasks else 0


def consistency_errors(settings: Settings) -> Iterator[str]:
    """Yield each contradiction between options."""
    yield from _names(settings)
    yield from _folders(settings)
    yield from _ports(settings)
    yield from _times(settings)
    yield from _certificates(settings)
    yield from _application(settings)
    needed = connections_needed(settings)
    if settings.has_database and needed > settings.stores.database_connections:
        yield (
            f"gunicorn.workers × gunicorn.threads in two slots, once more in a reload, tasks and {_RESERVED} in "
            f"reserve need {needed} "
            f"database connections, more than stores.database_connections ({settings.stores.database_connections})"
        )
    if settings.edge.burst < settings.edge.requests_per_second:
        yield "edge.burst must not be below edge.requests_per_second: a page with its files would be refused"


def _names(settings: Settings) -> Iterator[str]:
    site = settings.site
    if not site.hosts:
        yield "site.hosts must contain at least one host"
    if both := sorted(set(site.hosts) & set(site.redirect_hosts)):
        yield f"site.redirect_hosts names {both[0]}, which site.hosts answers"
    local = {"localhost"}
    if settings.edge.listen_address == "any" and local & set(site.hosts):
        yield 'site.hosts names localhost, which needs edge.listen_address = "loopback"'


def _application(settings: Settings) -> Iterator[str]:
    app = settings.app
    if app.migrate_back and not (app.schema and app.migrate):
        yield "app.migrate_back needs app.migrate, and app.schema, which says where to go back to"
    if app.kind not in settings.server.kinds:
        yield f"app.server must be gunicorn with app.kind = {app.kind}: {app.server} serves ASGI here"
    if app.kind == "asgi" and settings.edge.mode == "direct":
        yield 'edge.mode must be "nginx" with app.kind = asgi: gunicorn ends TLS only for WSGI here'
    for secret in settings.secrets:
        if secret.file in {"redis_url", "cache_url"} and not settings.has_redis:
            yield f'secrets.{secret.variable} needs "redis" in app.needs'
        elif secret.file == "database_url" and not settings.has_database:
            yield f'secrets.{secret.variable} needs "postgresql" in app.needs'
        elif secret.file == "celery_broker_url" and not settings.has_tasks:
            yield f"secrets.{secret.variable} needs tasks.application"
        if secret.variable in settings.variables:
            yield f"variables.{secret.variable} is among the [secrets] too"


def _folders(settings: Settings) -> Iterator[str]:
    """Check directories created for an account, which must not own or contain those of others."""
    folders = [(name, PurePosixPath(getattr(settings.paths, name))) for name in _OWN_FOLDERS]
    for name, folder in folders:
        if str(folder) in _OF_THE_SYSTEM:
            yield f"paths.{name} must be a separate directory: {folder} belongs to the system"
    for (name, folder), (other, another) in permutations(folders, 2):
        if (name, other) == ("credentials", "config"):
            continue
        if folder == another and name < other:
            yield f"paths.{name} and paths.{other} are the same folder"
        elif another in folder.parents and str(another) not in _OF_THE_SYSTEM:
            yield f"paths.{name} must not be inside paths.{other}: accounts that may write there could delete it"


def _ports(settings: Settings) -> Iterator[str]:
    edge, seen = settings.edge, dict[int, str]()
    for name, port in (
        ("edge.http_port", edge.http_port),
        ("edge.https_port", edge.https_port),
        ("edge.status_port", edge.status_port),
        ("upkeep.metrics_port", settings.upkeep.metrics_port),
        ("upkeep.metrics_port + 1 (the other slot)", settings.upkeep.metrics_port + 1),
    ):
        if port in seen:
            yield f"{name} and {seen[port]} are the same port"
        seen[port] = name


def _times(settings: Settings) -> Iterator[str]:
    order = (
        ("edge.read_timeout", settings.edge.read_timeout),
        ("gunicorn.timeout", settings.gunicorn.timeout),
        ("stores.statement_timeout", settings.stores.statement_timeout),
    )
    for (outer, longer), (inner, shorter) in pairwise(order):
        if longer <= shorter:
            yield f"{outer} must be longer than {inner}, so that the inner one can still answer"
    if settings.gunicorn.keepalive < 10:
        yield "gunicorn.keepalive must be at least 10s: nginx closes idle connections five seconds earlier"
    if settings.upkeep.backup_max_age < 86_400:
        yield "upkeep.backup_max_age must be at least a day: backups are made daily"


def _certificates(settings: Settings) -> Iterator[str]:
    tls = settings.tls
    if tls.source == "own":
        if not tls.certificate or not tls.key:
            yield "tls.certificate and tls.key must be given with tls.source = own"
        if tls.eab_key_id:
            yield "tls.eab_key_id belongs to tls.source = acme"
    else:
        if not tls.email:
            yield "tls.email must be given with tls.source = acme: the provider's account"
        if tls.certificate or tls.key:
            yield "tls.certificate and tls.key belong to tls.source = own"
        if settings.edge.http_port != 80 and settings.edge.listen_address == "any":
            yield "edge.http_port must be 80 with tls.source = acme: challenges come there (RFC 8555, 8.3)"
    if tls.hsts_preload and (tls.hsts_max_age < _YEAR or not tls.hsts_subdomains):
        yield "tls.hsts_preload needs tls.hsts_max_age of at least 365d and tls.hsts_subdomains"
