"""Settings of the application and of the library; all errors are reported at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from knowledge_system.domain.permissions import ROLES
from mks_hardening.exceptions import ConfigurationError, SettingsError
from mks_hardening.settings import HardeningSettings, register_variables

__all__ = ["AREAS", "AppSettings", "UploadSettings"]

AREAS = frozenset({"logging", "cache", "security", "wsgi", "db", "notify", "tasks"})
_BROKERS = ("redis://", "rediss://", "redis+socket://", "redis+sentinel://", "amqp://", "amqps://")
_OWN_VARIABLES = (
    "MKS_AREAS_OFF",
    "MKS_AUDIT_HEADS",
    "MKS_BACKUPS",
    "MKS_BACKUP_MAX_AGE",
    "MKS_CELERY_BROKER_URL",
    "MKS_CELERY_BROKER_URL_FILE",
    "MKS_DATA_DIR",
    "MKS_DEMO",
    "MKS_DEMO_HTTPS_PORT",
    "MKS_DEMO_HTTP_PORT",
    "MKS_FOUR_EYES",
    "MKS_MAIL_DOMAIN",
    "MKS_SCAN_COMMAND",
    "MKS_SCAN_SOCKET",
    "MKS_SECOND_FACTOR_ROLES",
    "MKS_UPLOADS",
    "MKS_UPLOADS_REDIRECT",
    "MKS_UPLOAD_LIMIT",
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"[0-9]{1,9}[smhd]")
_MEGABYTES = re.compile(r"[1-9][0-9]{0,3}m")
_REDIRECT = re.compile(r"(?:/[A-Za-z0-9_-]+)+")


# Operators of this system read Japanese.
_DEFAULTS: Final = {"MKS_ALERT_LANGUAGE": "ja"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSettings:
    """Settings of uploaded files.

    Attributes:
        folder: directory of the files, outside any directory that a server serves; below the data directory by
            default.
        limit: maximum size of one file in bytes.
        redirect: path of nginx's internal location that serves the directory; empty if the application serves the
            files.
        scan_command: program that reads a file and exits with 1 if it is infected.
        scan_socket: address of clamd: a path, or ``host:port``.
    """

    folder: Path | None = None
    limit: int = 15 * 1_048_576
    redirect: str = ""
    scan_command: str = ""
    scan_socket: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """Settings of ``create_app``.

    Attributes:
        hardening: library settings of all areas.
        demo: whether this is the demonstration on one machine; adds pages that provoke errors on purpose.
        data_dir: directory of the demonstration's files: database, log, mail sink.
        areas: enabled areas; the application runs without any of them.
        broker_url: URL of Celery's broker; without it, the web processes run the background tasks themselves.
        mail_domain: users without an address get mail at ``username@mail_domain``; if empty, they get none.
        four_eyes: whether authors may not approve their own articles; disable only if there is a single reviewer.
        audit_heads: file to which the end of the audit log is copied each night, preferably not on the database's
            host.
        backups: directory of the backups; in production, the schema is not migrated without a fresh backup.
        backup_max_age: maximum age of a fresh backup in seconds.
        second_factor_roles: roles that need a second factor to use anything except their account pages.
        uploads: settings of uploaded files.
    """

    hardening: HardeningSettings = field(default_factory=HardeningSettings)
    demo: bool = False
    data_dir: Path = Path("var/demo")
    areas: frozenset[str] = AREAS
    demo_password: str = field(default="", repr=False)
    broker_url: str | None = field(default=None, repr=False)
    mail_domain: str = "knowledge.example"
    four_eyes: bool = True
    audit_heads: Path | None = None
    backups: Path | None = None
    backup_max_age: float = 93_600
    second_factor_roles: frozenset[str] = frozenset()
    uploads: UploadSettings = field(default_factory=UploadSettings)

    @property
    def upload_folder(self) -> Path:
        """The directory of uploaded files."""
        return self.uploads.folder or self.data_dir / "uploads"

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

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read all settings from environment variables.

        Raises:
            SettingsError: lists every error in the variables of the library and of the application.
        """
        source = os.environ if environ is None else environ
        register_variables(*_OWN_VARIABLES)
        faults: list[str] = []
        hardening = HardeningSettings()
        try:
            hardening = HardeningSettings.from_env(environ={**_DEFAULTS, **source})
        except SettingsError as error:
            faults.extend(error.errors)
        demo = source.get("MKS_DEMO", "") == "1"
        areas_off = {name.strip() for name in source.get("MKS_AREAS_OFF", "").split(",") if name.strip()}
        faults.extend(
            f"MKS_AREAS_OFF names an unknown area: {name[:40]}" for name in sorted(areas_off - AREAS)
        )
        if source.get("MKS_DEMO", "") not in {"", "0", "1"}:
            faults.append("MKS_DEMO must be 0 or 1")
        if source.get("MKS_FOUR_EYES", "") not in {"", "0", "1"}:
            faults.append("MKS_FOUR_EYES must be 0 or 1")
        broker = _broker_url(source)
        if broker is not None and not broker.startswith(_BROKERS):
            faults.append(
                f"MKS_CELERY_BROKER_URL must be a {', '.join(_BROKERS[:-1])} or {_BROKERS[-1]} URL, "
                "and MKS_CELERY_BROKER_URL_FILE a file with one"
            )
        workers = hardening.db.workers
        if workers > 1 and hardening.core.redis_url is None:
            faults.append(
                f"MKS_GUNICORN_WORKERS={workers} needs MKS_REDIS_URL: sessions and limits must be shared"
            )
        backup_age = source.get("MKS_BACKUP_MAX_AGE") or "26h"
        if not _DURATION.fullmatch(backup_age):
            faults.append("MKS_BACKUP_MAX_AGE must be a whole number with s, m, h or d, for example 26h")
        in_production = hardening.core.environment == "production" and not demo
        roles = _factor_roles(source, in_production=in_production)
        faults.extend(
            f"MKS_SECOND_FACTOR_ROLES names an unknown role: {role[:40]}"
            for role in sorted(roles - ROLES.keys())
        )
        faults.extend(_upload_faults(source))
        faults.extend(_missing(source, AREAS - areas_off))
        if in_production:
            faults.extend(_weak(source))
        if faults:
            raise SettingsError(tuple(dict.fromkeys(faults)))
        return cls(
            hardening=hardening,
            demo=demo,
            data_dir=Path(source.get("MKS_DATA_DIR", "var/demo")),
            areas=AREAS - areas_off,
            demo_password=DEMO_PASSWORD if demo else "",
            broker_url=broker,
            mail_domain=source.get("MKS_MAIL_DOMAIN") or ("" if in_production else "knowledge.example"),
            four_eyes=source.get("MKS_FOUR_EYES", "") != "0",
            audit_heads=Path(source["MKS_AUDIT_HEADS"]) if source.get("MKS_AUDIT_HEADS") else None,
            backups=Path(source["MKS_BACKUPS"]) if source.get("MKS_BACKUPS") else None,
            second_factor_roles=roles,
            backup_max_age=int(backup_age[:-1]) * _UNITS[backup_age[-1]],
            uploads=_uploads(source),
        )


# Publicly known, and therefore only for the demonstration on loopback.
DEMO_PASSWORD = "knowledge-2026"  # noqa: S105


def _broker_url(source: Mapping[str, str]) -> str | None:
    """Read the URL, or the file that holds it, as it may contain a password; empty if the file cannot be read."""
    if file := source.get("MKS_CELERY_BROKER_URL_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""
    return source.get("MKS_CELERY_BROKER_URL") or None


def _upload_faults(source: Mapping[str, str]) -> Iterator[str]:
    limit, redirect = source.get("MKS_UPLOAD_LIMIT", ""), source.get("MKS_UPLOADS_REDIRECT", "")
    if limit and not _MEGABYTES.fullmatch(limit):
        yield "MKS_UPLOAD_LIMIT must be a whole number of megabytes with m, for example 15m"
    if redirect and not _REDIRECT.fullmatch(redirect):
        yield "MKS_UPLOADS_REDIRECT must be a path without a slash at its end, for example /-/uploads"
    if source.get("MKS_SCAN_COMMAND") and source.get("MKS_SCAN_SOCKET"):
        yield "MKS_SCAN_COMMAND and MKS_SCAN_SOCKET are two scanners; name one"


def _uploads(source: Mapping[str, str]) -> UploadSettings:
    return UploadSettings(
        folder=Path(source["MKS_UPLOADS"]) if source.get("MKS_UPLOADS") else None,
        limit=int((source.get("MKS_UPLOAD_LIMIT") or "15m")[:-1]) * 1_048_576,
        redirect=source.get("MKS_UPLOADS_REDIRECT", ""),
        scan_command=source.get("MKS_SCAN_COMMAND", ""),
        scan_socket=source.get("MKS_SCAN_SOCKET", ""),
    )


def _factor_roles(source: Mapping[str, str], *, in_production: bool) -> frozenset[str]:
    """Return the roles that need a second factor; ``admin`` in production if the variable is not set at all."""
    named = source.get("MKS_SECOND_FACTOR_ROLES", "admin" if in_production else "")
    return frozenset(role.strip() for role in named.split(",") if role.strip())


# Placeholders from examples and passwords that people type to get started.
_KNOWN_WORDS = re.compile(
    r"(?i)(change.?me|change.?this|example|default|secret|password|passwort|postgres|admin|root|test|demo|knowledge.*)[0-9!]*"
)
_SHORTEST_PASSWORD = 12


def _weak(source: Mapping[str, str]) -> Iterator[str]:
    """Yield errors for short or well-known passwords, without showing them. The library checks keys itself."""
    for name in ("DATABASE_URL", "MKS_REDIS_URL", "MKS_CELERY_BROKER_URL"):
        password = _password_in(_given(source, name))
        if password is not None and (len(password) < _SHORTEST_PASSWORD or _KNOWN_WORDS.fullmatch(password)):
            yield f"{name} has a password that is short or well known: at least 12 characters made at random"


def _given(source: Mapping[str, str], name: str) -> str:
    """Return a variable, or the content of its ``_FILE``; empty if unreadable, which is reported elsewhere."""
    if file := source.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""
    return source.get(name, "")


def _password_in(url: str) -> str | None:
    try:
        found = urlsplit(url).password
    except ValueError:
        return None
    return None if found is None else unquote(found)


def _missing(source: Mapping[str, str], areas: frozenset[str]) -> Iterator[str]:
    """Yield variables that are optional for the library but required by this application."""
    if not (source.get("DATABASE_URL") or source.get("DATABASE_URL_FILE")):
        yield "DATABASE_URL is missing: the SQLAlchemy URL of the database, for example postgresql+psycopg://…"
    if "wsgi" in areas and not source.get("MKS_ALLOWED_HOSTS"):
        yield "MKS_ALLOWED_HOSTS is missing: the host names under which the application is reached"
    if "security" in areas:
        yield from _key_faults(source)


def _key_faults(source: Mapping[str, str]) -> Iterator[str]:
    from mks_hardening.security import SecretBox

    names = ("MKS_SECRET_KEYS", "MKS_SECRET_KEYS_FILE")
    given = {name: source[name] for name in names if source.get(name)}
    if not given:
        yield "MKS_SECRET_KEYS is missing: keys for second factors at rest (base64 of 32 bytes), newest first"
        return
    try:
        SecretBox(HardeningSettings.from_env(environ=given).security.secret_keys)
    except SettingsError:
        return  # already reported with the other variables
    except ConfigurationError as error:
        yield f"MKS_SECRET_KEYS: {error}"
