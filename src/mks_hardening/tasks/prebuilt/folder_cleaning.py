"""Removal of old files from a folder that other processes may be changing.

Names are resolved relative to the open folder, never by path, so the folder cannot be replaced on the way. A file
is renamed to an unpredictable name before it is removed: if another file has taken its name between the check and
the removal (a rotation, an attacker), this is detected and the file is put back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from errno import EACCES, EAGAIN
from fnmatch import fnmatchcase
from stat import S_ISREG
from typing import Final

from mks_hardening._core.checks import path_text, strings, text_of
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["CleanedFolder", "clean_folder"]

_PRIVATE: Final = ".mks-removing-"
_MOST_NAMES: Final = 100
_logger: Final = logging.getLogger("mks_hardening.tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedFolder:
    """Result of cleaning a folder.

    Attributes:
        removed: names of the removed files, sorted.
        size: total size of these files in bytes.
        kept: names of old files that were kept, each with the reason: ``in use``, ``changed`` or ``not allowed``.
    """

    removed: tuple[str, ...] = ()
    size: int = 0
    kept: Mapping[str, str]

    @property
    def result(self) -> dict[str, object]:
        """The result in the form of a task result: numbers, and at most 100 names."""
        return {
            "removed": len(self.removed),
            "bytes": self.size,
            "names": list(self.removed[:_MOST_NAMES]),
            "kept": dict(list(self.kept.items())[:_MOST_NAMES]),
        }


def clean_folder(
    folder: str | os.PathLike[str],
    *,
    older_than: float | timedelta,
    pattern: str = "*",
    keep: Iterable[str] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> CleanedFolder:
    """Remove old regular files directly in a folder, and return which.

    Links, subfolders and other special files are kept, and nothing outside of the folder is touched. Files that are
    open for writing are kept as well, under any name (on Linux, with file systems that support leases, fcntl(2));
    so are the files named in ``keep`` and other hard links to them.

    Args:
        folder: folder to clean; a missing folder has no old files.
        older_than: seconds since the last modification of a file.
        pattern: shell pattern of names, for example ``app.log.*``; case-sensitive.
        keep: names in the folder to keep: of the active log, or of attachments that rows still reference.
        clock: wall clock.

    Raises:
        ConfigurationError: the folder is a link or not a folder, or a name in ``keep`` is a path.
        OSError: the folder cannot be read.
    """
    folder = path_text(folder, parameter="folder")
    text_of(pattern, parameter="pattern", empty=False)
    kept_names = frozenset(strings(keep, parameter="keep", of="file names"))
    if any("/" in name for name in kept_names):
        raise ConfigurationError("keep must hold names, not paths", parameter="keep")
    limit = given_clock(clock).time() - seconds(older_than, parameter="older_than")
    try:
        # O_NOFOLLOW: do not follow a link that has replaced the folder.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return CleanedFolder(kept={})
    except NotADirectoryError:  # also raised for a link
        raise ConfigurationError(
            "folder must be a folder, not a link or a file", parameter="folder"
        ) from None
    try:
        return _cleaned(_Folder(handle, limit, kept_names), pattern)
    finally:
        os.close(handle)


def _cleaned(folder: _Folder, pattern: str) -> CleanedFolder:
    removed, kept, size = list[str](), dict[str, str](), 0
    with os.scandir(folder.handle) as entries:
        # Read all names first: reading a directory while it changes is unspecified (readdir(3)).
        names = sorted(entry.name for entry in entries)
    for name in names:
        # Includes files left by a process that died between the two steps of a removal, whatever the pattern.
        if not (fnmatchcase(name, pattern) or name.startswith(_PRIVATE)):
            continue
        old = folder.old(name)
        if old is None:
            continue
        reason = folder.remove(name, old)
        if reason is None:
            removed.append(name)
            size += old.st_size
        else:
            kept[name] = reason
    if removed:
        _logger.info(
            "removed %d old files of %d bytes: %s", len(removed), size, ", ".join(removed[:_MOST_NAMES])
        )
    return CleanedFolder(removed=tuple(removed), size=size, kept=kept)


class _Folder:
    """An open folder and the checks for its old files."""

    def __init__(self, handle: int, limit: float, keep: frozenset[str]) -> None:
        self.handle = handle
        self._limit = limit
        self._keep = keep
        # By device and inode: a hard link to a kept file under another name is the same file.
        self._kept_files = {
            (found.st_dev, found.st_ino) for name in keep if (found := self._stat(name)) is not None
        }

    def old(self, name: str) -> os.stat_result | None:
        """Return the status of an old file that may be removed; ``None`` for everything else."""
        found = self._stat(name)
        if found is None or not S_ISREG(found.st_mode) or found.st_mtime > self._limit:
            return None
        kept = name in self._keep or (found.st_dev, found.st_ino) in self._kept_files
        return None if kept else found

    def remove(self, name: str, old: os.stat_result) -> str | None:
        """Remove a file if it is unchanged; return the reason if it is kept."""
        try:
            file = os.open(
                # O_NONBLOCK: opening a FIFO would block until there is a writer.
                name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                dir_fd=self.handle,
            )
        except FileNotFoundError:
            return "changed"
        except OSError as error:
            return "not allowed" if error.errno == EACCES else "changed"
        try:
            return self._removed(name, old, file)
        except PermissionError:
            return "not allowed"
        except FileNotFoundError:  # another process has removed or rotated it
            return "changed"
        finally:
            os.close(file)

    def _removed(self, name: str, old: os.stat_result, file: int) -> str | None:
        if not _same(os.fstat(file), old):
            return "changed"
        if _is_written(file):
            return "in use"
        private = f"{_PRIVATE}{secrets.token_hex(8)}"
        os.rename(name, private, src_dir_fd=self.handle, dst_dir_fd=self.handle)
        moved = self._stat(private)
        # From here on no other process can open it by a known name.
        reason = (
            "changed" if moved is None or not _same(moved, old) else "in use" if _is_written(file) else None
        )
        if reason is None:
            os.unlink(private, dir_fd=self.handle)
        else:
            self._put_back(private, name)
        return reason

    def _put_back(self, private: str, name: str) -> None:
        """Restore the file's name, or a name derived from it if it is taken: no file is overwritten."""
        try:
            # link(2) fails if the name is taken; rename(2) would overwrite the file that has taken it.
            os.link(private, name, src_dir_fd=self.handle, dst_dir_fd=self.handle, follow_symlinks=False)
        except FileExistsError:
            beside = f"{name}.{private.removeprefix(_PRIVATE)}"
            os.rename(private, beside, src_dir_fd=self.handle, dst_dir_fd=self.handle)
        else:
            os.unlink(private, dir_fd=self.handle)

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None


def _same(now: os.stat_result, then: os.stat_result) -> bool:
    return (now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size) == (
        then.st_dev,
        then.st_ino,
        then.st_mtime_ns,
        then.st_size,
    )


def _is_written(file: int) -> bool:
    """Whether the file is open for writing: a read lease is granted only if it is not (fcntl(2)).

    Returns false where leases are not supported; then only age and names decide.
    """
    set_lease = getattr(fcntl, "F_SETLEASE", None)
    if set_lease is None:  # not Linux
        return False
    try:
        # Opening the file for writing while the lease is held sends a signal; the default, SIGIO, would end the
        # process.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, set_lease, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == EAGAIN
    fcntl.fcntl(file, set_lease, fcntl.F_UNLCK)
    return False
