"""Settings model: every option with its type, default and meaning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar, cast

from mks_deploy.settings.value_types import (
    Kind,
    a_celery_app,
    a_choice,
    a_command,
    a_flag,
    a_host,
    a_host_label,
    a_list_of,
    a_mapping,
    a_module_object,
    a_network,
    a_number,
    a_path,
    a_policy,
    a_private_address,
    a_reason,
    a_relative_path,
    a_repository,
    a_seconds,
    a_size,
    a_slug,
    a_time_of_day,
    a_token,
    a_url,
    a_url_path,
    a_variable,
    a_webhook,
    an_address,
    an_image,
    an_ssh_name,
)

__all__ = [
    "HOST_VARIABLES",
    "REQUIRED",
    "ROLES",
    "SERVERS",
    "App",
    "Host",
    "Option",
    "OwnVariable",
    "Secret",
    "Server",
    "Settings",
    "option",
]

T = TypeVar("T")

REQUIRED: Final = object()
"""The default of a required option."""

_STAGING: Final = {
    "https://acme-v02.api.letsencrypt.org/directory": "https://acme-staging-v02.api.letsencrypt.org/directory"
}
_DAY: Final = 86_400
_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3
_PORT: Final = a_number(1, 65_535)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of the application, and how it gets it.

    Attributes:
        variable: name of the variable.
        file: file in the folder of credentials.
        as_value: whether the variable holds the secret; otherwise ``NAME_FILE`` names its file.
    """

    variable: str
    file: str
    as_value: bool


HOST_VARIABLES: Final = (
    "MKS_UPLOADS",
    "MKS_UPLOADS_REDIRECT",
    "MKS_BACKUPS",
    "MKS_BACKUP_MAX_AGE",
    "MKS_OFFICES",
)
"""Variables about the host: uploads and where nginx serves them, backups and how old one may be, offices."""


@dataclass(frozen=True, slots=True)
class OwnVariable:
    """A variable that the application reads besides those of the library."""

    meaning: str
    example: str


def _own_variable(value: object) -> OwnVariable:
    given = value if isinstance(value, Mapping) else {}
    texts = [given.get(key) for key in ("meaning", "example")]
    if given.keys() != {"meaning", "example"} or not all(
        isinstance(text, str) and re.fullmatch(r"[^\x00-\x1f\x7f]{1,200}", text) for text in texts
    ):
        raise ValueError('a table such as {meaning = "Largest order.", example = "10"}')
    return OwnVariable(*map(str, texts))


an_own_variable: Final = Kind("a table with meaning and example", _own_variable)


@dataclass(frozen=True, slots=True)
class Server:
    """A server of applications.

    Attributes:
        kinds: interfaces that it serves here.
        program: its program in the virtual environment.
        reloads: whether it can be reloaded, and restarted, without losing a request. Otherwise
            ``mks-deploy restart`` moves the requests to another slot, which loses none with any server.
        metrics: whether the kit can show the metrics of all its workers on one port.
    """

    kinds: tuple[str, ...]
    program: str
    reloads: bool
    metrics: bool


SERVERS: Final = {
    "gunicorn": Server(("wsgi", "asgi"), "gunicorn", reloads=True, metrics=True),
    "gunicorn-uvicorn": Server(("asgi",), "gunicorn", reloads=False, metrics=True),
    "uvicorn": Server(("asgi",), "uvicorn", reloads=False, metrics=False),
    "hypercorn": Server(("asgi",), "hypercorn", reloads=False, metrics=False),
    "granian": Server(("wsgi", "asgi"), "granian", reloads=False, metrics=False),
}
"""Measured through nginx, twelve clients, a third of the requests POST: three reloads and six restarts lost none of
23,000 with gunicorn in two runs, and one request of its asyncio worker in a third, on an overloaded machine. Its
worker of uvicorn lost 12 of 9,000, uvicorn 2 of 6,000, Hypercorn up to 24 of 1,000. Granian was not measured."""


def _server(value: object) -> str:
    if isinstance(value, str) and value in SERVERS:
        return value
    raise ValueError(" or ".join(SERVERS))


a_server: Final = Kind(" or ".join(SERVERS), _server)


@dataclass(frozen=True, slots=True)
class Option:
    """One key of ``deploy.toml``."""

    kind: Kind[Any]
    default: object
    example: str
    meaning: str


def option(kind: Kind[T], default: T | object, meaning: str, *, example: str) -> T:
    """Declare a field for a key of ``deploy.toml``; ``example`` is the default in TOML syntax."""
    described = field(metadata={"option": Option(kind, default, example, meaning)})
    return cast(T, described)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The site: its name and host names."""

    name: str = option(
        a_slug, REQUIRED, "Name of units, account, folders and cookies' owner.", example='"shop"'
    )
    hosts: tuple[str, ...] = option(
        a_list_of(a_host),
        REQUIRED,
        "Names that are answered, the canonical one first.",
        example='["shop.example.jp"]',
    )
    redirect_hosts: tuple[str, ...] = option(
        a_list_of(a_host), (), "Further names, which only lead to the canonical one.", example="[]"
    )
    environment: str = option(
        a_choice("production", "staging"),
        "production",
        "The stage; staging differs only in names, and excludes search engines.",
        example='"production"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The application: its target, and what it needs."""

    kind: str = option(a_choice("wsgi", "asgi"), REQUIRED, "Interface of the application.", example='"wsgi"')
    target: str = option(
        a_module_object,
        REQUIRED,
        "The application, or the function that makes it, as gunicorn imports it.",
        example='"shop.wsgi:application"',
    )
    server: str = option(
        a_server,
        "gunicorn",
        "gunicorn, with threads for WSGI and its asyncio worker for ASGI, keeps requests at a reload or restart; "
        "with the others, restart by `mks-deploy restart`.",
        example='"gunicorn"',
    )
    needs: tuple[str, ...] = option(
        a_list_of(a_choice("postgresql", "redis")),
        REQUIRED,
        "Servers that it needs on this host.",
        example='["postgresql"]',
    )
    static: str = option(
        a_relative_path,
        "",
        "Folder of static files below /static/, in the source tree or in an installed package; nginx serves it.",
        example='"shop/static"',
    )
    build: tuple[tuple[str, ...], ...] = option(
        a_list_of(a_command),
        (),
        'Commands such as [["python", "manage.py", "collectstatic", "--noinput"]] that complete the folder of a '
        "version; `mks-deploy up` runs them there, with [variables], and without any secret.",
        example="[]",
    )
    live: str = option(
        a_url_path,
        "/livez",
        "Address that answers 200 while the process works. If it is named after health, such as /healthz or "
        "/status, nginx keeps visitors out.",
        example='"/livez"',
    )
    ready: str = option(
        a_url_path,
        "/readyz",
        "Address that answers 200 when requests may come.",
        example='"/readyz"',
    )
    migrate: tuple[str, ...] = option(
        a_command,
        (),
        "Command that changes the database; runs once at `release --migrate`, before any process starts.",
        example='["python", "manage.py", "migrate"]',
    )
    schema: tuple[str, ...] = option(
        a_command,
        (),
        "Command that prints the revision of the database; each `release --migrate` records it first.",
        example='["alembic", "current"]',
    )
    migrate_back: tuple[str, ...] = option(
        a_command,
        (),
        "Command that goes back to the revision that follows as its last word, for `rollback --schema`.",
        example='["alembic", "downgrade"]',
    )
    hardened: bool = option(
        a_flag, True, "Whether it uses mks_hardening, which then gets the secret secret_keys.", example="true"
    )
    host_variables: tuple[str, ...] = option(
        a_list_of(a_choice(*HOST_VARIABLES)),
        (),
        "Which facts about the host it reads as variables.",
        example="[]",
    )
    limits: tuple[str, ...] = option(
        a_list_of(a_token), (), "Names of rate limits besides those of the library.", example="[]"
    )
    variables: tuple[tuple[str, OwnVariable], ...] = option(
        a_mapping(a_variable, an_own_variable),
        (),
        "The application's own variables that begin with MKS_, each with its meaning and an example.",
        example="{}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where things are on the host; ``{name}`` stands for the name of the site."""

    releases: str = option(
        a_path, "/opt/{name}", "Releases, their static files, a link for each slot.", example='"/opt/{name}"'
    )
    config: str = option(
        a_path, "/etc/{name}", "Environment and gunicorn's settings.", example='"/etc/{name}"'
    )
    credentials: str = option(
        a_path,
        "/etc/{name}/credentials",
        "One file for each secret; root alone reads it, systemd hands it on.",
        example='"/etc/{name}/credentials"',
    )
    share: str = option(a_path, "/usr/share/{name}", "Pages of the edge.", example='"/usr/share/{name}"')
    state: str = option(a_path, "/var/lib/{name}", "Uploads, spool, metrics.", example='"/var/lib/{name}"')
    logs: str = option(
        a_path, "/var/log/{name}", "Log files of the application.", example='"/var/log/{name}"'
    )
    runtime: str = option(a_path, "/run", "Sockets: a folder for each slot is below.", example='"/run"')
    backups: str = option(
        a_path, "/var/backups/{name}", "Backups; better on another disk.", example='"/var/backups/{name}"'
    )
    key_backups: str = option(
        a_path,
        "/var/backups/{name}-keys",
        "Backups of keys, apart: who steals a backup has not got them.",
        example='"/var/backups/{name}-keys"',
    )
    wal: str = option(
        a_path,
        "/var/backups/{name}-wal",
        "Segments of PostgreSQL for recovery to a moment; its account writes there.",
        example='"/var/backups/{name}-wal"',
    )
    nginx: str = option(a_path, "/etc/nginx", "nginx's configuration.", example='"/etc/nginx"')
    nginx_logs: str = option(a_path, "/var/log/nginx", "nginx's log files.", example='"/var/log/nginx"')
    nginx_cache: str = option(
        a_path, "/var/lib/nginx", "nginx's temporary files.", example='"/var/lib/nginx"'
    )
    acme: str = option(
        a_path,
        "/var/lib/{name}-acme",
        "certbot's folder, apart from /etc/letsencrypt, which the distribution renews as root.",
        example='"/var/lib/{name}-acme"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The edge between the network and the application."""

    mode: str = option(
        a_choice("nginx", "direct"),
        "nginx",
        "nginx in front, or gunicorn with its own TLS and a separate listener for redirects.",
        example='"nginx"',
    )
    http_port: int = option(_PORT, 80, "Port of plain http: redirects and ACME challenges.", example="80")
    https_port: int = option(_PORT, 443, "Port of https.", example="443")
    ipv6: bool = option(a_flag, True, "Listen on IPv6 too.", example="true")
    listen_address: str = option(
        a_choice("any", "loopback"),
        "any",
        "Where nginx listens; loopback is for rehearsals.",
        example='"any"',
    )
    inner_port: int = option(
        _PORT, 8080, "Port of a web host for the edge, with several hosts.", example="8080"
    )
    status_port: int = option(_PORT, 8081, "nginx's status page, on loopback alone.", example="8081")
    user: str = option(a_slug, "www-data", "Account of nginx's workers.", example='"www-data"')
    proxies_in_front: tuple[str, ...] = option(
        a_list_of(a_network),
        (),
        "Networks of a CDN or balancer in front of nginx, whose X-Forwarded-For is trusted.",
        example="[]",
    )
    connections: int = option(
        a_number(512, 65_536),
        8192,
        "Connections of one worker; a proxied request needs two.",
        example="8192",
    )
    body_limit: int = option(
        a_size(_KIB, _GIB),
        16 * _MIB,
        "Largest request body; the application's own limit is below.",
        example='"16m"',
    )
    read_timeout: int = option(
        a_seconds(5, 3600), 75, "How long nginx waits for the application.", example='"75s"'
    )
    requests_per_second: int = option(
        a_number(1, 10_000),
        600,
        "First limit: requests per second of one address, which a whole office may share.",
        example="600",
    )
    burst: int = option(
        a_number(1, 100_000), 1200, "Requests of one address that may come at once.", example="1200"
    )
    sign_in_per_minute: int = option(
        a_number(1, 600), 60, "Sign-in attempts a minute of one address.", example="60"
    )
    offices: tuple[tuple[str, int], ...] = option(
        a_mapping(a_network, a_number(60, 6000)),
        (),
        'Sign-in attempts a minute of each office that shares an address: { "203.0.113.8/29" = 1200 }.',
        example="{}",
    )
    connections_per_address: int = option(
        a_number(1, 65_536),
        1200,
        "Connections of one address; in HTTP/2 each request counts.",
        example="1200",
    )
    sign_in_paths: tuple[str, ...] = option(
        a_list_of(a_url_path),
        (),
        "Where passwords are sent to: the addresses that begin like one of these get the limit above.",
        example="[]",
    )
    content_security_policy: str = option(
        a_policy,
        "",
        "Content-Security-Policy of pages and static files for which the application sends none: web (own files "
        "only), legacy (inline scripts and styles too), api (nothing), or a policy. Empty by default: only the "
        "application knows what its pages load.",
        example='""',
    )
    embeddable: bool = option(
        a_flag,
        False,
        "Whether other sites may show pages in frames and load files, if the application says nothing of it.",
        example="false",
    )
    refuse_api_over_http: bool = option(
        a_flag,
        False,
        "Refuse /api/ over plain http, so that a wrong client is noticed, not redirected (ASVS 5.0 V4.1.2).",
        example="false",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates, and what TLS promises."""

    source: str = option(
        a_choice("acme", "own"), "acme", "An ACME provider, or a certificate of your own.", example='"acme"'
    )
    email: str = option(an_address, "", "Account of the ACME provider.", example='"ops@example.jp"')
    directory: str = option(
        a_url("https"),
        "https://acme-v02.api.letsencrypt.org/directory",
        "The provider's directory.",
        example='"https://acme-v02.api.letsencrypt.org/directory"',
    )
    rehearsal_directory: str = option(
        a_url("https"),
        "",
        "Directory that `certificate rehearse` asks; Let's Encrypt's has its staging one by default, others none.",
        example='""',
    )
    eab_key_id: str = option(
        a_token,
        "",
        "External account binding, where the provider asks for it; the key is the credential acme_eab_hmac_key.",
        example='""',
    )
    certificate: str = option(
        a_path,
        "",
        "Own certificate with its chain, PEM; only with source = own.",
        example='"/etc/ssl/site.pem"',
    )
    key: str = option(a_path, "", "Its key, PEM; only with source = own.", example='"/etc/ssl/site.key"')
    hsts_max_age: int = option(
        a_seconds(0, 10 * 366 * _DAY),
        300,
        "How long browsers insist on https. Raise it to 730d once https has worked for a week: it cannot be taken "
        "back earlier.",
        example='"5m"',
    )
    hsts_subdomains: bool = option(
        a_flag, False, "Every host below is bound too; true once all of them have https.", example="false"
    )
    hsts_preload: bool = option(
        a_flag,
        False,
        "Allow the hard-wired list of browsers; nearly impossible to take back.",
        example="false",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gunicorn:
    """The application server, whichever ``app.server`` names."""

    workers: int = option(a_number(1, 256), 2, "Processes: as many as there are cores.", example="2")
    threads: int = option(a_number(2, 256), 16, "Threads of each, for WSGI.", example="16")
    timeout: int = option(
        a_seconds(2, 3600), 60, "A worker that is silent for longer is ended.", example='"60s"'
    )
    graceful_timeout: int = option(
        a_seconds(1, 3600), 30, "How long running requests may take at a reload or stop.", example='"30s"'
    )
    keepalive: int = option(
        a_seconds(2, 3600),
        75,
        "How long an idle connection from nginx is kept; nginx closes first.",
        example='"75s"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Work outside the request."""

    enabled: bool = option(
        a_flag, True, "Run a Celery worker and beat, if an application is named.", example="true"
    )
    application: str = option(
        a_celery_app,
        "",
        "The Celery application; without one there is no worker.",
        example='"shop.celery:app"',
    )
    processes: int = option(a_number(1, 256), 2, "Processes of the worker.", example="2")
    stop_timeout: int = option(
        a_seconds(1, 3600), 25, "How long running tasks may take at a stop.", example='"25s"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """Releases: commands around them, and how many versions are kept."""

    keep: int = option(
        a_number(0, 1000),
        5,
        "Versions kept after a release, besides the running and the previous one; 0 keeps all.",
        example="5",
    )
    before: tuple[tuple[str, ...], ...] = option(
        a_list_of(a_command),
        (),
        'Commands of the new version, such as [["python", "manage.py", "check"]]; if one fails, nothing is '
        "changed.",
        example="[]",
    )
    after: tuple[tuple[str, ...], ...] = option(
        a_list_of(a_command),
        (),
        "Commands that run once the version gets all requests, after a rollback too.",
        example="[]",
    )
    hook_timeout: int = option(a_seconds(1, 3600), 300, "How long one of them may take.", example='"5m"')
    canary_cookie: bool = option(
        a_flag,
        True,
        "While there is a canary, a cookie without any data of the visitor keeps each on one version.",
        example="true",
    )


ROLES: Final = ("edge", "web", "worker", "database", "standby", "redis", "cache", "queue", "sentinel")
"""What a host may do, in the order of the way of a request. One host alone has all but the last three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One of several hosts. Without any, everything is on one."""

    name: str = option(a_host_label, REQUIRED, "Name of the host, for `--host`.", example='"web1"')
    address: str = option(
        a_private_address,
        REQUIRED,
        "Where the other hosts reach it, in a network that only they share.",
        example='"10.0.0.11"',
    )
    roles: tuple[str, ...] = option(
        a_list_of(a_choice(*ROLES)), REQUIRED, "What it does.", example='["edge", "web"]'
    )
    ssh: str = option(
        an_ssh_name,
        "",
        "What ssh calls it for `mks-deploy up`; root at its address by default.",
        example='""',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """What ``mks-deploy apply`` may change of the host besides the site; nothing by default."""

    firewall: bool = option(
        a_flag, False, "nftables: refuse all but ssh, http, https and what this host began.", example="false"
    )
    ssh_port: int = option(_PORT, 22, "Port of ssh, which the firewall leaves open.", example="22")
    shared_uploads: bool = option(
        a_flag,
        False,
        "The folder of uploads is the same one on all web hosts, such as a mount of NFS.",
        example="false",
    )
    ssh_keys_only: bool = option(
        a_flag, False, "sshd: no passwords, root by key alone, five tries.", example="false"
    )
    encrypt_secrets: str = option(
        a_choice("", "host", "tpm2", "host+tpm2"),
        "",
        "Encrypt the secrets of the host by systemd-creds: with a key in /var/lib/systemd, against copies without "
        "that folder; with the TPM 2.0 chip, against a stolen disk; or with both.",
        example='""',
    )
    unattended_upgrades: bool = option(
        a_flag,
        False,
        "Install the security updates of Debian each night; nothing restarts the host.",
        example="false",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """PostgreSQL and Redis, or a file of SQLite."""

    sqlite: str = option(
        a_relative_path,
        "",
        'File of the source tree that is the database of SQLite, such as "db.sqlite3"; in each version it is a '
        "link into the folder uploads/private/database of paths.state, which the backup holds.",
        example='""',
    )

    database_connections: int = option(
        a_number(10, 10_000), 120, "max_connections of PostgreSQL.", example="120"
    )
    database_name: str = option(a_slug, "{name}", "Name of the database.", example='"{name}"')
    database_scheme: str = option(
        a_choice("postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"),
        "postgresql",
        "How DATABASE_URL begins; SQLAlchemy chooses its driver by it.",
        example='"postgresql"',
    )
    statement_timeout: int = option(
        a_seconds(1, 3600), 30, "PostgreSQL ends a statement after this long.", example='"30s"'
    )
    database_memory: int = option(
        a_size(256 * _MIB, 512 * _GIB),
        _GIB,
        "Memory for PostgreSQL; a quarter becomes shared_buffers.",
        example='"1g"',
    )
    standby_wal: int = option(
        a_size(256 * _MIB, 512 * _GIB),
        8 * _GIB,
        "Most that PostgreSQL keeps for a standby that is not there; one that needs more is made again.",
        example='"8g"',
    )
    standby_reads: bool = option(
        a_flag,
        False,
        "Whether the application gets the standby as MKS_DATABASE_REPLICA_URLS, to read pages from it.",
        example="false",
    )
    pooler: bool = option(
        a_flag,
        False,
        "PgBouncer between the application and PostgreSQL, in transaction mode.",
        example="false",
    )
    pooler_size: int = option(
        a_number(2, 1000), 20, "Connections to PostgreSQL that each PgBouncer keeps.", example="20"
    )
    database_listen: str = option(
        a_choice("", "localhost"), "", "PostgreSQL over its socket alone, or on loopback too.", example='""'
    )
    redis_socket: str = option(
        a_path,
        "/run/redis/redis-server.sock",
        "Where Redis listens.",
        example='"/run/redis/redis-server.sock"',
    )
    redis_memory: int = option(
        a_size(32 * _MIB, 512 * _GIB),
        256 * _MIB,
        "maxmemory of Redis for sessions, limits and the queue of tasks; full, it refuses to write.",
        example='"256m"',
    )
    redis_cache_socket: str = option(
        a_path,
        "/run/redis-cache/redis-server.sock",
        "Where the Redis of the cache listens: Debian's redis-server@cache.service.",
        example='"/run/redis-cache/redis-server.sock"',
    )
    redis_cache_memory: int = option(
        a_size(32 * _MIB, 512 * _GIB),
        128 * _MIB,
        "maxmemory of Redis for the cache; when full, it evicts the least used entries.",
        example='"128m"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """Logs, backups, watching."""

    log_days: int = option(
        a_number(1, 3650),
        30,
        "Days for which log files of the application and of nginx are kept, whatever their size.",
        example="30",
    )
    log_size: int = option(
        a_size(_MIB, 10 * _GIB), 200 * _MIB, "A log file is rotated early at this size.", example='"200m"'
    )
    backup_at: str = option(a_time_of_day, "02:30", "When the backup runs.", example='"02:30"')
    backup_days: int = option(a_number(2, 3650), 14, "Days for which backups are kept.", example="14")
    base_backups: int = option(
        a_number(1, 520),
        2,
        "Weekly base backups of PostgreSQL kept: as far back every moment can be restored.",
        example="2",
    )
    backup_max_age: int = option(
        a_seconds(3600, 366 * _DAY),
        26 * 3600,
        "An older newest backup raises an alert, and stops a release with migrations.",
        example='"26h"',
    )
    metrics_port: int = option(_PORT, 9108, "The application's metrics, on loopback alone.", example="9108")
    disk_free_percent: int = option(
        a_number(1, 50), 10, "Less free space than this raises an alert.", example="10"
    )
    alert_mail: str = option(an_address, REQUIRED, "Who receives alerts.", example='"ops@example.jp"')
    smtp_host: str = option(
        a_host,
        "",
        "Mail server of the application's alerts; without it none are mailed.",
        example='"localhost"',
    )
    smtp_port: int = option(_PORT, 587, "Its port.", example="587")
    smtp_user: str = option(
        an_address,
        "",
        "User at it; the password is the credential smtp_password.",
        example='"alerts@example.jp"',
    )
    alert_webhook: str = option(
        a_webhook,
        "",
        'Where Alertmanager posts alerts, besides mail; "file" for the address in the secret alert_webhook_url.',
        example='""',
    )
    mail_sink: bool = option(
        a_flag,
        False,
        "In staging: all mail ends in the folder mail-sink of the state, and nothing leaves this host.",
        example="false",
    )
    mail_sink_port: int = option(_PORT, 2525, "Port of that mail server, on loopback alone.", example="2525")
    runbooks: str = option(
        a_url("https", "http"),
        "https://example.jp/runbooks",
        "Where the runbooks are read; alerts link there.",
        example='"https://example.jp/runbooks"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsite:
    """Copies of the backups elsewhere, encrypted by restic; the password is the credential restic_password."""

    repository: str = option(
        a_repository,
        "",
        "Where they go: another machine, an object store, or another disk. Empty for none.",
        example='"sftp:backup@backup.example.jp:/srv/restic/shop"',
    )
    ca: str = option(
        a_path, "", "Certificate authority of its server, PEM; the system's by default.", example='""'
    )
    keep_days: int = option(a_number(1, 3650), 14, "Daily copies kept.", example="14")
    keep_weeks: int = option(a_number(0, 520), 8, "Weekly copies kept.", example="8")
    keep_months: int = option(a_number(0, 240), 12, "Monthly copies kept.", example="12")
    prune: bool = option(
        a_flag,
        True,
        "Delete older copies from this host; false if the repository is append-only and another machine does.",
        example="true",
    )
    read_parts: int = option(
        a_number(1, 365),
        7,
        "Each day one of this many parts of all data is read back, to find what has decayed.",
        example="7",
    )
    rehearse_at: str = option(
        a_time_of_day,
        "04:30",
        "When, on Mondays, the newest copy is restored into a scratch cluster.",
        example='"04:30"',
    )

    @property
    def needs_ssh(self) -> bool:
        """Whether it is reached by ssh: credentials restic_ssh_key and restic_known_hosts."""
        return self.repository.startswith("sftp:")

    @property
    def needs_environment(self) -> bool:
        """Whether it asks who is there: credential restic_environment."""
        return self.repository.startswith(("rest:", "s3:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """Log files sent elsewhere by syslog-ng; the field Authorization is the credential logs_authorization."""

    ship: str = option(
        a_choice("", "elasticsearch", "loki", "splunk"),
        "",
        "The collector; empty for none. For Elasticsearch, the application writes the Elastic Common Schema.",
        example='""',
    )
    url: str = option(
        a_url("https", "http"),
        "",
        "Its address, without a path of its API.",
        example='""',
    )
    ca: str = option(
        a_path, "", "Certificate authority of the collector, PEM; the system's by default.", example='""'
    )
    buffer: int = option(
        a_size(16 * _MIB, 100 * _GIB),
        256 * _MIB,
        "Space for what the collector does not take at the moment; when it is full, reading waits.",
        example='"256m"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """Exceptions from the sandbox of the application's units, each with its reason, which is written next to it."""

    write_execute: str = option(
        a_reason,
        "",
        "Memory that is written and executed, as compilers at run time need it.",
        example='""',
    )
    chown: str = option(a_reason, "", "Give files to other groups of the account.", example='""')
    whole_proc: str = option(
        a_reason, "", "All of /proc, such as the memory and load of the host.", example='""'
    )
    write_paths: tuple[tuple[str, str], ...] = option(
        a_mapping(a_path, a_reason),
        (),
        "Further folders that it may write to, each with the reason.",
        example="{}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The container image, and what of the source tree it is built from."""

    build_from: str = option(
        an_image,
        "python:3.13-slim-trixie",
        "Image of the first stage; add @sha256:... to build from the same one each time.",
        example='"python:3.13-slim-trixie"',
    )
    run_from: str = option(
        an_image,
        "gcr.io/distroless/base-nossl-debian13:nonroot",
        "Image of the last stage, the same way.",
        example='"gcr.io/distroless/base-nossl-debian13:nonroot"',
    )

    requirements: str = option(
        a_relative_path, "requirements.txt", "Locked requirements with hashes.", example='"requirements.txt"'
    )
    install: tuple[str, ...] = option(
        a_list_of(a_relative_path),
        (),
        "Folders that pip installs as packages; without any, the source is copied as it is.",
        example='["."]',
    )
    files: tuple[str, ...] = option(
        a_list_of(a_relative_path),
        (),
        "Files sent to the builder; nothing else is, so no secret can be.",
        example='["pyproject.toml", "src"]',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Files that users hand in. They are in the folder uploads of paths.state, which the backup holds."""

    url: str = option(
        a_url_path,
        "",
        'Where everybody may read them, such as "/media/", except those in its folder private. Without it, nginx '
        "sends a file where the application answers with X-Accel-Redirect: /-/uploads/NAME.",
        example='""',
    )
    folder: str = option(
        a_relative_path,
        "",
        'Folder of the source tree that the application writes them to, such as "media"; in each version it is a '
        "link to them.",
        example='""',
    )


_ALONE: Final = ("edge", "web", "worker", "database", "redis", "cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a deployment, from which every file is rendered."""

    site: Site
    app: App
    paths: Paths
    edge: Edge
    tls: Tls
    gunicorn: Gunicorn
    tasks: Tasks
    release: Releases
    host: HostOptions
    stores: Stores
    upkeep: Upkeep
    offsite: Offsite
    logs: Logs
    sandbox: Sandbox
    image: Image
    media: Media
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    hosts: tuple[Host, ...] = ()
    here: Host | None = None

    def on(self, name: str) -> Settings:
        """Return the settings as seen from one of the hosts.

        Raises:
            ValueError: there is no such host.
        """
        for host in self.hosts:
            if host.name == name:
                return replace(self, here=host)
        raise ValueError(name)

    def with_role(self, *roles: str) -> tuple[Host, ...]:
        """Return the hosts that have one of the roles."""
        return tuple(host for host in self.hosts if set(roles) & set(host.roles))

    def has_role(self, *roles: str) -> bool:
        """Whether this host has one of the roles; one host alone has those of a whole site."""
        if self.here is None:
            return bool(self.with_role(*roles)) if self.hosts else bool(set(roles) & set(_ALONE))
        return bool(set(roles) & set(self.here.roles))

    @property
    def is_main(self) -> bool:
        """Whether backups and migrations run on this host: the first edge."""
        return self.here is None or self.here is next(iter(self.with_role("edge")), None)

    @property
    def runs_application(self) -> bool:
        """Whether processes of the application run on this host."""
        return self.has_role("web", "worker")

    @property
    def serves_database(self) -> bool:
        """Whether PostgreSQL runs on this host."""
        return self.has_database and self.has_role("database", "standby")

    @property
    def firewall_table(self) -> str:
        """Table of nftables that holds the rules of this deployment."""
        return self.name.replace("-", "_")

    @property
    def guards_primary(self) -> bool:
        """Whether PostgreSQL runs on this host, and another server may take over from it."""
        return self.serves_database and bool(self.with_role("standby"))

    @property
    def pools_here(self) -> bool:
        """Whether PgBouncer runs on this host."""
        return self.has_database and self.stores.pooler and self.runs_application

    @property
    def serves_redis(self) -> bool:
        """Whether the Redis of sessions and limits, or that of the queue, runs on this host."""
        return self.has_redis and self.has_role("redis", "queue")

    @property
    def serves_cache(self) -> bool:
        """Whether the Redis of the cache runs on this host."""
        return self.has_redis and self.has_role("cache")

    @property
    def runs_tasks(self) -> bool:
        """Whether a Celery worker runs on this host."""
        return self.has_tasks and self.has_role("worker")

    @property
    def runs_beat(self) -> bool:
        """Whether beat runs on this host: on the first one with a worker, as two would do everything twice."""
        return self.runs_tasks and (self.here is None or self.here is self.with_role("worker")[0])

    @property
    def name(self) -> str:
        """Name of the site."""
        return self.site.name

    @property
    def has_database(self) -> bool:
        """Whether PostgreSQL is one of the servers."""
        return "postgresql" in self.app.needs

    @property
    def has_redis(self) -> bool:
        """Whether Redis is one of the servers."""
        return "redis" in self.app.needs

    @property
    def sqlite(self) -> PurePosixPath | None:
        """Where the host keeps the database of SQLite, among the uploads: backed up, and not sent to anybody."""
        name = PurePosixPath(self.stores.sqlite).name
        return PurePosixPath(self.paths.state, "uploads", "private", "database", name) if name else None

    @property
    def server(self) -> Server:
        """The server of the application."""
        return SERVERS[self.app.server]

    @property
    def has_tasks(self) -> bool:
        """Whether a Celery worker and beat run."""
        return self.tasks.enabled and bool(self.tasks.application)

    @property
    def canonical_host(self) -> str:
        """The host that the others redirect to."""
        return self.site.hosts[0]

    @property
    def rehearsal_directory(self) -> str:
        """The directory that rehearsals ask; empty if there can be none."""
        if self.tls.source != "acme":
            return ""
        return self.tls.rehearsal_directory or _STAGING.get(self.tls.directory, "")

    @property
    def certificate_files(self) -> tuple[str, str]:
        """Paths of the certificate chain and the key."""
        if self.tls.source == "own":
            return self.tls.certificate, self.tls.key
        # A symbolic link: to a placeholder before the first issue, then to certbot's files.
        folder = f"{self.paths.acme}/served"
        return f"{folder}/fullchain.pem", f"{folder}/privkey.pem"
