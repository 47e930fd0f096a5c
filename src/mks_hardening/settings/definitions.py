"""Settings of each package; the only place that defines defaults.

Each field declares its variable, parser, default and description. The table in the documentation and the command
``mks-hardening env`` are generated from here.
"""

# Without postponed annotations, so that the types can be read from the classes at run time.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from mks_hardening._core.environment.parsers import (
    Parser,
    parse_bool,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_list,
    parse_path,
    parse_size,
    parse_text,
    parse_url,
)
from mks_hardening.settings._list_parsers import (
    parse_address,
    parse_addresses,
    parse_client_networks,
    parse_host_name,
    parse_hosts,
    parse_ignored_headers,
    parse_kept_headers,
    parse_methods,
    parse_networks,
    parse_origins,
    parse_paths,
    parse_rate_limits,
    parse_redis,
    parse_secret_keys,
    parse_sender_origins,
    parse_signing_keys,
    parse_sizes_by_path,
)
from mks_hardening.settings._variables import env

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "AREAS",
    "CacheSettings",
    "CoreSettings",
    "DatabaseSettings",
    "LoggingSettings",
    "NotifySettings",
    "SecuritySettings",
    "WsgiSettings",
]

EnvironmentName = Literal["production", "staging", "development", "test"]
ProxyFamily = Literal["x-forwarded", "forwarded"]
HeaderPreset = Literal["web", "api", "strict", "legacy"]
CookiePolicyMode = Literal["off", "report", "enforce"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogSchema = Literal["default", "ecs", "gcp", "python-json-logger"]
SmtpSecurity = Literal["starttls", "tls", "plain"]
AlertLevel = Literal["WARNING", "ERROR", "CRITICAL"]
AlertLanguage = Literal["ja", "en"]

_ENVIRONMENT: Final[Parser[EnvironmentName]] = parse_choice("production", "staging", "development", "test")
_PROXY_FAMILY: Final[Parser[ProxyFamily]] = parse_choice("x-forwarded", "forwarded")
_HEADER_PRESET: Final[Parser[HeaderPreset]] = parse_choice("web", "api", "strict", "legacy")
_COOKIE_POLICY: Final[Parser[CookiePolicyMode]] = parse_choice("off", "report", "enforce")
_LOG_LEVEL: Final[Parser[LogLevel]] = parse_choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LOG_SCHEMA: Final[Parser[LogSchema]] = parse_choice("default", "ecs", "gcp", "python-json-logger")
_SMTP_SECURITY: Final[Parser[SmtpSecurity]] = parse_choice("starttls", "tls", "plain")
_ALERT_LEVEL: Final[Parser[AlertLevel]] = parse_choice("WARNING", "ERROR", "CRITICAL")
_ALERT_LANGUAGE: Final[Parser[AlertLanguage]] = parse_choice("en", "ja")
_PORT: Final = parse_integer(1, 65535)
_DATABASE: Final = parse_url(
    "postgresql",
    "postgresql+psycopg",
    "postgresql+psycopg2",
    "postgresql+asyncpg",
    "sqlite",
    "sqlite+aiosqlite",
    "mysql+pymysql",
    "mariadb+pymysql",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Settings shared by all packages."""

    environment: EnvironmentName = env(
        "ENV",
        _ENVIRONMENT,
        "production",
        "Kind of deployment; unsafe settings are refused in production.",
    )
    app_name: str = env("APP_NAME", parse_text, "mks-hardening", "Name in log records and alerts.")
    redis_url: str | None = env(
        "REDIS_URL",
        parse_redis,
        None,
        "Redis for cache, sessions, limits and alert deduplication; without it each process keeps its own.",
        secret=True,
    )
    allow_plaintext: bool = env(
        "ALLOW_PLAINTEXT",
        parse_bool,
        False,
        "Whether clear text to Redis and SMTP on other machines is allowed (a private network you trust).",
    )
    store_budget: float = env(
        "STORE_BUDGET",
        parse_duration(minimum=0.001, maximum=10),
        0.1,
        "Total time that the store calls of one request may take.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WsgiSettings:
    """Settings of the WSGI and ASGI middleware: proxy trust, HTTPS, headers, sessions."""

    allowed_hosts: tuple[str, ...] = env(
        "ALLOWED_HOSTS",
        parse_hosts,
        (),
        "Host names to serve; .example.com covers the domain and all its subdomains.",
    )
    canonical_host: str | None = env(
        "CANONICAL_HOST", parse_host_name, None, "The host that all other hosts redirect to."
    )
    trusted_proxies: tuple[str, ...] = env(
        "TRUSTED_PROXIES",
        parse_networks,
        (),
        "Peers whose forwarding headers are trusted: addresses, networks, or unix.",
    )
    proxy_hops: int | None = env(
        "PROXY_HOPS",
        parse_integer(1, 16),
        None,
        "Number of proxies in front; without TRUSTED_PROXIES every peer is treated as a proxy.",
    )
    proxy_family: ProxyFamily = env(
        "PROXY_FAMILY",
        _PROXY_FAMILY,
        "x-forwarded",
        "Which headers the proxies set: X-Forwarded-* or Forwarded (RFC 7239).",
    )
    proxy_keep_headers: tuple[str, ...] = env(
        "PROXY_KEEP_HEADERS",
        parse_kept_headers,
        (),
        "Forwarding headers of trusted peers, such as X-Real-IP, that the application reads by itself.",
    )
    proxy_ignore_headers: tuple[str, ...] = env(
        "PROXY_IGNORE_HEADERS",
        parse_ignored_headers,
        (),
        "Those of X-Forwarded-Host, -Port and -Prefix that the proxies neither set nor remove.",
    )
    force_https: bool = env("FORCE_HTTPS", parse_bool, True, "Redirect plain http to https.")
    https_port: int = env("HTTPS_PORT", _PORT, 443, "Port of https as clients see it.")
    hsts_max_age: float = env(
        "HSTS_MAX_AGE",
        parse_duration(maximum=10 * 366 * 86_400.0),
        63_072_000.0,
        "How long browsers remember to use https; 0s tells them to forget, see also HSTS.",
    )
    hsts: bool = env("HSTS", parse_bool, True, "Whether Strict-Transport-Security is sent at all.")
    hsts_include_subdomains: bool = env(
        "HSTS_INCLUDE_SUBDOMAINS",
        parse_bool,
        True,
        "Whether HSTS includes all subdomains; 0 if one of them has no https.",
    )
    cors_origins: tuple[str, ...] = env(
        "CORS_ORIGINS",
        parse_origins,
        (),
        "Origins whose pages may read responses, without credentials; * for all.",
    )
    cors_methods: tuple[str, ...] = env(
        "CORS_METHODS",
        parse_methods,
        (),
        "Methods that pages of CORS_ORIGINS may send besides GET, HEAD, POST, PUT, PATCH and DELETE.",
    )
    allowed_origins: tuple[str, ...] = env(
        "ALLOWED_ORIGINS",
        parse_sender_origins,
        (),
        "Other origins whose pages may send forms and other unsafe requests, and open WebSockets.",
    )
    csrf_exempt_paths: tuple[str, ...] = env(
        "CSRF_EXEMPT_PATHS",
        parse_paths,
        (),
        "Paths without the check for cross-site requests, for clients that authenticate without cookies.",
    )
    public_paths: tuple[str, ...] = env(
        "PUBLIC_PATHS", parse_paths, (), "Paths that are also served with the cookie of an ended session."
    )
    passive_paths: tuple[str, ...] = env(
        "PASSIVE_PATHS", parse_paths, (), "Paths that are polled and do not extend a session."
    )
    api_paths: tuple[str, ...] = env(
        "API_PATHS", parse_paths, (), "Paths that are refused over plain http instead of redirected."
    )
    limit_exempt_paths: tuple[str, ...] = env(
        "LIMIT_EXEMPT_PATHS", parse_paths, (), "Paths that the rate limits in front do not count."
    )
    max_body: int | None = env(
        "MAX_BODY", parse_size(), None, "Largest body of a request; a larger one gets 413."
    )
    max_body_paths: tuple[tuple[str, int], ...] = env(
        "MAX_BODY_PATHS",
        parse_sizes_by_path,
        (),
        "Largest body for certain paths, such as /uploads/=2GB; requires MAX_BODY for all others.",
    )
    body_timeout: float = env(
        "BODY_TIMEOUT",
        parse_duration(minimum=1, maximum=86_400),
        30.0,
        "Time within which a body must arrive, if MAX_BODY is set.",
    )
    max_requests: int | None = env(
        "MAX_REQUESTS",
        parse_integer(1, 1_000_000),
        None,
        "Requests that each process handles at the same time; further ones get 503.",
    )
    max_requests_per_client: int | None = env(
        "MAX_REQUESTS_PER_CLIENT",
        parse_integer(1, 1_000_000),
        None,
        "How many of them may come from one client address (IPv6: its /64 network).",
    )
    request_timeout: float | None = env(
        "REQUEST_TIMEOUT",
        parse_duration(minimum=0.01, maximum=86_400),
        None,
        "Time within which the application must begin its response; under WSGI, it has to observe it itself.",
    )
    cookie_policy: CookiePolicyMode = env(
        "COOKIE_POLICY",
        _COOKIE_POLICY,
        "off",
        "Whether cookies of the application get Secure, HttpOnly and SameSite; report only logs what is missing.",
    )
    maintenance_file: str | None = env(
        "MAINTENANCE_FILE", parse_path, None, "While this file exists, requests get 503."
    )
    deny_networks: tuple[str, ...] = env(
        "DENY_NETWORKS", parse_client_networks, (), "Clients whose requests get 403; deny wins over allow."
    )
    allow_networks: tuple[str, ...] = env(
        "ALLOW_NETWORKS", parse_client_networks, (), "Clients that are never banned."
    )
    client_rules_file: str | None = env(
        "CLIENT_RULES_FILE",
        parse_path,
        None,
        "File with further lines such as deny 198.51.100.0/24; re-read when it changes.",
    )
    bans: bool = env(
        "BANS",
        parse_bool,
        False,
        "Whether clients are banned for a while after many offences: missing pages, failed sign-ins, refusals.",
    )
    client_rules_dry_run: bool = env(
        "CLIENT_RULES_DRY_RUN",
        parse_bool,
        False,
        "Whether denied and banned clients are served nevertheless; bans are only logged and listed.",
    )
    header_preset: HeaderPreset = env("HEADER_PRESET", _HEADER_PRESET, "web", "Set of security headers.")
    headers_file: str | None = env(
        "HEADERS_FILE",
        parse_path,
        None,
        "TOML file with additions to the security headers, also for certain paths.",
    )
    session_idle_timeout: float = env(
        "SESSION_IDLE_TIMEOUT",
        parse_duration(minimum=1, maximum=366 * 86_400.0, bare="m"),
        1800.0,
        "A session ends after this long without activity.",
    )
    session_absolute_timeout: float = env(
        "SESSION_ABSOLUTE_TIMEOUT",
        parse_duration(minimum=1, maximum=366 * 86_400.0, bare="h"),
        28_800.0,
        "A session ends this long after sign-in, even with activity.",
    )
    session_warn_before: float = env(
        "SESSION_WARN_BEFORE",
        parse_duration(),
        120.0,
        "Responses state the remaining time when it is shorter than this.",
    )
    session_max: int | None = env(
        "SESSION_MAX",
        parse_integer(1, 1000),
        None,
        "Sessions that a user may have at once; beyond this the oldest one ends.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Settings of log destinations and formats."""

    level: LogLevel = env("LOG_LEVEL", _LOG_LEVEL, "INFO", "Records below this level are not written.")
    file: str | None = env("LOG_FILE", parse_path, None, "File to write to in addition to stdout and stderr.")
    max_bytes: int | None = env(
        "LOG_MAX_BYTES",
        parse_size(minimum=65_536),
        None,
        "Rotate the file at this size; without it, the file is reopened after logrotate.",
    )
    backups: int = env("LOG_BACKUPS", parse_integer(1, 1000), 10, "Number of rotated files to keep.")
    schema: LogSchema = env("LOG_SCHEMA", _LOG_SCHEMA, "default", "Names of the fields in a record.")
    queue: bool = env("LOG_QUEUE", parse_bool, False, "Write on a separate thread, behind a bounded queue.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettings:
    """Settings of alerts: recipients, channels and rate."""

    smtp_host: str | None = env(
        "SMTP_HOST", parse_host_name, None, "Mail server; without it no mail is sent."
    )
    smtp_port: int = env("SMTP_PORT", _PORT, 587, "Port of the mail server.")
    smtp_security: SmtpSecurity = env(
        "SMTP_SECURITY",
        _SMTP_SECURITY,
        "starttls",
        "Encryption of the connection; plain to this machine only.",
    )
    smtp_user: str | None = env("SMTP_USER", parse_text, None, "User to log in as.")
    smtp_password: str | None = env("SMTP_PASSWORD", parse_text, None, "Password of that user.", secret=True)
    smtp_ca_file: str | None = env(
        "SMTP_CA_FILE", parse_path, None, "Certificates to trust instead of the system's."
    )
    alert_from: str | None = env("ALERT_FROM", parse_address, None, "Sender of alert mails.")
    alert_to: tuple[str, ...] = env("ALERT_TO", parse_addresses, (), "Recipients of alert mails.")
    alert_level: AlertLevel = env(
        "ALERT_LEVEL", _ALERT_LEVEL, "ERROR", "Records of this level and above become alerts."
    )
    alert_window: float = env(
        "ALERT_WINDOW",
        parse_duration(minimum=1, maximum=86_400),
        300.0,
        "Identical alerts within this time become one digest.",
    )
    alert_spool: str | None = env(
        "ALERT_SPOOL", parse_path, None, "Folder for alerts that could not be delivered."
    )
    alert_language: AlertLanguage = env("ALERT_LANGUAGE", _ALERT_LANGUAGE, "en", "Language of alerts.")
    slack_webhook_url: str | None = env(
        "SLACK_WEBHOOK_URL", parse_url("https", "http"), None, "Slack webhook.", secret=True
    )
    slack_channel: str | None = env(
        "SLACK_CHANNEL", parse_text, None, "Slack channel, if not that of the webhook."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Settings of the cache and of the CDN in front of the application."""

    url: str | None = env(
        "CACHE_URL", parse_redis, None, "Redis of the cache, if not REDIS_URL.", secret=True
    )
    namespace: str = env("CACHE_NAMESPACE", parse_text, "mks", "Prefix of every key.")
    default_ttl: float = env(
        "CACHE_TTL", parse_duration(minimum=1), 3600.0, "How long entries are kept by default."
    )
    signing_keys: tuple[str, ...] = env(
        "CACHE_SIGNING_KEYS",
        parse_signing_keys,
        (),
        "Keys that sign entries: the first signs, all are accepted; without them entries are not signed.",
        secret=True,
    )
    cdn_zone_id: str | None = env("=CLOUDFLARE_ZONE_ID", parse_text, None, "Zone to purge.")
    cdn_api_token: str | None = env(
        "=CLOUDFLARE_API_TOKEN", parse_text, None, "Token for purging.", secret=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """Settings of second factors and rate limits."""

    issuer: str = env("TOTP_ISSUER", parse_text, "MKS", "Name that authenticator apps show.")
    secret_keys: tuple[str, ...] = env(
        "SECRET_KEYS",
        parse_secret_keys,
        (),
        "Keys that encrypt second factors at rest (base64 of 32 bytes): the first encrypts, all decrypt.",
        secret=True,
    )
    rate_limit_url: str | None = env(
        "RATE_LIMIT_URL", parse_redis, None, "Redis of the limits, if not REDIS_URL.", secret=True
    )
    rate_limits: tuple[tuple[str, str], ...] = env(
        "RATE_LIMITS",
        parse_rate_limits,
        (),
        "Limits to replace those in the code, by group: search=60 per minute; 900 per hour | admin=20 per minute.",
    )
    rate_limits_dry_run: tuple[str, ...] = env(
        "RATE_LIMITS_DRY_RUN",
        Parser("list of groups", parse_list, ",".join),
        (),
        "Groups whose limits refuse nothing and only report what they would refuse.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """Settings of the database connection and its monitoring."""

    url: str | None = env("=DATABASE_URL", _DATABASE, None, "SQLAlchemy URL of the database.", secret=True)
    max_connections: int | None = env(
        "DB_MAX_CONNECTIONS",
        parse_integer(1, 100_000),
        None,
        "max_connections of the server; the pools of all workers stay below it.",
    )
    statement_timeout: float = env(
        "DB_STATEMENT_TIMEOUT",
        parse_duration(minimum=0.1, maximum=86_400),
        30.0,
        "The server cancels a statement after this long.",
    )
    slow_query: float = env(
        "SLOW_QUERY",
        parse_duration(minimum=0.0, maximum=3600),
        0.1,
        "Statements that take longer are logged.",
    )
    workers: int = env("GUNICORN_WORKERS", parse_integer(1, 256), 1, "Worker processes.")
    threads: int = env("GUNICORN_THREADS", parse_integer(1, 256), 8, "Threads of each worker.")
    generations: int = env(
        "DB_GENERATIONS",
        parse_integer(1, 1000),
        2,
        "Generations of workers at the same time: a reload or release starts new ones before old ones stop.",
    )
    transaction_pooling: bool = env(
        "DB_TRANSACTION_POOLING",
        parse_bool,
        False,
        "Whether DATABASE_URL leads to a pooler in transaction mode, such as PgBouncer.",
    )


AREAS: Final[Mapping[str, "type[DataclassInstance]"]] = {
    "core": CoreSettings,
    "wsgi": WsgiSettings,
    "logging": LoggingSettings,
    "notify": NotifySettings,
    "cache": CacheSettings,
    "security": SecuritySettings,
    "db": DatabaseSettings,
}
"""Settings classes by field of ``HardeningSettings``."""
