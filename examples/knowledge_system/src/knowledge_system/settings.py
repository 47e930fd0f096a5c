"""Settings of the application and of the library, in one object."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias, get_args
from urllib.parse import unquote, urlsplit

from knowledge_system.domain.permissions import ROLES
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import ApplicationSettings, register_variables, setting

AreaName = Literal["logging", "cache", "security", "wsgi", "db", "notify", "tasks"]
AREAS: Final[frozenset[AreaName]] = frozenset(get_args(AreaName))

# Publicly known, and therefore only for the demonstration on loopback.
DEMO_PASSWORD = "knowledge-2026"  # noqa: S105

# Operators of this system read Japanese.
_DEFAULTS: Final = {"MKS_ALERT_LANGUAGE": "ja"}
_BROKERS = ("redis://", "rediss://", "redis+socket://", "redis+sentinel://", "amqp://", "amqps://")
_POSTGRESQL = ("postgresql://", "postgresql+")
_MEGABYTES = re.compile(r"[1-9][0-9]{0,3}m")
_REDIRECT = re.compile(r"(?:/[A-Za-z0-9_-]+)+")

_MICROSOFT = {"login.microsoftonline.com", "sts.windows.net"}
# These endpoints sign in the people of every company, and their issuer is only a template.
_SHARED = (["common"], ["organizations"], ["consumers"])

register_variables("MKS_DEMO_HTTPS_PORT", "MKS_DEMO_HTTP_PORT")  # read by the command, before the settings


def _megabytes(text: str) -> int:
    if not _MEGABYTES.fullmatch(text):
        raise ValueError
    return int(text[:-1]) * 1_048_576


def _redirect(text: str) -> str:
    if not _REDIRECT.fullmatch(text):
        raise ValueError
    return text


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    local = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if not (parts.scheme == "https" or local) or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    if parts.username is not None or (parts.hostname in _MICROSOFT and parts.path.split("/")[1:2] in _SHARED):
        raise ValueError
    return text


def _replica_urls(text: str) -> tuple[str, ...]:
    urls = tuple(text.split())  # not by commas: a URL may name several hosts with them
    if not all(url.startswith(_POSTGRESQL) for url in urls):
        raise ValueError
    return urls


def _broker(text: str) -> str:
    if not text.startswith(_BROKERS):
        raise ValueError
    return text


Offices: TypeAlias = tuple[tuple[IPv4Network | IPv6Network, int], ...]
"""Networks that many people share, each with its failed sign-ins a minute."""
_LOWEST_RATE: Final = 60
"""Failed sign-ins a minute of any address: an office has at least as many."""


def _offices(text: str) -> Offices:
    found: list[tuple[IPv4Network | IPv6Network, int]] = []
    for part in text.split(",") if text else ():
        network, _, rate = part.partition("=")
        found.append((ip_network(network), int(rate) if rate.isascii() and rate.isdigit() else 0))
    if any(rate < _LOWEST_RATE for _, rate in found) or len({network for network, _ in found}) < len(found):
        raise ValueError
    return tuple(found)


class AppSettings(ApplicationSettings, prefix="MKS_"):
    """Settings of ``create_app``."""

    demo: bool = setting(
        "Whether this is the demonstration on one machine, with pages that provoke errors on purpose.",
        default=False,
    )
    data_dir: Path = setting(
        "Directory of the demonstration's files: database, log, mail sink.", default=Path("var/demo")
    )
    areas_off: frozenset[AreaName] = setting(
        "Areas to switch off; the application runs without any of them.", default=frozenset[AreaName]()
    )
    broker_url: str | None = setting(
        "Celery's broker; without it, the web processes run the background tasks themselves.",
        default=None,
        name="MKS_CELERY_BROKER_URL",
        parse=_broker,
        form=f"a {', '.join(_BROKERS[:-1])} or {_BROKERS[-1]} URL",
        secret=True,
    )
    database_replica_urls: tuple[str, ...] = setting(
        "Read replicas of the database, for pages that only read; a pooler must not be in between.",
        default=(),
        parse=_replica_urls,
        form="URLs like that of DATABASE_URL, of PostgreSQL, with spaces in between",
        secret=True,
    )
    mail_domain: str = setting(
        "Users without an address get mail at USERNAME@ this; in production, they get none by default.",
        default="knowledge.example",
    )
    four_eyes: bool = setting(
        "Whether authors may not approve their own articles; 0 only if there is a single reviewer.",
        default=True,
    )
    audit_heads: Path | None = setting(
        "File to which the end of the audit log is copied each night, best on another host.", default=None
    )
    backups: Path | None = setting(
        "Directory of the backups; in production, the schema is not migrated without a fresh one.",
        default=None,
    )
    backup_max_age: float = setting("Age up to which a backup is fresh.", default=93_600.0, kind="duration")
    leavers_kept: float = setting(
        "Time after which the personal data of a deactivated account are erased.",
        default=365 * 86_400.0,
        minimum=86_400.0,  # "365" is seconds, and what was erased does not come back
        kind="duration",
    )
    notices_kept: float = setting(
        "Time after which notices that were read are removed.",
        default=180 * 86_400.0,
        minimum=86_400.0,
        kind="duration",
    )
    articles_kept: float = setting(
        "Time for which nobody can delete a published or retired article, from its retirement; 0 for none.",
        default=0.0,
        kind="duration",
    )
    second_factor_roles: frozenset[str] = setting(
        "Roles that need a second factor to use anything except their account pages; admin in production "
        "unless the variable is set, perhaps to nothing.",
        default=frozenset[str](),
    )
    uploads: Path | None = setting(
        "Directory of uploaded files, outside any directory that a server serves.", default=None
    )
    upload_limit: int = setting(
        "Maximum size of one uploaded file.",
        default=15 * 1_048_576,
        parse=_megabytes,
        form="a whole number of megabytes with m, for example 15m",
    )
    uploads_redirect: str = setting(
        "Path of nginx's internal location that serves uploaded files; without it, the application does.",
        default="",
        parse=_redirect,
        form="a path without a slash at its end, for example /-/uploads",
    )
    offices: Offices = setting(
        "Networks that many people share, with the failed sign-ins a minute of each.",
        default=(),
        parse=_offices,
        form="networks with a number from 60, for example 203.0.113.8/29=1200,2001:db8:1::/48=600",
    )
    sentry_dsn: str | None = setting(
        "DSN of Sentry or GlitchTip, to which errors are reported.",
        default=None,
        name="SENTRY_DSN",
        secret=True,
    )
    scan_command: str = setting("Program that exits with 1 if a file is infected.", default="")
    scan_socket: str = setting("Address of clamd instead: a path, or host:port.", default="")

    oidc_issuer: str | None = setting(
        "Issuer of the company's OpenID Connect provider; without it, people sign in here alone.",
        default=None,
        parse=_issuer,
        form="an https URL without query, as the provider spells it (http only on this machine); of Entra ID, "
        "that of a single tenant",
    )
    oidc_client_id: str = setting("Id of this application at the provider.", default="")
    oidc_client_secret: str | None = setting(
        "Secret of this application at the provider.", default=None, secret=True
    )
    oidc_name: str = setting("Name of the provider on the sign-in page, for example Entra ID.", default="")
    oidc_algorithm: Literal["RS256", "PS256", "ES256", "EdDSA"] = setting(
        "The only algorithm with which the provider signs ID tokens.", default="RS256"
    )
    oidc_tenant: str = setting("Tenant that people must belong to (the claim tid of Entra ID).", default="")
    oidc_hosted_domain: str = setting(
        "Domain that people must belong to (the claim hd of Google Workspace).", default=""
    )
    oidc_tenant_emails: bool = setting(
        "Whether an address counts as verified because its tenant is the required one: only where nobody but "
        "the administrators of the tenant sets addresses.",
        default=False,
    )
    oidc_factor_amr: frozenset[str] = setting(
        "Methods of the claim amr of which one counts as the second factor.", default=frozenset({"mfa"})
    )
    oidc_factor_acr: frozenset[str] = setting(
        "Values of the claims acr and acrs of which one counts as the second factor.",
        default=frozenset[str](),
    )
    oidc_new_role: str = setting(
        "Role of the accounts that are created for people without one; without it, they are refused.",
        default="",
    )
    oidc_passwords: bool = setting(
        "Whether people of the provider may sign in with their password here, too.", default=True
    )
    oidc_emergency_accounts: frozenset[str] = setting(
        "User names that keep their password in any case, for the day when the provider is unavailable.",
        default=frozenset[str](),
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, hardening_prefix: str = "MKS_") -> Self:
        """Read all settings, with the application's defaults for production."""
        source = {**_DEFAULTS, **(os.environ if environ is None else environ)}
        settings = super().from_env(environ=source, hardening_prefix=hardening_prefix)
        if settings.production:
            if not source.get("MKS_MAIL_DOMAIN"):
                settings = replace(settings, mail_domain="")
            if "MKS_SECOND_FACTOR_ROLES" not in source:
                settings = replace(settings, second_factor_roles=frozenset({"admin"}))
        return settings

    @property
    def areas(self) -> frozenset[AreaName]:
        """Enabled areas."""
        return AREAS - self.areas_off

    @property
    def demo_password(self) -> str:
        """Password of the users of the demonstration; empty otherwise."""
        return DEMO_PASSWORD if self.demo else ""

    @property
    def upload_folder(self) -> Path:
        """The directory of uploaded files."""
        return self.uploads or self.data_dir / "uploads"

    @property
    def production(self) -> bool:
        """Whether this is the production environment and not a demonstration."""
        return self.hardening.core.environment == "production" and not self.demo

    @property
    def site_url(self) -> str:
        """Public URL of the site, for links in mails."""
        edge = self.hardening.wsgi
        host = edge.canonical_host or next((name.lstrip(".") for name in edge.allowed_hosts), "localhost")
        return f"https://{host}" if edge.https_port == 443 else f"https://{host}:{edge.https_port}"

    @property
    def warn_before(self) -> float:
        """Seconds before the end of a session at which users are warned."""
        return self.hardening.wsgi.session_warn_before

    def cross_check_errors(self) -> Iterator[str]:
        """Check what the library leaves open and this application needs."""
        hardening, redis = self.hardening, self.hardening.core.redis_url
        if hardening.db.url is None:
            yield "DATABASE_URL is missing: the SQLAlchemy URL of the database, for example postgresql+psycopg://…"
        if "wsgi" in self.areas and not hardening.wsgi.allowed_hosts:
            yield "MKS_ALLOWED_HOSTS is missing: the host names under which the application is reached"
        if "security" in self.areas:
            yield from _key_errors(hardening.security.secret_keys)
        if hardening.db.workers > 1 and redis is None:
            yield (
                f"MKS_REDIS_URL is missing: MKS_GUNICORN_WORKERS={hardening.db.workers} must share sessions "
                "and limits"
            )
        for role in sorted(self.second_factor_roles - ROLES.keys()):
            yield f"MKS_SECOND_FACTOR_ROLES names an unknown role: {role[:40]}"
        if self.database_replica_urls and not (
            "db" in self.areas and (hardening.db.url or "").startswith(_POSTGRESQL)
        ):
            yield "MKS_DATABASE_REPLICA_URLS needs PostgreSQL in DATABASE_URL, and the area db"
        if self.scan_command and self.scan_socket:
            yield "MKS_SCAN_COMMAND and MKS_SCAN_SOCKET are two scanners; name one"
        yield from self._provider_errors()
        if self.production:
            urls = {"DATABASE_URL": hardening.db.url, "MKS_REDIS_URL": redis}
            yield from _weak_passwords({**urls, "MKS_CELERY_BROKER_URL": self.broker_url})

    def _provider_errors(self) -> Iterator[str]:
        if self.oidc_issuer is None:
            return
        host = urlsplit(self.oidc_issuer).hostname
        if self.production and not self.oidc_issuer.startswith("https:"):
            yield "MKS_OIDC_ISSUER must be an https URL in production"
        if not self.oidc_client_id:
            yield "MKS_OIDC_CLIENT_ID is missing: the id of this application at the provider"
        if not self.oidc_client_secret:
            yield "MKS_OIDC_CLIENT_SECRET is missing: the secret of this application at the provider"
        if host == "accounts.google.com" and not self.oidc_hosted_domain:
            yield "MKS_OIDC_HOSTED_DOMAIN is missing: Google signs in everybody; name the domain of the company"
        if self.oidc_tenant_emails and not self.oidc_tenant:
            yield "MKS_OIDC_TENANT_EMAILS needs MKS_OIDC_TENANT: the tenant whose addresses count"
        if self.oidc_new_role and self.oidc_new_role not in ROLES.keys() - {"admin"}:
            yield "MKS_OIDC_NEW_ROLE must be viewer, writer or reviewer, or empty"
        if not self.oidc_passwords and not self.oidc_emergency_accounts:
            yield (
                "MKS_OIDC_EMERGENCY_ACCOUNTS is missing: name an administrator who gets in with a password while "
                "the provider is unavailable"
            )


# Placeholders from examples and passwords that people type to get started.
_KNOWN_WORDS = re.compile(
    r"(?i)(change.?me|change.?this|example|default|secret|password|passwort|postgres|admin|root|test|demo|knowledge.*)[0-9!]*"
)
_SHORTEST_PASSWORD = 12


def _weak_passwords(urls: Mapping[str, str | None]) -> Iterator[str]:
    """Yield errors for short or well-known passwords, without showing them. The library checks keys itself."""
    for name, url in urls.items():
        password = None if url is None else _password_in(url)
        if password is not None and (len(password) < _SHORTEST_PASSWORD or _KNOWN_WORDS.fullmatch(password)):
            yield f"{name} has a password that is short or well known: at least 12 characters made at random"


def _password_in(url: str) -> str | None:
    try:
        found = urlsplit(url).password
    except ValueError:
        return None
    return None if found is None else unquote(found)


def _key_errors(keys: tuple[str, ...]) -> Iterator[str]:
    from mks_hardening.security import SecretBox

    if not keys:
        yield "MKS_SECRET_KEYS is missing: keys for second factors at rest (base64 of 32 bytes)"
        return
    try:
        SecretBox(keys)
    except ConfigurationError as error:
        yield f"MKS_SECRET_KEYS: {error}"
