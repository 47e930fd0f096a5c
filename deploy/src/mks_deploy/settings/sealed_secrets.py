"""The folder of secrets as one file for the repository: encrypted by age, or by SOPS and similar programs.

age hides names and values. Other programs decrypt by themselves, and hand on names and values as JSON.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from mks_deploy.atomic_files import replace_file

__all__ = ["SealError", "open_sealed", "read_decrypted", "seal"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LARGEST: Final = 1024**2


class SealError(RuntimeError):
    """Nothing was written; the message contains no secret."""


def seal(folder: Path, file: Path, *, recipients: Path) -> list[str]:
    """Encrypt a folder of secrets for all recipients; return the names of the secrets.

    Args:
        folder: one file for each secret.
        file: the encrypted file, replaced as a whole.
        recipients: public keys of age or ssh, one in each line.

    Raises:
        SealError: age is not installed, refuses, or the folder holds no secret or a file that is none.
    """
    names = sorted(each.name for each in folder.iterdir() if each.is_file())
    if not names:
        raise SealError(f"{folder} holds no secret")
    for name in names:  # open_sealed would refuse the whole file
        if not _NAME.fullmatch(name) or (folder / name).stat().st_size > _LARGEST:
            raise SealError(f"{folder}/{name} is no secret, by its name or size: move it away")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in names:
            content = (folder / name).read_bytes()
            entry = tarfile.TarInfo(name)  # no account, no time
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    sealed = _age(["--encrypt", "--armor", "--recipients-file", str(recipients)], buffer.getvalue())
    replace_file(file, sealed, mode=0o644)
    return names


def open_sealed(file: Path, folder: Path, *, identity: Path) -> list[str]:
    """Decrypt a file into a folder of secrets; return the names of those that changed.

    Args:
        file: the encrypted file.
        folder: made if it is missing; secrets that the file does not hold stay.
        identity: private key of age or ssh.

    Raises:
        SealError: age is not installed, the key does not fit, the file was changed, or a secret of the folder
            differs and was changed later than the file: it may exist nowhere else.
    """
    content = _age(["--decrypt", "--identity", str(identity)], file.read_bytes())
    found = dict[str, bytes]()
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.isreg() else None
                if stream is None or not _NAME.fullmatch(entry.name) or entry.size > _LARGEST:
                    raise SealError(f"{file.name} holds something else than secrets")
                found[entry.name] = stream.read()
    except tarfile.TarError:
        raise SealError(f"{file.name} holds something else than secrets") from None
    changed = _different(found, folder)
    sealed_at = file.stat().st_mtime_ns
    present = [name for name in changed if (folder / name).exists()]
    if newer := [name for name in present if (folder / name).stat().st_mtime_ns > sealed_at]:
        raise SealError(
            f"{', '.join(newer)}: changed in {folder} after {file.name} was written; seal the folder, or move "
            "them away; nothing was written"
        )
    return _write(found, changed, folder)


def read_decrypted(content: bytes, folder: Path, *, overwrite: bool = False) -> list[str]:
    """Write secrets that another program decrypted into a folder; return the names of those that changed.

    Args:
        content: a JSON object of names and values, such as ``sops decrypt --output-type json`` prints.
        folder: made if it is missing; secrets that the object does not hold stay.
        overwrite: whether to replace secrets of the folder that have another value.

    Raises:
        SealError: the content is no such object, or a secret of the folder differs and ``overwrite`` is not set.
    """
    try:
        given: object = json.loads(content)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not given:
        raise SealError("the input must be a JSON object of names and values, and was not")
    found = dict[str, bytes]()
    for name, value in cast("dict[str, object]", given).items():
        # A lone surrogate, which JSON can write, is no text.
        text = value.rstrip().encode(errors="replace") if isinstance(value, str) else b""
        if not _NAME.fullmatch(name) or not 0 < len(text) <= _LARGEST or text.decode() != str(value).rstrip():
            raise SealError(
                f"{name[:40]!r} is no secret: a name has small letters, digits and _, and a value is text"
            )
        # As an editor writes a file: `secrets` and people end a line.
        found[name] = text + b"\n"
    changed = _different(found, folder)
    if not overwrite and (present := [name for name in changed if (folder / name).exists()]):
        raise SealError(
            f"{', '.join(present)}: another value is in {folder}; --overwrite replaces it; nothing was written"
        )
    return _write(found, changed, folder)


def _different(found: Mapping[str, bytes], folder: Path) -> list[str]:
    return [name for name, value in found.items() if _content(folder / name) != value]


def _write(found: Mapping[str, bytes], names: list[str], folder: Path) -> list[str]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        replace_file(folder / name, found[name], mode=0o600)
    return names


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _age(arguments: list[str], given: bytes) -> bytes:
    program = shutil.which("age")
    if program is None:
        raise SealError("age is not installed: apt-get install age")
    done = subprocess.run([program, *arguments], input=given, capture_output=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise SealError(f"age refused: {said[0].removeprefix('age: ')[:200] if said else done.returncode}")
    return done.stdout
