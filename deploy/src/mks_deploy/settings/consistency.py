"""Consistency rules between options: order of timeouts, distinct ports, size of connection pools."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from itertools import pairwise, permutations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = [
    "APPLICATION_SLOTS",
    "POD_WORKERS",
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

POD_WORKERS: Final = 1
"""Workers of a pod: a cluster adds pods, so a pod takes as few database connections as it can."""

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
_NAMES: Final = """
root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody sshd messagebus
postgres pgbouncer redis nginx prometheus replicator default peer all replication
"""
_ACCOUNTS: Final = frozenset(_NAMES.split())
"""Accounts of Debian and its servers, and words of ``pg_hba.conf`` and Redis's ACL: a site has its own account."""
_DATABASES: Final = frozenset(
    {"postgres", "template0", "template1", "all", "sameuser", "samerole", "samegroup", "replication"}
)
_WIDEST: Final = 7
_OFFICES: Final = {4: (16, 32), 6: (32, 64)}
"""Prefixes of offices: in wider networks are strangers, and clients of IPv6 are counted by their /64."""
"""Shortest prefix of a network of proxies; fc00::/7 is the largest private one."""


def connections_needed(settings: Settings) -> int:
    """Return the database connections needed while two versions run and one of them is reloaded."""
    if settings.stores.pooler:
        return (len(settings.with_role("web", "worker")) or 1) * settings.stores.pooler_size + _RESERVED
    webs, workers = (len(settings.with_role(role)) or 1 for role in ("web", "worker"))
    return webs * WORKER_GENERATIONS * _threads(settings) + workers * _of_tasks(settings) + _RESERVED


def connections_of_workers(settings: Settings) -> int:
    """Return the database connections available to all sets of workers of one host together."""
    if settings.stores.pooler:  # each connects to PgBouncer, which takes them all
        return WORKER_GENERATIONS * _threads(settings) + _RESERVED_BY_PLAN
    webs, workers = (len(settings.with_role(role)) or 1 for role in ("web", "worker"))
    of_tasks = workers * _of_tasks(settings)
    return (settings.stores.database_connections - of_tasks - (_RESERVED - _RESERVED_BY_PLAN)) // webs


def max_pods(settings: Settings) -> int:
    """Return the maximum number of pods with a connection per thread, minus one for rolling updates."""
    left = settings.stores.database_connections - _of_tasks(settings) - _RESERVED
    return max(APPLICATION_SLOTS, left // (POD_WORKERS * settings.gunicorn.threads) - 1)


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
    yield from _logs(settings)
    yield from _hosts(settings)
    yield from _media(settings)
    needed = connections_needed(settings)
    if settings.has_database and needed > settings.stores.database_connections:
        what = (
            f"stores.pooler_size on all hosts and {_RESERVED} in reserve"
            if settings.stores.pooler
            else f"gunicorn.workers × gunicorn.threads in two slots, once more in a reload, tasks and {_RESERVED} "
            f"in reserve{' on all hosts' if settings.hosts else ''}"
        )
        pools = not (settings.stores.pooler or settings.with_role("standby"))
        yield (
            f"{what} need {needed} database connections, more than stores.database_connections "
            f"({settings.stores.database_connections}): raise it{', or set stores.pooler = true' * pools}"
        )
    if settings.stores.pooler and not settings.has_database:
        yield 'stores.pooler needs "postgresql" in app.needs'
    if settings.stores.pooler and settings.with_role("standby"):
        yield "stores.pooler must be false with a standby: PgBouncer does not find out which server takes writes"
    if settings.stores.standby_reads and not settings.with_role("standby"):
        yield 'stores.standby_reads needs a host with the role "standby"'
    if settings.edge.burst < settings.edge.requests_per_second:
        yield "edge.burst must not be below edge.requests_per_second: a page with its files would be refused"


_ONE: Final = ("database", "cache", "queue")
"""Roles that one host may have; of Redis there may be replicas, of PostgreSQL standbys."""


def _hosts(settings: Settings) -> Iterator[str]:
    """Check that each part of the application has its hosts."""
    if not settings.hosts:
        return
    for key in ("name", "address"):
        seen = set[str]()
        for number, host in enumerate(settings.hosts, start=1):
            value = getattr(host, key)
            if value in seen:
                yield f"hosts[{number}].{key} is that of another host: {value}"
            seen.add(value)
    for number, host in enumerate(settings.hosts, start=1):
        if "edge" in host.roles and "web" not in host.roles:
            yield f'hosts[{number}].roles must name "web" beside "edge": the edge serves the static files'
        if {"database", "standby"} <= set(host.roles):
            yield f'hosts[{number}].roles must not name both "database" and "standby"'
        if {"redis", "queue"} <= set(host.roles) and settings.with_role("sentinel"):
            yield (
                f'hosts[{number}].roles must not name both "queue" and "redis" with "sentinel": a replica takes no '
                "tasks"
            )
    needed = {
        "edge": "takes the requests from outside",
        **({"database": "has PostgreSQL, as app.needs says"} if settings.has_database else {}),
        **({"redis": "has Redis, as app.needs says"} if settings.has_redis else {}),
        **({"cache": "has the Redis of the cache"} if settings.has_redis else {}),
        **({"worker": "runs the tasks"} if settings.has_tasks else {}),
    }
    for role, what in needed.items():
        if not settings.with_role(role):
            yield f'[hosts] must give one host the role "{role}", which {what}'
    for role in _ONE:
        if len(settings.with_role(role)) > 1:
            yield f'[hosts] must give only one host the role "{role}"'
    for role, needs, what in (
        ("database", settings.has_database, '"postgresql" in app.needs'),
        ("standby", settings.has_database, '"postgresql" in app.needs'),
        *((role, settings.has_redis, '"redis" in app.needs') for role in ("redis", "cache", "queue")),
        ("worker", settings.has_tasks, "tasks.application"),
    ):
        if settings.with_role(role) and not needs:
            yield f'[hosts] must not give the role "{role}" without {what}'
    if settings.with_role("sentinel") and settings.has_tasks and not settings.with_role("queue"):
        yield '[hosts] must give a host the role "queue" beside "sentinel": Celery asks Sentinel without TLS'
    if settings.with_role("sentinel") and not settings.app.hardened:
        yield '[hosts] must not give the role "sentinel" with app.hardened = false: its address is mks_hardening\'s'
    sentinels = len(settings.with_role("sentinel"))
    if sentinels and (sentinels < 3 or sentinels % 2 == 0 or len(settings.with_role("redis")) < 2):
        yield (
            '[hosts] must give the role "sentinel" to three or five hosts, and "redis" to at least two: '
            "a majority has to agree that the primary is down"
        )
    if len(settings.with_role("redis")) > 1 and not sentinels:
        yield '[hosts] must give three hosts the role "sentinel" with more than one "redis"'
    if settings.tls.source == "acme" and len(settings.with_role("edge")) > 1:
        yield 'tls.source must be "own" with more than one edge: the challenge of the provider reaches any of them'
    if settings.edge.mode != "nginx":
        yield 'edge.mode must be "nginx" with several hosts'
    if (
        len(settings.with_role("web", "worker")) > 1
        and ("MKS_UPLOADS" in settings.app.host_variables or settings.media.url or settings.media.folder)
        and not settings.host.shared_uploads
    ):
        yield (
            "host.shared_uploads must be true with uploads (MKS_UPLOADS, [media]) and several hosts: "
            f"{settings.paths.state}/uploads has to be one folder that all of them mount"
        )
    if settings.stores.sqlite:
        yield "stores.sqlite must be empty with several hosts: a file of SQLite is on one of them; use PostgreSQL"


def _media(settings: Settings) -> Iterator[str]:
    url = settings.media.url
    if not url:
        return
    if not url.endswith("/") or url == "/":
        yield 'media.url must end with a slash and name a folder, such as "/media/"'
    elif url in {"/static/", "/api/"} or url.startswith(("/-/", "/.", "/edge-error/")):
        yield f"media.url must not be {url}, which nginx serves from elsewhere"
    if settings.edge.mode != "nginx":
        yield 'edge.mode must be "nginx" with media.url'


def _names(settings: Settings) -> Iterator[str]:
    site = settings.site
    if not site.hosts:
        yield "site.hosts must contain at least one host"
    if both := sorted(set(site.hosts) & set(site.redirect_hosts)):
        yield f"site.redirect_hosts names {both[0]}, which site.hosts answers"
    if site.name in _ACCOUNTS:
        yield f"site.name must not be {site.name}: there is an account or a word of that name already"
    if settings.has_database and settings.stores.database_name in _DATABASES:
        name = settings.stores.database_name
        yield f"stores.database_name must not be {name}, which means something else to PostgreSQL"
    for network in settings.edge.proxies_in_front:
        if int(network.rpartition("/")[2]) < _WIDEST:
            yield f"edge.proxies_in_front must not hold {network}: any client could write its own address"
    for network, _ in settings.edge.offices:
        office = ip_network(network)
        widest, narrowest = _OFFICES[office.version]
        if not widest <= office.prefixlen <= narrowest:
            yield (
                f"edge.offices must not hold {network}: an office is an IPv{office.version} network from "
                f"/{widest} to /{narrowest}"
            )
    if len(dict(settings.edge.offices)) < len(settings.edge.offices):
        yield "edge.offices names a network twice"
    if settings.edge.offices and not settings.edge.sign_in_paths:
        yield "edge.offices needs edge.sign_in_paths, the addresses that passwords are sent to"
    local = {"localhost"}
    if settings.edge.listen_address == "any" and local & set(site.hosts):
        yield 'site.hosts names localhost, which needs edge.listen_address = "loopback"'


def _logs(settings: Settings) -> Iterator[str]:
    logs = settings.logs
    if bool(logs.ship) != bool(logs.url):
        yield "logs.ship and logs.url belong together"
    local = ("http://localhost", "http://127.0.0.1")
    if logs.url.startswith("http:") and not logs.url.startswith(local):
        yield "logs.url must be https: the field Authorization would be sent in clear"


def _application(settings: Settings) -> Iterator[str]:
    app = settings.app
    if settings.upkeep.mail_sink and settings.site.environment != "staging":
        yield 'upkeep.mail_sink needs site.environment = "staging": alerts of production must arrive'
    if settings.upkeep.mail_sink and (settings.upkeep.smtp_host or settings.upkeep.smtp_user):
        yield "upkeep.mail_sink replaces upkeep.smtp_host and upkeep.smtp_user: remove them"
    if any(part.startswith(".") for part in app.static.split("/")):
        yield "app.static must not name a hidden folder or the whole source tree: everybody could read it"
    if app.migrate_back and not (app.schema and app.migrate):
        yield "app.migrate_back needs app.migrate, and app.schema, which says where to go back to"
    if app.kind not in settings.server.kinds:
        yield f"app.server must be gunicorn or granian with app.kind = wsgi: {app.server} serves ASGI here"
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
        *((("edge.inner_port", edge.inner_port),) if settings.hosts else ()),
        ("upkeep.metrics_port", settings.upkeep.metrics_port),
        ("upkeep.metrics_port + 1 (the other slot)", settings.upkeep.metrics_port + 1),
        ("upkeep.mail_sink_port", settings.upkeep.mail_sink_port),
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
