"""What a host has, read from it without changing anything."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.operations.backup import newest_at
from mks_deploy.operations.database_hosts import standby_mark
from mks_deploy.operations.host_credentials import can_encrypt, is_as_wanted, read_credential
from mks_deploy.operations.host_steps import read_state
from mks_deploy.settings.credentials import credentials_of
from mks_deploy.setup.plan import HostFacts, units_to_enable
from mks_deploy.setup.store_files import store_files

if TYPE_CHECKING:
    from mks_deploy.rendering import RenderedFile
    from mks_deploy.settings.definitions import Settings
    from mks_deploy.setup.plan import Certificate

__all__ = ["REDIS_CONF", "applied_file", "digests", "read_facts", "redis_include"]

REDIS_CONF: Final = Path("/etc/redis/redis.conf")
_CLUSTERS: Final = Path("/etc/postgresql")
_COMMAND: Final = Path("/usr/local/bin/mks-deploy")


def digests(settings: Settings, files: Iterable[RenderedFile]) -> dict[str, str]:
    """Return a digest of the rendered files for each part of the host that has to take notice of them."""
    name, config = settings.name, settings.paths.config.removeprefix("/")
    parts: dict[str, list[str]] = {topic: [] for topic in ("files", "application")}
    parts |= {"nginx": []} if settings.edge.mode == "nginx" and settings.has_role("web") else {}
    parts |= {"postgresql": []} if settings.serves_database else {}
    parts |= {"redis": []} if settings.serves_redis or settings.serves_cache else {}
    parts |= {"pooler": []} if settings.pools_here else {}
    parts |= {"sentinel": []} if settings.with_role("sentinel") and settings.has_role("sentinel") else {}
    parts |= {"renewal": []} if settings.rehearsal_directory and settings.has_role("edge") else {}
    parts |= {"firewall": []} if settings.host.firewall else {}
    parts |= {"ssh": []} if settings.host.ssh_keys_only else {}
    nginx = settings.paths.nginx.removeprefix("/")
    for file in files:
        text = f"{file.path}\0{file.mode:o}\0{file.text}\0"
        parts["files"].append(text)
        if file.path.startswith(f"{nginx}/"):
            parts["nginx"].append(text)
        elif file.path.startswith((f"{config}/cert", f"etc/systemd/system/{name}-re")):
            parts.setdefault("renewal", []).append(text)
        elif file.path == f"{config}/firewall.nft":
            parts["firewall"].append(text)
        elif file.path.startswith("etc/ssh/"):
            parts["ssh"].append(text)
        elif file.path in {f"{config}/postgresql.conf", f"{config}/pg_hba.conf"}:
            parts["postgresql"].append(text)
        elif file.path in {f"{config}/redis.conf", "etc/redis/redis-cache.conf"}:
            parts["redis"].append(text)
        elif file.path.startswith((f"{config}/pgbouncer.", f"etc/systemd/system/{name}-pooler")):
            parts["pooler"].append(text)
        elif file.path == f"{config}/sentinel.conf":
            parts["sentinel"].append(text)
        elif file.path.startswith(
            (
                f"{config}/{name}.env",
                f"{config}/gunicorn",
                f"{config}/uvicorn",
                f"{config}/hypercorn",
                f"{config}/granian",
                f"etc/systemd/system/{name}@",
                f"etc/systemd/system/{name}-worker",
                f"etc/systemd/system/{name}-beat",
            )
        ):
            parts["application"].append(text)
    return {topic: hashlib.sha256("".join(texts).encode()).hexdigest() for topic, texts in parts.items()}


def applied_file(settings: Settings) -> Path:
    """Return the file that remembers of which files each part of the host has taken notice."""
    return Path(settings.paths.config) / "applied.json"


def redis_include(settings: Settings) -> str:
    """Return the line by which Redis includes the rendered settings."""
    return f"include {settings.paths.config}/redis.conf"


def read_facts(
    settings: Settings, files: Sequence[RenderedFile], *, secrets: Path, version: str, root: Path = Path("/")
) -> HostFacts:
    """Read what the host has.

    Args:
        settings: settings of the deployment.
        files: files as rendered, with paths below the root.
        secrets: folder of the secrets to use.
        version: version to release.
        root: root of the host's files.
    """
    releases = Path(settings.paths.releases)
    now = datetime.now(UTC).timestamp()
    age = now - newest_at(settings, now=now)
    current = releases / "current"
    return HostFacts(
        packages=_packages(),
        wanted={**digests(settings, files), "migration": version, "accounts": "set"},
        applied=_applied(settings),
        files_differ=any(not _is_there(root / file.path, file) for file in files),
        secrets_differ=_secrets_that_differ(settings, secrets),
        secrets_left=_secrets_left(settings, secrets),
        cluster=_cluster(),
        has_role=settings.serves_database and settings.name in _rows("SELECT rolname FROM pg_roles"),
        follows=settings.serves_database and _rows("SELECT pg_is_in_recovery()") == ["t"],
        is_copy=standby_mark(settings).exists(),
        store_files_differ=any(not file.is_there() for file in store_files(settings, secrets)),
        has_database=settings.serves_database
        and settings.stores.database_name in _rows("SELECT datname FROM pg_database"),
        includes_redis=_includes_redis(settings),
        certificate=_certificate(settings),
        linked=current.resolve().name if current.exists() else "",
        has_command=_COMMAND.is_symlink(),
        running=read_state(settings).version,
        has_backup=age < settings.upkeep.backup_max_age,
        enabled=_enabled(units_to_enable(settings)),
        version=version,
        can_encrypt=can_encrypt(settings),
        has_root_key=_has_key(Path("/root/.ssh/authorized_keys")),
        follows_connections=settings.host.firewall
        and "ct state" in _said(["nft", "list", "table", "inet", settings.firewall_table]),
    )


def _has_key(file: Path) -> bool:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _is_there(target: Path, file: RenderedFile) -> bool:
    try:
        return target.read_bytes() == file.text.encode() and target.stat().st_mode & 0o777 == file.mode
    except OSError:
        return False


def _packages() -> frozenset[str]:
    said = _said(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"])
    lines = (line.split() for line in said.splitlines())
    return frozenset(words[0] for words in lines if words[-1] == "installed")


def _applied(settings: Settings) -> Mapping[str, str]:
    try:
        found = json.loads(applied_file(settings).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(topic): str(digest) for topic, digest in found.items()} if isinstance(found, dict) else {}


def _given_secrets(settings: Settings, given: Path) -> list[str]:
    """Return the names of the secrets that this host is to have; none if they are those that it has."""
    there = Path(settings.paths.credentials)
    names = sorted(path.name for path in given.iterdir()) if given.is_dir() and given != there else []
    if settings.hosts:
        # What no server of this host reads does not come here.
        known = {credential.file for credential in credentials_of(settings)}
        names = [name for name in names if name in known]
    return names


def _secrets_left(settings: Settings, given: Path) -> tuple[str, ...]:
    names = _given_secrets(settings, given)
    there = Path(settings.paths.credentials)
    if not names or not os.access(there, os.R_OK):
        return ()
    return tuple(sorted(path.name for path in there.iterdir() if path.is_file() and path.name not in names))


def _secrets_that_differ(settings: Settings, given: Path) -> tuple[str, ...]:
    there = Path(settings.paths.credentials)
    names = _given_secrets(settings, given)
    if not is_as_wanted(settings, names):
        return tuple(names)
    return tuple(
        name
        for name in names
        if read_credential(settings, name) != _content(given / name) or _is_open(there / name)
    )


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _is_open(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o077)


def _cluster() -> str:
    found = sorted(
        (path.parent.name for path in _CLUSTERS.glob("*/main")), key=lambda text: (len(text), text)
    )
    return found[-1] if found else ""


def _rows(query: str) -> list[str]:
    if os.geteuid() != 0:
        return []
    return _said(["runuser", "-u", "postgres", "--", "psql", "-XAtqc", query]).splitlines()


def _includes_redis(settings: Settings) -> bool:
    try:
        return redis_include(settings) in REDIS_CONF.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False


def _certificate(settings: Settings) -> Certificate:
    if settings.tls.source == "own":
        return "issued"
    served = Path(settings.certificate_files[0]).parent
    if not (served / "fullchain.pem").exists():
        return "none"
    return "placeholder" if served.resolve().name == "placeholder" else "issued"


def _enabled(units: Sequence[str]) -> frozenset[str]:
    said = _said(["systemctl", "is-enabled", *units]).split("\n")
    return frozenset(unit for unit, word in zip(units, said, strict=False) if word == "enabled")


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs with names of judged settings, no shell
            list(command), capture_output=True, text=True, check=False, timeout=60, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
