"""The secrets of a host: plain files, or files that ``systemd-creds`` encrypts with a key of this host."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import replace_file
from mks_deploy.operations.release import ReleaseError

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["can_encrypt", "plain_credentials", "read_credential", "write_credential"]

_LOADED_AS: Final = {"pooled_url": "database_url"}
"""Files that units load under another name; systemd compares it with the encrypted one."""


def can_encrypt(settings: Settings) -> bool:
    """Whether this host can encrypt its secrets as ``host.encrypt_secrets`` wants; root alone can find out."""
    if not settings.host.encrypt_secrets or os.geteuid() != 0:
        return True
    encrypted = _systemd_creds(_encrypt(settings, "test"), b"test")
    return encrypted is not None and _systemd_creds(_decrypt("test"), encrypted) == b"test"


def write_credential(settings: Settings, name: str, content: bytes) -> None:
    """Write a secret into ``paths.credentials``, in the form of ``host.encrypt_secrets``.

    Raises:
        ReleaseError: systemd-creds refused; the former file stays.
        OSError: the file could not be written; the former one stays.
    """
    if settings.host.encrypt_secrets:
        encrypted = _systemd_creds(_encrypt(settings, name), content)
        if encrypted is None:
            raise ReleaseError(f"host.encrypt_secrets: systemd-creds did not encrypt {name}")
        content = encrypted
    replace_file(Path(settings.paths.credentials) / name, content, mode=0o600)


def read_credential(settings: Settings, name: str) -> bytes | None:
    """Return a secret of this host; ``None`` if it is missing, or not in the form that units load."""
    file = Path(settings.paths.credentials) / name
    try:
        content = file.read_bytes()
    except OSError:
        return None
    if not settings.host.encrypt_secrets:
        return content
    return _systemd_creds(_decrypt(name), content)


def plain_credentials(settings: Settings) -> Path:
    """Return a folder with the secrets of this host in plain text, for commands of root.

    If ``host.encrypt_secrets`` is set, it is in memory, and is deleted when this process ends.
    """
    folder = Path(settings.paths.credentials)
    if not settings.host.encrypt_secrets or not os.access(folder, os.R_OK):
        return folder
    plain = Path(tempfile.mkdtemp(prefix=f"{settings.name}-secrets-", dir="/run"))
    atexit.register(shutil.rmtree, plain, ignore_errors=True)
    for file in folder.iterdir():
        if (content := read_credential(settings, file.name)) is not None:
            replace_file(plain / file.name, content, mode=0o600)
    return plain


def _encrypt(settings: Settings, name: str) -> list[str]:
    key = settings.host.encrypt_secrets
    return ["encrypt", f"--with-key={key}", f"--name={_LOADED_AS.get(name, name)}", "-", "-"]


def _decrypt(name: str) -> list[str]:
    return ["decrypt", f"--name={_LOADED_AS.get(name, name)}", "-", "-"]


def _systemd_creds(arguments: Sequence[str], given: bytes) -> bytes | None:
    words = ["systemd-creds", *arguments]
    try:
        done = subprocess.run(words, input=given, capture_output=True, check=False, timeout=60)  # noqa: S603 - no shell
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
