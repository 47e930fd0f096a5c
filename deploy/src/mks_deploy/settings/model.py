"""Settings model: every option with its type, default and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from mks_deploy.settings.kinds import (
    Kind,
    a_celery_app,
    a_choice,
    a_flag,
    a_host,
    a_list_of,
    a_module_object,
    a_network,
    a_number,
    a_path,
    a_seconds,
    a_size,
    a_slug,
    a_time_of_day,
    a_token,
    a_url,
    an_address,
)

__all__ = ["REQUIRED", "Option", "Settings", "option"]

T = TypeVar("T")

REQUIRED: Final = object()
"""The default of a required option."""

_DAY: Final = 86_400
_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3
_PORT: Final = a_number(1, 65_535)


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
    """What is deployed, and under which names it is reached."""

    name: str = option(
        a_slug,
        "knowledge-system",
        "Name of units, account, folders and cookies' owner.",
        example='"knowledge-system"',
    )
    hosts: tuple[str, ...] = option(
        a_list_of(a_host),
        REQUIRED,
        "Names that are answered, the canonical one first.",
        example='["knowledge.example.jp"]',
    )
    redirect_hosts: tuple[str, ...] = option(
        a_list_of(a_host), (), "Further names, which only lead to the canonical one.", example="[]"
    )
    environment: str = option(
        a_choice("production", "staging"),
        "production",
        "The stage; staging differs in names alone, and tells search engines to stay away.",
        example='"production"',
    )
    application: str = option(
        a_module_object,
        "knowledge_system.app:from_env()",
        "The WSGI application.",
        example='"knowledge_system.app:from_env()"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where things are on the host; ``{name}`` stands for the name of the site."""

    releases: str = option(
        a_path, "/opt/{name}", "Releases, and one link for each slot.", example='"/opt/{name}"'
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
    state: str = option(
        a_path, "/var/lib/{name}", "Uploads, spool, published static files.", example='"/var/lib/{name}"'
    )
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
    """What stands between the network and the application."""

    mode: str = option(
        a_choice("nginx", "direct"),
        "nginx",
        "nginx in front, or gunicorn with its own TLS and a redirecting listener beside it.",
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
    status_port: int = option(_PORT, 8081, "nginx's status page, on loopback alone.", example="8081")
    user: str = option(a_slug, "www-data", "Account of nginx's workers.", example='"www-data"')
    proxies_in_front: tuple[str, ...] = option(
        a_list_of(a_network),
        (),
        "Networks of a CDN or balancer in front of nginx, whose X-Forwarded-For is believed.",
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
        "First line: requests a second of one address; a whole office may stand behind one.",
        example="600",
    )
    burst: int = option(
        a_number(1, 100_000), 1200, "Requests of one address that may come at once.", example="1200"
    )
    sign_in_per_minute: int = option(
        a_number(1, 600), 60, "Sign-in attempts a minute of one address.", example="60"
    )
    connections_per_address: int = option(
        a_number(1, 65_536),
        1200,
        "Connections of one address; in HTTP/2 each request counts.",
        example="1200",
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
        730 * _DAY,
        "How long browsers insist on https; begin with 5m on a host that is new to it.",
        example='"730d"',
    )
    hsts_subdomains: bool = option(a_flag, True, "Every host below is bound too.", example="true")
    hsts_preload: bool = option(
        a_flag,
        False,
        "Allow the hard-wired list of browsers; nearly impossible to take back.",
        example="false",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gunicorn:
    """The application server."""

    workers: int = option(a_number(1, 256), 2, "Processes: as many as there are cores.", example="2")
    threads: int = option(a_number(2, 256), 16, "Threads of each.", example="16")
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

    enabled: bool = option(a_flag, True, "Run a Celery worker and beat.", example="true")
    application: str = option(
        a_celery_app,
        "knowledge_system.worker:app",
        "The Celery application.",
        example='"knowledge_system.worker:app"',
    )
    processes: int = option(a_number(1, 256), 2, "Processes of the worker.", example="2")
    stop_timeout: int = option(
        a_seconds(1, 3600), 25, "How long running tasks may take at a stop.", example='"25s"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """PostgreSQL and Redis."""

    database_connections: int = option(
        a_number(10, 10_000), 120, "max_connections of PostgreSQL.", example="120"
    )
    database_name: str = option(a_slug, "knowledge", "Name of the database.", example='"knowledge"')
    statement_timeout: int = option(
        a_seconds(1, 3600), 30, "PostgreSQL ends a statement after this long.", example='"30s"'
    )
    database_memory: int = option(
        a_size(256 * _MIB, 512 * _GIB),
        _GIB,
        "Memory for PostgreSQL; a quarter becomes shared_buffers.",
        example='"1g"',
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
        "maxmemory of Redis for the cache; full, it removes what was least used.",
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
    alert_mail: str = option(an_address, REQUIRED, "Who is told.", example='"ops@example.jp"')
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
    runbooks: str = option(
        a_url("https", "http"),
        "https://example.jp/runbooks",
        "Where the runbooks are read; alerts link there.",
        example='"https://example.jp/runbooks"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a deployment, from which every file is rendered."""

    site: Site
    paths: Paths
    edge: Edge
    tls: Tls
    gunicorn: Gunicorn
    tasks: Tasks
    stores: Stores
    upkeep: Upkeep
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the site."""
        return self.site.name

    @property
    def canonical_host(self) -> str:
        """The host that the others redirect to."""
        return self.site.hosts[0]

    @property
    def certificate_files(self) -> tuple[str, str]:
        """Paths of the certificate chain and the key."""
        if self.tls.source == "own":
            return self.tls.certificate, self.tls.key
        # A symbolic link: to a placeholder before the first issue, then to certbot's files.
        folder = f"{self.paths.acme}/served"
        return f"{folder}/fullchain.pem", f"{folder}/privkey.pem"
