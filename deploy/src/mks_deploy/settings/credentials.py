"""Secrets: one file each, never part of ``deploy.toml`` or a rendered file; validated here."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from mks_deploy.files import replace_file

if TYPE_CHECKING:
    from mks_deploy.settings.model import Settings

__all__ = ["CREDENTIALS", "Credential", "credential_faults", "make_missing", "used_credentials"]

_SHORTEST_PASSWORD: Final = 16
_WANTED: Final = f"at least {_SHORTEST_PASSWORD} characters that nobody guesses"
_GUESSED: Final = (
    "changeme",
    "changethis",
    "password",
    "secret",
    "example",
    "admin",
    "12345",
    "qwerty",
    "postgres",
)


@dataclass(frozen=True, slots=True)
class Credential:
    """One secret file.

    Attributes:
        file: its name in the directory of credentials.
        variable: variable of the application whose ``_FILE`` form gets its path; empty if another program reads the
            file.
        needed: whether it is required.
        meaning: its content.
    """

    file: str
    variable: str
    needed: bool
    meaning: str


CREDENTIALS: Final = (
    Credential(
        "secret_keys",
        "MKS_SECRET_KEYS",
        True,
        "Keys of second factors at rest, base64 of 32 bytes, newest first.",
    ),
    Credential(
        "database_url",
        "DATABASE_URL",
        True,
        "The database, for example postgresql+psycopg:///knowledge?host=/run/postgresql (no password: peer).",
    ),
    Credential("redis_url", "MKS_REDIS_URL", True, "Redis, for example unix:///run/redis/redis-server.sock."),
    Credential(
        "cache_url",
        "MKS_CACHE_URL",
        False,
        "Redis of the cache, for example unix:///run/redis-cache/redis-server.sock; redis_url by default.",
    ),
    Credential(
        "celery_broker_url",
        "MKS_CELERY_BROKER_URL",
        False,
        "Broker of the background tasks, for example redis+socket:///run/redis/redis-server.sock?virtual_host=1.",
    ),
    Credential("smtp_password", "MKS_SMTP_PASSWORD", False, "Password of the mail server."),
    Credential("slack_webhook_url", "MKS_SLACK_WEBHOOK_URL", False, "Slack's webhook for alerts."),
    Credential(
        "cache_signing_keys", "MKS_CACHE_SIGNING_KEYS", False, "Keys that sign cache entries, newest first."
    ),
    Credential("cloudflare_api_token", "CLOUDFLARE_API_TOKEN", False, "Token for purging the CDN."),
    Credential("acme_eab_hmac_key", "", False, "External account binding of the ACME provider."),
    Credential("database_password", "", False, "For compose: what its PostgreSQL asks for."),
    Credential("redis_auth", "", False, "For compose: the line of its Redis that says requirepass."),
)


def used_credentials(folder: Path) -> tuple[Credential, ...]:
    """Return the credentials that the application gets: the required ones, and optional ones that exist."""
    return tuple(
        each for each in CREDENTIALS if each.variable and (each.needed or (folder / each.file).exists())
    )


def credential_faults(folder: Path, settings: Settings | None) -> Iterator[str]:
    """Yield missing, weak and world-readable secrets; messages never contain a value."""
    if not folder.is_dir():
        yield f"{folder} must be a folder with one file for each secret (mks-deploy secrets makes it)"
        return
    for credential in CREDENTIALS:
        file = folder / credential.file
        needed = credential.needed or (settings is not None and _is_wanted(credential.file, settings))
        if not file.exists():
            if needed:
                yield f"the secret {credential.file} is missing: {credential.meaning}"
            continue
        if file.stat().st_mode & 0o077:
            yield f"the secret {credential.file} must be readable by its owner alone (chmod 600)"
        yield from _weaknesses(credential.file, file)
    known = {credential.file for credential in CREDENTIALS}
    for extra in sorted(path.name for path in folder.iterdir() if path.name not in known):
        yield f"the secret {extra[:40]} is unknown: known are {', '.join(sorted(known))}"


def _is_wanted(file: str, settings: Settings) -> bool:
    """Whether this deployment requires an optional credential."""
    return (file == "acme_eab_hmac_key" and settings.tls.eab_key_id != "") or (
        file == "celery_broker_url" and settings.tasks.enabled
    )


_ON_ONE_HOST: Final = {
    "database_url": "postgresql+psycopg:///knowledge?host=/run/postgresql",
    "redis_url": "unix:///run/redis/redis-server.sock",
    "cache_url": "unix:///run/redis-cache/redis-server.sock",
    "celery_broker_url": "redis+socket:///run/redis/redis-server.sock?virtual_host=1",
}


def make_missing(folder: Path, *, compose: bool = False) -> list[str]:
    """Create the directory and the secrets that can be generated; return the names of the created files.

    Args:
        folder: directory of the secrets.
        compose: whether to use the servers of ``compose.yml``, which require passwords, instead of those of one
            host.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    values = {
        "secret_keys": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "cache_signing_keys": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        **(_for_compose() if compose else _ON_ONE_HOST),
    }
    made = []
    for name, value in values.items():
        file = folder / name
        if not file.exists():
            replace_file(file, value + "\n", mode=0o600)
            made.append(name)
    return made


def _for_compose() -> dict[str, str]:
    database, redis = secrets.token_hex(24), secrets.token_hex(24)
    return {
        "database_password": database,
        "database_url": f"postgresql+psycopg://knowledge:{database}@postgres/knowledge",
        "redis_auth": f"requirepass {redis}",
        "redis_url": f"redis://:{redis}@redis:6379/0",
        "cache_url": f"redis://:{redis}@cache:6379/0",
        "celery_broker_url": f"redis://:{redis}@redis:6379/1",
    }


def _weaknesses(name: str, file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        yield f"the secret {name} cannot be read as UTF-8 text"
        return
    if not text:
        yield f"the secret {name} is empty"
    elif name == "secret_keys":
        yield from _weak_keys(name, text)
    elif name in {"database_url", "redis_url", "cache_url", "celery_broker_url"}:
        yield from _weak_url(name, text)
    elif name == "slack_webhook_url":
        if not text.startswith("https://"):
            yield f"the secret {name} must be an https address"
    elif _guessable(text):
        yield f"the secret {name} is weak: {_WANTED}"


def _weak_keys(name: str, text: str) -> Iterator[str]:
    for position, key in enumerate(text.split(","), start=1):
        try:
            raw = base64.b64decode(
                key.strip().replace("-", "+").replace("_", "/") + "=" * (-len(key.strip()) % 4), validate=True
            )
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            yield f"the secret {name} must hold base64 of 32 bytes, with commas between; number {position} is not"
        elif len(set(raw)) < 8:
            yield f"the secret {name} is weak: number {position} is not random"


_REDIS: Final = frozenset(
    {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
)
_SCHEMES: Final = {
    "database_url": frozenset({"postgresql", "postgresql+psycopg"}),
    "celery_broker_url": frozenset({"redis", "rediss", "redis+socket", "redis+sentinel", "amqp", "amqps"}),
    "redis_url": _REDIS,
    "cache_url": _REDIS,
}


def _weak_url(name: str, text: str) -> Iterator[str]:
    schemes = _SCHEMES[name]
    try:
        parts = urlsplit(text)
        password, host = unquote(parts.password or ""), parts.hostname or ""
    except ValueError:
        yield f"the secret {name} must be an address"
        return
    if parts.scheme not in schemes:
        yield f"the secret {name} must begin with one of {', '.join(f'{scheme}://' for scheme in sorted(schemes))}"
    elif password and _guessable(password):
        yield f"the password in the secret {name} is weak: {_WANTED}"
    elif not password and host not in {"", "localhost", "127.0.0.1", "::1"}:
        yield f"the secret {name} has no password for a server on another machine"


def _guessable(text: str) -> bool:
    lowered = text.lower()
    return len(text) < _SHORTEST_PASSWORD or len(set(text)) < 6 or any(word in lowered for word in _GUESSED)
