"""Typed settings of all areas: the one place of defaults, read from the environment in one step.

Each field names its variable, how it is read and what it means, so that the table in the documentation and the
command ``mks-hardening env`` are generated from here. ``HardeningSettings.from_env()`` reports every fault at once.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple, Self

from mks_hardening._core.env import (
    Environment,
    parse_bool,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_list,
    parse_size,
    parse_text,
    parse_url,
)
from mks_hardening.exceptions import SettingsError, SettingsWarning

__all__ = [
    "CacheSettings",
    "CoreSettings",
    "DatabaseSettings",
    "HardeningSettings",
    "LoggingSettings",
    "NotifySettings",
    "SecuritySettings",
    "Variable",
    "WsgiSettings",
    "register_variables",
    "variables",
]

_REDIS: Final = parse_url(
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"
)


class Variable(NamedTuple):
    """One environment variable, as documented."""

    name: str
    area: str
    field: str
    form: str
    default: object
    secret: bool
    help: str


def _env(
    name: str,
    default: object,
    parse: Callable[[str], Any],
    form: str,
    help_text: str,
    *,
    secret: bool = False,
) -> Any:
    """A field with its variable; ``name`` gets the prefix unless it begins with ``=``."""
    metadata = {"name": name, "parse": parse, "form": form, "help": help_text, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """What all areas share."""

    environment: str = _env(
        "ENV",
        "production",
        parse_choice("production", "staging", "development", "test"),
        "production, staging, development or test",
        "Which kind of deployment this is; unsafe settings are refused in production.",
    )
    app_name: str = _env("APP_NAME", "mks-hardening", parse_text, "text", "Name in log records and alerts.")
    redis_url: str | None = _env(
        "REDIS_URL",
        None,
        _REDIS,
        "URL",
        "Redis for cache, sessions, limits and alert deduplication; without it each process keeps its own.",
        secret=True,
    )
    allow_plaintext: bool = _env(
        "ALLOW_PLAINTEXT",
        False,
        parse_bool,
        "boolean",
        "Whether clear text to Redis and SMTP may leave this machine (a private network you trust).",
    )
    store_budget: float = _env(
        "STORE_BUDGET",
        0.1,
        parse_duration(minimum=0.001, maximum=10),
        "duration",
        "Time that all store calls of one request may take together.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WsgiSettings:
    """The edge: trust, HTTPS, headers, sessions."""

    allowed_hosts: tuple[str, ...] = _env(
        "ALLOWED_HOSTS",
        (),
        parse_list,
        "list",
        "Host names that are answered; .example.com covers the apex and every depth.",
    )
    canonical_host: str | None = _env(
        "CANONICAL_HOST", None, parse_text, "text", "The one host to redirect the others to."
    )
    trusted_proxies: tuple[str, ...] = _env(
        "TRUSTED_PROXIES",
        (),
        parse_list,
        "list",
        "Peers whose forwarded headers count: addresses, networks, or unix.",
    )
    proxy_hops: int | None = _env(
        "PROXY_HOPS",
        None,
        parse_integer(1, 16),
        "integer",
        "Number of proxies in front, instead of their addresses.",
    )
    proxy_family: Literal["x-forwarded", "forwarded"] = _env(
        "PROXY_FAMILY",
        "x-forwarded",
        parse_choice("x-forwarded", "forwarded"),
        "x-forwarded or forwarded",
        "Which headers the proxies set: X-Forwarded-* or Forwarded (RFC 7239).",
    )
    force_https: bool = _env("FORCE_HTTPS", True, parse_bool, "boolean", "Redirect plain http to https.")
    https_port: int = _env(
        "HTTPS_PORT", 443, parse_integer(1, 65535), "integer", "Port of https as clients see it."
    )
    hsts_max_age: float = _env(
        "HSTS_MAX_AGE",
        63_072_000.0,
        parse_duration(maximum=10 * 366 * 86_400.0),
        "duration",
        "How long browsers remember to use https; 0s tells them to forget, see also HSTS.",
    )
    hsts: bool = _env(
        "HSTS", True, parse_bool, "boolean", "Whether Strict-Transport-Security is sent at all."
    )
    header_preset: Literal["web", "api", "strict"] = _env(
        "HEADER_PRESET",
        "web",
        parse_choice("web", "api", "strict"),
        "web, api or strict",
        "Set of security headers.",
    )
    session_idle_timeout: float = _env(
        "SESSION_IDLE_TIMEOUT",
        1800.0,
        parse_duration(minimum=1, maximum=366 * 86_400.0, bare="m"),
        "duration (a bare number counts as minutes)",
        "A session ends after this long without activity.",
    )
    session_absolute_timeout: float = _env(
        "SESSION_ABSOLUTE_TIMEOUT",
        28_800.0,
        parse_duration(minimum=1, maximum=366 * 86_400.0, bare="h"),
        "duration (a bare number counts as hours)",
        "A session ends this long after sign-in, whatever happens.",
    )
    session_warn_before: float = _env(
        "SESSION_WARN_BEFORE",
        120.0,
        parse_duration(),
        "duration",
        "Answers say how long is left when it is less than this.",
    )
    session_max: int | None = _env(
        "SESSION_MAX",
        None,
        parse_integer(1, 1000),
        "integer",
        "Sessions a user may have at once; the oldest ends.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """Where records go and what they look like."""

    level: str = _env(
        "LOG_LEVEL",
        "INFO",
        parse_choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        "Records below this level are not written.",
    )
    file: str | None = _env(
        "LOG_FILE", None, parse_text, "path", "File to write to beside stdout and stderr."
    )
    max_bytes: int | None = _env(
        "LOG_MAX_BYTES",
        None,
        parse_size(minimum=65_536),
        "size",
        "Rotate the file by ourselves at this size; without it the file is reopened after logrotate.",
    )
    backups: int = _env("LOG_BACKUPS", 10, parse_integer(1, 1000), "integer", "Rotated files that are kept.")
    schema: str = _env(
        "LOG_SCHEMA",
        "default",
        parse_choice("default", "ecs", "gcp"),
        "default, ecs or gcp",
        "Names of the fields in a record.",
    )
    queue: bool = _env(
        "LOG_QUEUE", False, parse_bool, "boolean", "Write on a thread of its own, behind a bounded queue."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettings:
    """Whom to tell of errors, and how often at most."""

    smtp_host: str | None = _env(
        "SMTP_HOST", None, parse_text, "text", "Mail server; without it no mail is sent."
    )
    smtp_port: int = _env("SMTP_PORT", 587, parse_integer(1, 65535), "integer", "Port of the mail server.")
    smtp_security: Literal["starttls", "tls", "plain"] = _env(
        "SMTP_SECURITY",
        "starttls",
        parse_choice("starttls", "tls", "plain"),
        "starttls, tls or plain",
        "How the connection is protected; plain only to this machine.",
    )
    smtp_user: str | None = _env("SMTP_USER", None, parse_text, "text", "User to log in as.")
    smtp_password: str | None = _env(
        "SMTP_PASSWORD", None, parse_text, "text", "Password of that user.", secret=True
    )
    smtp_ca_file: str | None = _env(
        "SMTP_CA_FILE", None, parse_text, "path", "Certificates to trust instead of the system's."
    )
    alert_from: str | None = _env("ALERT_FROM", None, parse_text, "address", "Sender of alert mails.")
    alert_to: tuple[str, ...] = _env(
        "ALERT_TO", (), parse_list, "list of addresses", "Receivers of alert mails."
    )
    alert_level: str = _env(
        "ALERT_LEVEL",
        "ERROR",
        parse_choice("WARNING", "ERROR", "CRITICAL"),
        "WARNING, ERROR or CRITICAL",
        "Records from this level on become alerts.",
    )
    alert_window: float = _env(
        "ALERT_WINDOW",
        300.0,
        parse_duration(minimum=1, maximum=86_400),
        "duration",
        "Equal alerts within this time become one digest.",
    )
    alert_spool: str | None = _env(
        "ALERT_SPOOL", None, parse_text, "path", "Folder for alerts that could not be delivered."
    )
    alert_language: Literal["ja", "en"] = _env(
        "ALERT_LANGUAGE", "ja", parse_choice("ja", "en"), "ja or en", "Language of alerts."
    )
    slack_webhook_url: str | None = _env(
        "SLACK_WEBHOOK_URL", None, parse_url("https", "http"), "URL", "Slack webhook.", secret=True
    )
    slack_channel: str | None = _env(
        "SLACK_CHANNEL", None, parse_text, "text", "Slack channel, if not the hook's."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """The cache and the CDN in front."""

    url: str | None = _env(
        "CACHE_URL", None, _REDIS, "URL", "Redis of the cache, if not REDIS_URL.", secret=True
    )
    namespace: str = _env("CACHE_NAMESPACE", "mks", parse_text, "text", "First part of every key.")
    default_ttl: float = _env(
        "CACHE_TTL", 3600.0, parse_duration(minimum=1), "duration", "How long entries are kept by default."
    )
    signing_keys: tuple[str, ...] = _env(
        "CACHE_SIGNING_KEYS",
        (),
        parse_list,
        "list",
        "Keys that sign entries, newest first; without them entries are not signed.",
        secret=True,
    )
    cdn_zone_id: str | None = _env(
        "=CLOUDFLARE_ZONE_ID", None, parse_text, "32 hexadecimal digits", "Zone to purge."
    )
    cdn_api_token: str | None = _env(
        "=CLOUDFLARE_API_TOKEN", None, parse_text, "text", "Token for purging.", secret=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SecuritySettings:
    """Second factors and limits."""

    issuer: str = _env("TOTP_ISSUER", "MKS", parse_text, "text", "Name that authenticator apps show.")
    secret_keys: tuple[str, ...] = _env(
        "SECRET_KEYS",
        (),
        parse_list,
        "list",
        "Keys that encrypt second factors at rest (base64 of 32 bytes), newest first.",
        secret=True,
    )
    rate_limit_url: str | None = _env(
        "RATE_LIMIT_URL", None, _REDIS, "URL", "Redis of the limits, if not REDIS_URL.", secret=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """The database connection and what is watched on it."""

    url: str | None = _env(
        "=DATABASE_URL",
        None,
        parse_url(
            "postgresql",
            "postgresql+psycopg",
            "postgresql+psycopg2",
            "postgresql+asyncpg",
            "sqlite",
            "sqlite+aiosqlite",
            "mysql+pymysql",
            "mariadb+pymysql",
        ),
        "URL",
        "SQLAlchemy URL of the database.",
        secret=True,
    )
    max_connections: int | None = _env(
        "DB_MAX_CONNECTIONS",
        None,
        parse_integer(1, 100_000),
        "integer",
        "max_connections of the server; the pools of all workers stay below it.",
    )
    statement_timeout: float = _env(
        "DB_STATEMENT_TIMEOUT",
        30.0,
        parse_duration(minimum=0.1, maximum=86_400),
        "duration",
        "The server ends a statement after this long.",
    )
    slow_query: float = _env(
        "SLOW_QUERY",
        0.1,
        parse_duration(minimum=0.0, maximum=3600),
        "duration",
        "Statements that take longer are logged.",
    )
    workers: int = _env("GUNICORN_WORKERS", 1, parse_integer(1, 256), "integer", "Worker processes.")
    threads: int = _env("GUNICORN_THREADS", 8, parse_integer(1, 256), "integer", "Threads of each worker.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HardeningSettings:
    """The settings of all areas."""

    core: CoreSettings = field(default_factory=CoreSettings)
    wsgi: WsgiSettings = field(default_factory=WsgiSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    notify: NotifySettings = field(default_factory=NotifySettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    security: SecuritySettings = field(default_factory=SecuritySettings)
    db: DatabaseSettings = field(default_factory=DatabaseSettings)

    @classmethod
    def from_env(cls, prefix: str = "MKS_", *, environ: Mapping[str, str] | None = None) -> Self:
        """Read all settings.

        A secret may come from a file named by the variable with ``_FILE`` behind it.

        Args:
            prefix: first part of the variables' names.
            environ: variables, instead of the process's environment.

        Raises:
            SettingsError: at least one variable is faulty, or a combination is; all faults are listed.

        Warns:
            SettingsWarning: a variable with the prefix that nobody knows.
        """
        source = Environment(environ)
        areas = {area: _read_area(kind, source, prefix) for area, kind in _AREAS.items()}
        settings = cls(**areas)
        faults = (*source.faults, *_combined_faults(settings, prefix))
        if faults:
            raise SettingsError(faults)
        _warn_unknown(source, prefix)
        return settings


_AREAS: Final[dict[str, type[Any]]] = {
    "core": CoreSettings,
    "wsgi": WsgiSettings,
    "logging": LoggingSettings,
    "notify": NotifySettings,
    "cache": CacheSettings,
    "security": SecuritySettings,
    "db": DatabaseSettings,
}

_registered: Final[set[str]] = set()


def register_variables(*names: str) -> None:
    """Make an application's own variables known, so that they are not warned about; whole names, with prefix."""
    _registered.update(names)


def variables(prefix: str = "MKS_") -> list[Variable]:
    """Every variable, in the order of the areas and fields."""
    return list(_variables(prefix))


def _variables(prefix: str) -> Iterator[Variable]:
    for area, kind in _AREAS.items():
        for item in fields(kind):
            meta = item.metadata
            yield Variable(
                name=_name(meta["name"], prefix),
                area=area,
                field=item.name,
                form=meta["form"],
                default=item.default,
                secret=meta["secret"],
                help=meta["help"],
            )


def _name(name: str, prefix: str) -> str:
    return name[1:] if name.startswith("=") else prefix + name


def _read_area(kind: type[Any], source: Environment, prefix: str) -> Any:
    values = {
        item.name: source.read(
            _name(item.metadata["name"], prefix), item.metadata["parse"], file=item.metadata["secret"]
        )
        for item in fields(kind)
    }
    return kind(**{name: value for name, value in values.items() if value is not None})


def _combined_faults(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    """What is wrong only in combination."""
    notify = settings.notify
    if notify.smtp_host is not None and not notify.alert_to:
        yield f"{prefix}ALERT_TO must name a receiver when {prefix}SMTP_HOST is set"
    if notify.smtp_host is not None and notify.alert_from is None:
        yield f"{prefix}ALERT_FROM must name a sender when {prefix}SMTP_HOST is set"
    if (notify.smtp_user is None) != (notify.smtp_password is None):
        yield f"{prefix}SMTP_USER and {prefix}SMTP_PASSWORD must be set together"
    if (settings.cache.cdn_zone_id is None) != (settings.cache.cdn_api_token is None):
        yield "CLOUDFLARE_ZONE_ID and CLOUDFLARE_API_TOKEN must be set together"
    if settings.logging.max_bytes is not None and settings.logging.file is None:
        yield f"{prefix}LOG_MAX_BYTES needs {prefix}LOG_FILE"
    if settings.core.environment == "production":
        yield from _unsafe_in_production(settings, prefix)


def _unsafe_in_production(settings: HardeningSettings, prefix: str) -> Iterator[str]:
    if not settings.wsgi.force_https:
        yield f"{prefix}FORCE_HTTPS=0 is refused in production"
    if settings.logging.level == "DEBUG":
        yield f"{prefix}LOG_LEVEL=DEBUG is refused in production"


def _warn_unknown(source: Environment, prefix: str) -> None:
    known = {variable.name for variable in _variables(prefix)} | _registered
    files = {f"{variable.name}_FILE" for variable in _variables(prefix) if variable.secret}
    for name in source.names(prefix):
        if name not in known and name not in files:
            warnings.warn(f"unknown variable {name}{_hint(name, known)}", SettingsWarning, stacklevel=3)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
