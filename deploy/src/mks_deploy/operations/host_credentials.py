"""The secrets of a host: plain files, or files that ``systemd-creds`` encrypts with a key of this host."""

from __future__ import annotations

import atexit
import base64
import binascii
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import replace_file
from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.credentials import credentials_of

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["can_encrypt", "is_as_wanted", "plain_credentials", "read_credential", "write_credential"]

_LOADED_AS: Final = {"pooled_url": "database_url"}
"""Files that units load under another name; systemd compares it with the encrypted one."""

_MEMORY: Final = "/run"
_KIND: Final = 16
"""Bytes at the start of an encrypted file that name the kind of its key (``CRED_AES256_GCM_BY_...`` of systemd)."""


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
    content = _content(Path(settings.paths.credentials) / name)
    if content is None or not settings.host.encrypt_secrets:
        return content
    return _systemd_creds(_decrypt(name), content)


def is_as_wanted(settings: Settings, names: Iterable[str]) -> bool:
    """Whether the files of these secrets are encrypted with the kind of key that ``host.encrypt_secrets`` names."""
    if not settings.host.encrypt_secrets or os.geteuid() != 0:
        return True
    wanted = _wanted_kind(settings)
    folder = Path(settings.paths.credentials)
    return all(_kind(_content(folder / name)) in {wanted, b""} for name in names)


def plain_credentials(settings: Settings, *, copied: bool = False) -> Path:
    """Return a folder with the secrets of this host in plain text, for commands of root.

    If ``host.encrypt_secrets`` is set, it is in memory, and is deleted when this process ends.

    Args:
        settings: settings of the deployment.
        copied: whether files that are plain text already are copied too.

    Raises:
        ReleaseError: a secret cannot be decrypted, for example because another machine encrypted it.
    """
    folder = Path(settings.paths.credentials)
    if not (settings.host.encrypt_secrets or copied) or not os.access(folder, os.R_OK):
        return folder
    plain = Path(tempfile.mkdtemp(prefix=f"{settings.name}-secrets-", dir=_MEMORY))
    atexit.register(shutil.rmtree, plain, ignore_errors=True)
    known = {credential.file for credential in credentials_of(settings)}
    unreadable = list[str]()
    for file in sorted(folder.iterdir()):
        if (content := read_credential(settings, file.name)) is not None:
            replace_file(plain / file.name, content, mode=0o600)
        elif file.name in known and _wanted_kind(settings) in {_kind(_content(file)), b""}:
            unreadable.append(file.name)  # not a former file of plain text, which no unit loads
    if unreadable:
        raise ReleaseError(
            f"this host cannot decrypt {', '.join(unreadable)} in {folder}, which another machine or key may have "
            "encrypted: write them again (mks-deploy up, or apply with --secrets)"
        )
    return plain


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _wanted_kind(settings: Settings) -> bytes:
    return _kind(_systemd_creds(_encrypt(settings, "test"), b"test"))


def _kind(encrypted: bytes | None) -> bytes:
    try:
        return base64.b64decode((encrypted or b"")[:24], validate=True)[:_KIND]
    except binascii.Error:
        return b""  # plain text, which is not as wanted for another reason


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
