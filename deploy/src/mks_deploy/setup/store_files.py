"""Files of PostgreSQL, Redis and Sentinel on several hosts that hold a password or key, each for one account."""

from __future__ import annotations

import grp
import hashlib
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import replace_file
from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.credentials import STORES_CERTIFICATE

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["StoreFile", "first_replication", "redis_accounts", "store_files"]

_PEER: Final = (
    "+psync +replconf +ping +multi +exec +slaveof +replicaof +subscribe +unsubscribe +publish +config|rewrite "
    "+role +info +client|setname +client|kill +script|kill"
)
"""What a replica and Sentinel need of another server (Redis manual, "High availability with Sentinel")."""
_APPLICATION: Final = "+@all -@admin +config|get +client +slowlog|get +slowlog|len +latency"


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file for the account of a server.

    Attributes:
        path: where it is.
        text: content.
        user: its owner.
        group: its group.
        mode: permissions.
        once: whether the server itself continues to write it; it is made only where it does not hold this text.
    """

    path: Path
    text: str
    user: str = "root"
    group: str = "root"
    mode: int = 0o640
    once: str = ""

    def is_there(self) -> bool:
        """Whether it is as it should be."""
        try:
            there = self.path.read_text(encoding="utf-8")
            found = self.path.stat()
            # Restored from a backup, or made by hand: the server could not read it.
            right = found.st_mode & 0o777 == self.mode and self.path.owner() == self.user
        except (OSError, UnicodeDecodeError, KeyError):
            return False
        return right and (self.once in there if self.once else there == self.text)

    def write(self) -> None:
        """Write it where it is not as it should be.

        Raises:
            OSError: it could not be written, or there is no such account.
        """
        if self.is_there():
            return
        try:
            owner = pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise OSError(0, f"there is no account {self.user}:{self.group}", str(self.path)) from None
        replace_file(self.path, self.text, mode=self.mode, owner=owner)


def store_files(settings: Settings, secrets: Path) -> tuple[StoreFile, ...]:
    """Return the files of the servers of this host; none where one host has everything.

    Args:
        settings: settings as seen from this host.
        secrets: folder of the secrets.

    Raises:
        ReleaseError: a secret is missing, which would give a server an empty key or password.
    """
    return tuple(_files(settings, secrets)) if settings.here is not None else ()


def _files(settings: Settings, secrets: Path) -> Iterator[StoreFile]:
    config, name = Path(settings.paths.config), settings.name
    found = {
        path.name: path.read_text(encoding="utf-8").strip() for path in secrets.iterdir() if path.is_file()
    }

    def secret(name: str) -> str:
        if value := found.get(name):
            return value
        raise ReleaseError(f"the secret {name} is missing or empty in {secrets}: mks-deploy secrets makes it")

    if certificate := found.get("store_certificate"):
        yield StoreFile(config / STORES_CERTIFICATE, f"{certificate}\n", mode=0o644)
    if settings.serves_database:
        yield StoreFile(
            config / "stores-postgresql.key", f"{secret('store_key')}\n", "postgres", "postgres", 0o600
        )
        # Backslash and colon, which have a meaning there, are in no generated password.
        quoted = secret("replication_password").replace("\\", "\\\\").replace(":", "\\:")
        yield StoreFile(
            config / "replication.pgpass", f"*:*:*:replicator:{quoted}\n", "postgres", "postgres", 0o600
        )
    redis = Path("/etc/redis")
    sentinel = bool(settings.with_role("sentinel")) and settings.has_role("sentinel")
    if settings.serves_redis or settings.serves_cache or sentinel:
        yield StoreFile(redis / f"{name}.key", f"{secret('store_key')}\n", "root", "redis")
    if settings.serves_redis or settings.serves_cache:
        text = redis_accounts(name, secret("redis_password"), found.get("replication_password", ""))
        yield StoreFile(redis / f"{name}.acl", text, "root", "redis")
    if settings.serves_redis and settings.has_role("redis") and settings.with_role("sentinel"):
        text = f'masteruser peer\nmasterauth "{secret("replication_password")}"\n'
        yield StoreFile(redis / f"{name}-peer.conf", text, "root", "redis")
    if sentinel:
        file = config / "sentinel.conf"
        if file.exists():
            password = secret("replication_password")
            text = f'{file.read_text(encoding="utf-8")}sentinel auth-pass {name} "{password}"\n'
            yield StoreFile(redis / "sentinel.conf", text, "redis", "redis", once=f"sentinel monitor {name} ")


def redis_accounts(name: str, password: str, replication: str) -> str:
    """Return the accounts of Redis: the application's, and one for replicas and Sentinel; all others are off."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    return f"user default off\nuser {name} on #{digest(password)} ~* &* {_APPLICATION}\n" + (
        f"user peer on #{digest(replication)} &* -@all {_PEER}\n" if replication else ""
    )


def first_replication(settings: Settings) -> tuple[str, ...]:
    """Return the line by which a replica follows at first; Sentinel changes it in Redis's own file from then on."""
    servers = settings.with_role("redis")
    if settings.here is None or settings.here not in servers[1:]:
        return ()
    return (f"replicaof {servers[0].address} 6379",)
