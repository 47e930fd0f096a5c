"""Read-only access to this machine: clock, files, versions, disk, processes, Redis and PostgreSQL."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from mks_check.production_check.facts import SettingFacts
from mks_check.production_check.host_facts import HostFacts
from mks_hardening._core.redaction.secret_names import ends_in_secret

if TYPE_CHECKING:
    from mks_check.production_check.config_files import ConfigFiles

__all__ = ["host_facts"]

_PROC: Final = Path("/proc")
_SERVERS: Final = re.compile(r"\b(?:gunicorn|uvicorn|hypercorn|granian|daphne|celery|uwsgi)\b")
_ARGUMENT: Final = re.compile(r"^--?([A-Za-z][A-Za-z0-9_-]*)=(.+)$")
_MOST_PROCESSES: Final = 5000
_STA_UNSYNC: Final = 0x0040  # adjtimex(2)


def host_facts(settings: SettingFacts | None, files: ConfigFiles | None) -> HostFacts:
    """Return the facts of this machine; what cannot be read here is left out."""
    paths = list(_secret_paths(settings, files))
    return HostFacts(
        synchronised=_synchronised(),
        modes={path: mode for path in paths if (mode := _mode(path)) is not None},
        writable={path: mode for path in _config_paths(settings, files) if (mode := _mode(path)) is not None},
        packages=_packages(),
        python=tuple(sys.version_info[:3]),
        free={folder: free for folder in ("/", "/var", "/var/log", "/tmp") if (free := _free(folder))},  # noqa: S108 - only asked for its space
        large_logs=dict(_logs(settings)),
        listening=tuple(sorted(set(_listening()))),
        root_processes=tuple(_root_processes()),
        exposed_arguments=dict(_exposed_arguments()),
        redis=_redis(settings),
        max_connections=_max_connections(settings),
    )


def _secret_paths(settings: SettingFacts | None, files: ConfigFiles | None) -> Iterator[str]:
    if settings is not None:
        yield from (
            value
            for name, value in settings.variables.items()
            if name.endswith("_FILE") and ends_in_secret(name.removesuffix("_FILE"))
        )
        if settings.file and any(ends_in_secret(name) for name in settings.variables):
            yield settings.file
    if files is not None and files.nginx is not None:
        for _, directive in files.nginx.every("ssl_certificate_key"):
            yield from directive.args[:1]


def _config_paths(settings: SettingFacts | None, files: ConfigFiles | None) -> Iterator[str]:
    if settings is not None and settings.file:
        yield settings.file
    if files is not None:
        yield from (file.path for file in files.gunicorn)
        yield from (unit.path for unit in files.units)
        yield from (file.path for file in (*files.redis, *files.postgresql))
        if files.nginx is not None:
            yield from sorted(
                {directive.file for _, directive in files.nginx.every("server", "http") if directive.file}
            )


def _mode(path: str) -> int | None:
    with suppress(OSError, ValueError):
        return stat.S_IMODE(Path(path).stat().st_mode)
    return None


def _synchronised() -> bool | None:
    """Return whether the kernel says that its clock is kept in step (adjtimex without a change)."""
    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        buffer = (ctypes.c_long * 64)()  # struct timex: modes, offset, freq, maxerror, esterror, status, …
        if library.adjtimex(buffer) < 0:
            return None
        status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    except (OSError, AttributeError, ValueError, ImportError):
        return None
    return not status & _STA_UNSYNC


def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    found: dict[str, str] = {}
    for distribution in distributions():
        with suppress(Exception):  # metadata of other packages may be damaged
            name = distribution.metadata["Name"]
            if name:
                found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


def _free(folder: str) -> tuple[float, float] | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    blocks = found.f_bavail / found.f_blocks if found.f_blocks else 1.0
    return blocks, found.f_favail / found.f_files if found.f_files else 1.0


def _logs(settings: SettingFacts | None) -> Iterator[tuple[str, int]]:
    if settings is not None and settings.hardening.logging.file:
        with suppress(OSError):
            yield settings.hardening.logging.file, Path(settings.hardening.logging.file).stat().st_size


def _listening() -> Iterator[int]:
    """Yield the ports of this network namespace that listen on every address."""
    for name, everywhere in (("tcp", "00000000"), ("tcp6", "0" * 32)):
        with suppress(OSError, ValueError, IndexError):
            for line in (_PROC / "net" / name).read_text("ascii").splitlines()[1:]:
                address, port = line.split()[1].split(":")
                if line.split()[3] == "0A" and address == everywhere:
                    yield int(port, 16)


def _processes() -> Iterator[tuple[Path, list[str]]]:
    numbers = (each for each in _PROC.iterdir() if each.name.isdigit()) if _PROC.is_dir() else iter(())
    for count, folder in enumerate(numbers):
        if count >= _MOST_PROCESSES:
            return
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes()[:65_536].decode("utf-8", "replace").split("\0")
            if words and words[0]:
                yield folder, [word for word in words if word]


def _root_processes() -> Iterator[str]:
    """Yield servers whose children, the workers, run as root; a master alone may."""
    servers: dict[str, tuple[str, int]] = {}
    for folder, words in _processes():
        match = _SERVERS.search(" ".join(words[:3]))
        with suppress(OSError, IndexError, ValueError):
            status = (folder / "status").read_text("utf-8", "replace")
            uid = int(re.findall(r"(?m)^Uid:\s+(\d+)", status)[0])
            parent = re.findall(r"(?m)^PPid:\s+(\d+)", status)[0]
            if match:
                servers[folder.name] = (match[0], uid)
                servers[f"parent of {folder.name}"] = (parent, uid)
    names = {
        server
        for number, (server, uid) in servers.items()
        if number.isdigit() and uid == 0 and servers[f"parent of {number}"][0] in servers
    }
    yield from sorted(names)


def _exposed_arguments() -> Iterator[tuple[str, str]]:
    for _, words in _processes():
        for word in words[1:]:
            match = _ARGUMENT.match(word)
            if match and ends_in_secret(match[1]) and not match[1].lower().endswith("file"):
                yield Path(words[0]).name, match[1]


def _redis(settings: SettingFacts | None) -> dict[str, str] | None:
    """Return what the running Redis says of eviction and persistence."""
    url = settings.hardening.core.redis_url if settings is not None else None
    if settings is None or url is None:
        return None
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening.exceptions import MksHardeningError

    try:
        with RedisClient(url, allow_plaintext=settings.hardening.core.allow_plaintext) as client:
            found: object = client.call("CONFIG", "GET", "*", idempotent=True)
    except (MksHardeningError, ImportError, OSError):
        return None
    return _pairs(found)


def _pairs(found: object) -> dict[str, str] | None:
    """Return the wanted settings of a reply: a mapping (RESP3), or names and values in turn (RESP2)."""
    if isinstance(found, dict):
        items = list(cast("dict[object, object]", found).items())
    else:
        flat = cast("list[object]", found) if isinstance(found, list) else []
        items = list(zip(flat[::2], flat[1::2], strict=False))
    texts = {str(_decoded(key)): str(_decoded(value)) for key, value in items}
    names = ("maxmemory-policy", "appendonly", "save", "maxmemory")
    return {name: texts[name] for name in names if name in texts} or None


def _decoded(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _max_connections(settings: SettingFacts | None) -> int | None:
    """Return ``max_connections`` of the running PostgreSQL."""
    url = settings.hardening.db.url if settings is not None else None
    if url is None or not url.startswith("postgresql"):
        return None
    try:
        from mks_hardening.db import hardened_engine

        engine = hardened_engine(url)
        try:
            with engine.connect() as connection:
                return int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
        finally:
            engine.dispose()
    except Exception:  # noqa: BLE001 - a driver may raise anything; the database was not asked then
        return None
