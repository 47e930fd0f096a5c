"""Secrets: one file each, never part of ``deploy.toml`` or a rendered file; validated here."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from mks_deploy.atomic_files import replace_file
from mks_deploy.settings.definitions import Secret

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = [
    "CREDENTIALS",
    "STORES_CERTIFICATE",
    "Credential",
    "bindings",
    "credential_errors",
    "credentials_of",
    "environment_errors",
    "is_wanted",
    "make_missing",
    "used_credentials",
]

_SHORTEST_PASSWORD: Final = 16
_WANTED: Final = f"at least {_SHORTEST_PASSWORD} characters that cannot be guessed"
_ENVIRONMENT: Final = re.compile(r"(?:AWS|RESTIC_REST)_[A-Z_]{1,60}=\S{1,500}")
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
        own: whether it belongs to the application alone.
    """

    file: str
    variable: str
    needed: bool
    meaning: str
    own: bool = False


CREDENTIALS: Final = (
    Credential(
        "secret_keys",
        "MKS_SECRET_KEYS",
        True,
        "Keys of second factors at rest, base64 of 32 bytes; the first encrypts.",
    ),
    Credential(
        "database_url",
        "DATABASE_URL",
        True,
        "The database, for example postgresql:///shop?host=/run/postgresql (no password: peer).",
    ),
    Credential(
        "database_replica_urls",
        "MKS_DATABASE_REPLICA_URLS",
        False,
        "The standby of the database, for stores.standby_reads.",
    ),
    Credential("pooled_url", "", False, "The database by way of PgBouncer, for stores.pooler."),
    Credential(
        "pooler_users", "", False, "Account and password for PgBouncer, where PostgreSQL is elsewhere."
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
    Credential("alert_webhook_url", "", False, "Address that Alertmanager posts its alerts to."),
    Credential(
        "cache_signing_keys",
        "MKS_CACHE_SIGNING_KEYS",
        False,
        "Keys that sign cache entries; the first signs.",
    ),
    Credential("cloudflare_api_token", "CLOUDFLARE_API_TOKEN", False, "Token for purging the CDN."),
    Credential("sentry_dsn", "SENTRY_DSN", False, "DSN of Sentry or GlitchTip, for reports of errors."),
    Credential("acme_eab_hmac_key", "", False, "External account binding of the ACME provider."),
    Credential(
        "restic_password",
        "",
        False,
        "Password of the copies elsewhere: keep it in another place too, no copy can be read without it.",
    ),
    Credential(
        "restic_environment",
        "",
        False,
        "Access to the object store or REST server of the copies: lines such as AWS_ACCESS_KEY_ID=...",
    ),
    Credential("restic_ssh_key", "", False, "Private key of ssh for the machine with the copies."),
    Credential(
        "logs_authorization",
        "",
        False,
        "Field Authorization for the collector of logs, for example ApiKey ..., Bearer ... or Splunk ...",
    ),
    Credential("restic_known_hosts", "", False, "Host key of that machine, as ssh-keyscan prints it."),
    Credential(
        "database_password",
        "",
        False,
        "Password of the database account, for compose or several hosts; the one in database_url.",
    ),
    Credential(
        "replication_password", "", False, "Password by which servers of several hosts follow another."
    ),
    Credential("redis_password", "", False, "Password of Redis on several hosts; the one in redis_url."),
    Credential("store_certificate", "", False, "Certificate of PostgreSQL and Redis on several hosts, PEM."),
    Credential("store_key", "", False, "Its key, PEM."),
    Credential("redis_auth", "", False, "For compose: the requirepass line of its Redis."),
)


def credentials_of(settings: Settings) -> tuple[Credential, ...]:
    """Return every credential that this deployment may have: those of the kit, and those of its application."""
    known = {credential.file for credential in CREDENTIALS}
    own = {secret.file: secret for secret in settings.secrets if secret.file not in known}
    own = own if settings.runs_application else {}
    return (
        *(credential for credential in CREDENTIALS if credential.file not in _unused(settings)),
        *(
            Credential(
                file, secret.variable, True, f"What {secret.variable} of the application holds.", own=True
            )
            for file, secret in own.items()
        ),
    )


def used_credentials(folder: Path, settings: Settings) -> tuple[Credential, ...]:
    """Return the credentials that the application gets: the required ones, and optional ones that exist."""
    return tuple(
        each
        for each in credentials_of(settings)
        if each.variable and (each.needed or (folder / each.file).exists())
    )


def bindings(credential: Credential, settings: Settings) -> tuple[Secret, ...]:
    """Return the variables by which the application gets a credential."""
    given = tuple(secret for secret in settings.secrets if secret.file == credential.file)
    if credential.own or any(secret.variable == credential.variable for secret in given):
        return given
    return (Secret(credential.variable, credential.file, as_value=False), *given)


def _unused(settings: Settings) -> set[str]:
    """Return the files of what this deployment does not have."""
    unused = set[str]()
    if not settings.app.hardened:
        unused |= {"secret_keys", "cache_signing_keys"}
    if not settings.has_database:
        unused |= {"database_url", "database_password"}
    if not settings.stores.standby_reads:
        unused |= {"database_replica_urls"}
    if not settings.pools_here:
        unused |= {"pooled_url", "pooler_users"}
    if not settings.hosts:
        unused |= {"pooler_users"}
    if not settings.has_redis:
        unused |= {"redis_url", "cache_url", "redis_auth"}
    if not settings.has_tasks:
        unused |= {"celery_broker_url"}
    if not settings.logs.ship:
        unused |= {"logs_authorization"}
    if settings.upkeep.mail_sink:
        unused |= {"smtp_password", "slack_webhook_url"}
    if settings.upkeep.alert_webhook != "file" or not settings.is_main:
        unused |= {"alert_webhook_url"}
    if not settings.offsite.repository or not settings.is_main:
        unused |= {"restic_password"}
    if not settings.offsite.needs_environment or not settings.is_main:
        unused |= {"restic_environment"}
    if not settings.offsite.needs_ssh or not settings.is_main:
        unused |= {"restic_ssh_key", "restic_known_hosts"}
    return unused | _elsewhere(settings)


def _elsewhere(settings: Settings) -> set[str]:
    """Return the files that this host does not need, because what reads them is on another one."""
    if not settings.hosts:
        return {"replication_password", "redis_password", "store_certificate", "store_key"}
    unused = set[str]()
    if not settings.runs_application:
        unused |= {"secret_keys", "cache_signing_keys", "cloudflare_api_token", "sentry_dsn"}
        unused |= {"database_replica_urls"}
        unused |= set() if settings.serves_database else {"database_url"}
        unused |= set() if settings.serves_redis else {"redis_url", "celery_broker_url"}
        unused |= set() if settings.serves_cache else {"cache_url"}
    if not settings.has_role("edge"):
        unused |= {"acme_eab_hmac_key"}
    if not settings.serves_database:
        unused |= {"database_password"}
    if not settings.serves_database and not settings.has_role("redis", "sentinel"):
        unused |= {"replication_password"}
    if not settings.serves_redis and not settings.serves_cache:
        unused |= {"redis_password"}
    if not settings.serves_database and not settings.has_role("redis", "cache", "queue", "sentinel"):
        unused |= {"store_key"}
    return unused


_OF_DATABASE: Final = frozenset({"database_replica_urls", "pooled_url", "pooler_users"})
_OF_SEVERAL: Final = frozenset(
    {"database_password", "replication_password", "redis_password", "store_certificate", "store_key"}
)


def is_wanted(credential: Credential, settings: Settings) -> bool:
    """Whether this deployment requires a credential, an optional one included."""
    return (
        credential.needed
        or (credential.file == "acme_eab_hmac_key" and settings.tls.eab_key_id != "")
        or (credential.file == "celery_broker_url" and settings.has_tasks)
        or (
            credential.file in _OF_SEVERAL
            and settings.hosts != ()
            and credential.file not in _unused(settings)
        )
        or (credential.file in _OF_DATABASE and credential.file not in _unused(settings))
        or (credential.file == "logs_authorization" and settings.logs.ship != "")
        or (credential.file == "alert_webhook_url" and credential.file not in _unused(settings))
        or (credential.file.startswith("restic_") and credential.file not in _unused(settings))
    )


def credential_errors(folder: Path, settings: Settings | None) -> Iterator[str]:
    """Yield missing, weak and world-readable secrets; messages never contain a value."""
    if not folder.is_dir():
        yield f"{folder} must be a folder with one file for each secret (mks-deploy secrets makes it)"
        return
    for credential in CREDENTIALS if settings is None else credentials_of(settings):
        file = folder / credential.file
        if not file.exists():
            # Without valid settings, the required secrets are unknown.
            if settings is not None and is_wanted(credential, settings):
                yield f"the secret {credential.file} is missing: {credential.meaning}"
            continue
        if file.stat().st_mode & 0o077:
            yield f"the secret {credential.file} must be readable by its owner alone (chmod 600)"
        yield from _weaknesses(credential, file)
    if settings is None:
        return
    if settings.upkeep.mail_sink and (folder / "slack_webhook_url").exists():
        yield "the secret slack_webhook_url would send alerts of staging to people: delete it (upkeep.mail_sink)"
    yield from _other_hosts(folder, settings)
    known = {credential.file for credential in CREDENTIALS} | {secret.file for secret in settings.secrets}
    for extra in sorted(path.name for path in folder.iterdir() if path.name not in known):
        yield f"the secret {extra[:40]} is unknown: known are {', '.join(sorted(known))}"


_GENERATED: Final = frozenset(
    {"APP_SECRET_KEY", "DJANGO_SECRET_KEY", "FLASK_SECRET_KEY", "SECRET_KEY", "SESSION_SECRET"}
)
"""Variables of frameworks that hold any random text."""


def make_missing(folder: Path, settings: Settings, *, compose: bool = False) -> list[str]:
    """Create the directory and the secrets that can be generated; return the names of the created files.

    Args:
        folder: directory of the secrets.
        settings: settings of the deployment, which determine the required secrets.
        compose: whether to use the servers of ``compose.yml``, which require passwords, instead of those of one
            host.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    values = {
        "secret_keys": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "cache_signing_keys": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "restic_password": secrets.token_urlsafe(48),
        "pooled_url": (
            f"{settings.stores.database_scheme}:///{settings.stores.database_name}"
            f"?host={settings.paths.runtime}/{settings.name}-pooler&port=6432"
        ),
        **(_for_compose(settings) if compose else _on_hosts(folder, settings)),
        **{
            secret.file: secrets.token_urlsafe(48)
            for secret in settings.secrets
            if secret.variable in _GENERATED
        },
    }
    unused = _unused(settings)
    made = []
    for name, value in values.items():
        file = folder / name
        if name not in unused and not file.exists():
            replace_file(file, value + "\n", mode=0o600)
            made.append(name)
    return made


def _on_hosts(folder: Path, settings: Settings) -> dict[str, str]:
    """Return addresses and passwords of servers that other hosts reach; a password is part of its address."""
    if not settings.hosts:
        return _on_one_host(settings)

    def kept(name: str) -> str:
        file = folder / name
        return file.read_text(encoding="utf-8").strip() if file.exists() else secrets.token_hex(24)

    name, stores, ca = settings.name, settings.stores, f"{settings.paths.config}/{STORES_CERTIFICATE}"
    database, redis = kept("database_password"), kept("redis_password")
    addresses = ",".join(host.address for host in settings.with_role("database", "standby"))
    trusted = f"ssl=verify-full&sslrootcert={ca}" if "asyncpg" in stores.database_scheme else ""
    # Of a host that is suddenly gone, no packet says so: without limits, a request waits for a quarter of an hour.
    limits = (
        "connect_timeout=3&tcp_user_timeout=10000&keepalives_idle=5&keepalives_interval=2&keepalives_count=3"
    )
    trusted = trusted or f"sslmode=verify-full&sslrootcert={ca}&{limits}"

    def address(role: str, port: int, rest: str) -> str:
        host = next(iter(settings.with_role(role)), None)
        place = host.address if host else "127.0.0.1"
        return f"rediss://{name}:{redis}@{f'[{place}]' if ':' in place else place}:{port}/{rest}"

    ports = ",".join("5432" for _ in addresses.split(","))

    def database_address(accepts: str) -> str:
        # The server of that kind, whichever it is: libpq and SQLAlchemy read hosts and ports from here alike.
        return (
            f"{stores.database_scheme}://{name}:{database}@/{stores.database_name}?host={addresses}&port={ports}"
            f"&target_session_attrs={accepts}&{trusted}"
        )

    sentinels = ",".join(f"{host.address}:26379" for host in settings.with_role("sentinel"))
    chosen = f"rediss+sentinel://{name}:{redis}@{sentinels}/{name}/0?ca_file={ca}"
    # The library's name of the option; other applications hand the address to redis-py.
    option = "ca_file" if settings.app.hardened else "ssl_ca_certs"
    queue = "queue" if settings.with_role("queue") else "redis"
    made = {
        "database_password": database,
        "replication_password": kept("replication_password"),
        "redis_password": redis,
        "pooler_users": f'"{name}" "{database}"',
        "database_url": database_address("read-write"),
        "database_replica_urls": database_address("standby"),
        "redis_url": chosen if sentinels else address("redis", 6379, f"0?{option}={ca}"),
        "cache_url": address("cache", 6380, f"0?{option}={ca}"),
        "celery_broker_url": address(queue, 6379, f"1?ssl_cert_reqs=required&ssl_ca_certs={ca}"),
    }
    if not (folder / "store_key").exists() or not (folder / "store_certificate").exists():
        made["store_certificate"], made["store_key"] = _store_certificate(settings)
    return made


STORES_CERTIFICATE: Final = "stores.pem"
"""File beside ``deploy.toml`` by which clients recognize PostgreSQL and Redis of other hosts."""
_STORES: Final = ("database", "standby", "redis", "cache", "queue", "sentinel")


def _store_certificate(settings: Settings) -> tuple[str, str]:
    """Return a certificate that trusts itself, for the addresses of all hosts with a server, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{settings.name} stores")])
    now = datetime.now(UTC)
    addresses = [x509.IPAddress(ip_address(host.address)) for host in settings.with_role(*_STORES)]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM).decode().strip()
    plain = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return text, key.private_bytes(encoding, form, plain).decode().strip()


def _other_hosts(folder: Path, settings: Settings) -> Iterator[str]:
    """Yield the secrets that do not fit the hosts: after one was added, or where there was one host before."""
    wanted = {
        **dict.fromkeys(("database_url", "database_replica_urls"), settings.with_role("database", "standby")),
        "redis_url": settings.with_role("sentinel") or settings.with_role("redis"),
        "cache_url": settings.with_role("cache"),
        "celery_broker_url": settings.with_role("queue") or settings.with_role("redis"),
    }
    for name, hosts in wanted.items():
        file = folder / name
        text = _text(file) if hosts and name not in _unused(settings) else None
        lacking = [host.address for host in hosts if text and host.address not in unquote(text)]
        if lacking:
            yield (
                f"the secret {name} must name {', '.join(lacking)}, as [[hosts]] does: move the file away, and "
                "mks-deploy secrets makes it"
            )
    pem = _text(folder / "store_certificate")
    if pem and settings.hosts:
        from cryptography import x509

        try:
            found = x509.load_pem_x509_certificate(pem.encode())
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            yield "the secret store_certificate must be a certificate with the addresses of the hosts, PEM"
            return
        known = {str(each) for each in names.get_values_for_type(x509.IPAddress)}
        if lacking := [each.address for each in settings.with_role(*_STORES) if each.address not in known]:
            yield (
                f"the secret store_certificate must name {', '.join(lacking)}, as [[hosts]] does: move it and "
                "store_key away, and mks-deploy secrets makes them"
            )


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _on_one_host(settings: Settings) -> dict[str, str]:
    stores = settings.stores
    return {
        "database_url": f"{stores.database_scheme}:///{stores.database_name}?host=/run/postgresql",
        "redis_url": f"unix://{stores.redis_socket}",
        "cache_url": f"unix://{stores.redis_cache_socket}",
        "celery_broker_url": f"redis+socket://{stores.redis_socket}?virtual_host=1",
    }


def _for_compose(settings: Settings) -> dict[str, str]:
    database, redis = secrets.token_hex(24), secrets.token_hex(24)
    scheme, name = settings.stores.database_scheme, settings.stores.database_name
    return {
        "database_password": database,
        "database_url": f"{scheme}://{name}:{database}@postgres/{name}",
        "redis_auth": f"requirepass {redis}",
        "redis_url": f"redis://:{redis}@redis:6379/0",
        "cache_url": f"redis://:{redis}@cache:6379/0",
        "celery_broker_url": f"redis://:{redis}@redis:6379/1",
    }


def _weaknesses(credential: Credential, file: Path) -> Iterator[str]:
    name = credential.file
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        yield f"the secret {name} cannot be read as UTF-8 text"
        return
    if not text:
        yield f"the secret {name} is empty"
    elif name == "secret_keys":
        yield from _weak_keys(name, text)
    elif name in {"database_url", "pooled_url", "redis_url", "cache_url", "celery_broker_url"}:
        yield from _weak_url(name, text)
    elif name == "database_replica_urls":
        for url in text.split():
            yield from _weak_url(name, url)
    elif name == "restic_environment":
        for problem in environment_errors(text):
            yield f"the secret {name} {problem}"
    elif name == "restic_ssh_key":
        if not text.startswith("-----BEGIN ") or "PRIVATE KEY" not in text.partition("\n")[0]:
            yield f"the secret {name} must be a private key of ssh without a passphrase"
    elif name == "restic_known_hosts":
        if not all(len(line.split()) >= 3 for line in text.splitlines()):
            yield f"the secret {name} must hold lines of known_hosts: host, type and key"
    elif name in {"store_certificate", "store_key"}:
        if not text.startswith("-----BEGIN "):
            yield f"the secret {name} must be PEM"
    elif name in {"slack_webhook_url", "alert_webhook_url", "sentry_dsn"}:
        if not text.startswith("https://"):
            yield f"the secret {name} must be an https address"
    elif _guessable(text) and not (credential.own and len(text) >= _SHORTEST_PASSWORD):
        # Keys of other services are not ours to choose, and may begin with "secret_".
        yield f"the secret {name} is weak: {_WANTED}"


def environment_errors(text: str) -> Iterator[str]:
    """Yield what is wrong with the variables of an object store or REST server, without a value."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        yield "is empty"
    for number, line in enumerate(lines, start=1):
        if not _ENVIRONMENT.fullmatch(line.strip()):
            yield (
                f"must hold lines such as AWS_ACCESS_KEY_ID=..., AWS_SECRET_ACCESS_KEY=..., "
                f"RESTIC_REST_USERNAME=... and RESTIC_REST_PASSWORD=...; line {number} is none"
            )


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
    "database_url": frozenset({"postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"}),
    "database_replica_urls": frozenset({"postgresql", "postgresql+psycopg", "postgresql+asyncpg"}),
    "pooled_url": frozenset({"postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"}),
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
