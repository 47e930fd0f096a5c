"""Removing old files from a folder, whatever else happens in it meanwhile.

Names are looked up in the opened folder, never by path, so the folder cannot be exchanged on the way. A file is
moved to a name that nobody knows before it is removed: what took its name between the look and the removal (a
rotation, somebody hostile) is found there and put back.
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

from mks_hardening._core.checks import path_text, text_of, texts
from mks_hardening._core.clock import SYSTEM_CLOCK, given_clock
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["CleanedFolder", "clean_folder"]

_PRIVATE: Final = ".mks-removing-"
_NAMES_TOLD: Final = 100
_logger: Final = logging.getLogger("mks_hardening.tasks")


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedFolder:
    """What became of the old files of a folder.

    Attributes:
        removed: names, in their order.
        size: bytes of these files.
        kept: names of old files that stayed, each with the reason: ``in use``, ``changed`` or ``not allowed``.
    """

    removed: tuple[str, ...] = ()
    size: int = 0
    kept: Mapping[str, str]

    @property
    def result(self) -> dict[str, object]:
        """The same as the result of a task: numbers, and at most 100 names."""
        return {
            "removed": len(self.removed),
            "bytes": self.size,
            "names": list(self.removed[:_NAMES_TOLD]),
            "kept": dict(list(self.kept.items())[:_NAMES_TOLD]),
        }


def clean_folder(
    folder: str | os.PathLike[str],
    *,
    older_than: float | timedelta,
    pattern: str = "*",
    keep: Iterable[str] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> CleanedFolder:
    """Remove regular files directly in a folder that nobody has written to for long, and say which.

    Links, folders and everything else that is no file stay, and nothing outside of the folder is looked at. Files
    that somebody has open for writing stay as well, under whatever name (on Linux, where file systems lend leases,
    fcntl(2)); so do those named in ``keep`` and other names of the same file.

    Args:
        folder: where; a folder that is not there has no old files.
        older_than: seconds since the last change of a file.
        pattern: only names like this, for example ``app.log.*``; as a shell reads it, case counts.
        keep: names in the folder that stay: that of the live log, or of attachments that rows still refer to.
        clock: wall time.

    Raises:
        ConfigurationError: the folder is a link or no folder, or a name in ``keep`` is a path.
        OSError: the folder cannot be read.
    """
    folder = path_text(folder, parameter="folder")
    text_of(pattern, parameter="pattern", empty=False)
    kept_names = frozenset(texts(keep, parameter="keep", of="file names"))
    if any("/" in name for name in kept_names):
        raise ConfigurationError("keep must hold names, not paths", parameter="keep")
    limit = given_clock(clock).time() - seconds(older_than, parameter="older_than")
    try:
        # O_NOFOLLOW: a link that somebody puts in the place of the folder leads nowhere.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return CleanedFolder(kept={})
    except NotADirectoryError:  # a link as well
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
        # All names first: what is read of a directory that changes meanwhile is not specified (readdir(3)).
        names = sorted(entry.name for entry in entries)
    for name in names:
        # What a process left that died between the two steps of a removal is looked at again, whatever its name.
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
            "removed %d old files of %d bytes: %s", len(removed), size, ", ".join(removed[:_NAMES_TOLD])
        )
    return CleanedFolder(removed=tuple(removed), size=size, kept=kept)


class _Folder:
    """An open folder and what is old in it."""

    def __init__(self, handle: int, limit: float, keep: frozenset[str]) -> None:
        self.handle = handle
        self._limit = limit
        self._keep = keep
        # By device and inode: a hard link to a kept file under an older name is the same bytes.
        self._kept_files = {
            (found.st_dev, found.st_ino) for name in keep if (found := self._look(name)) is not None
        }

    def old(self, name: str) -> os.stat_result | None:
        """What is known of an old file that may go; ``None`` for everything else."""
        found = self._look(name)
        if found is None or not S_ISREG(found.st_mode) or found.st_mtime > self._limit:
            return None
        kept = name in self._keep or (found.st_dev, found.st_ino) in self._kept_files
        return None if kept else found

    def remove(self, name: str, old: os.stat_result) -> str | None:
        """Remove a file if it still is what was seen; the reason if it stays."""
        try:
            file = os.open(
                # O_NONBLOCK: opening a FIFO would wait for a writer for ever.
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
        except FileNotFoundError:  # somebody else removed or rotated it
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
        moved = self._look(private)
        # From here on nobody can open it by a name that is known.
        reason = (
            "changed" if moved is None or not _same(moved, old) else "in use" if _is_written(file) else None
        )
        if reason is None:
            os.unlink(private, dir_fd=self.handle)
        else:
            self._put_back(private, name)
        return reason

    def _put_back(self, private: str, name: str) -> None:
        """Give it its name again, or one beside it if that has been taken: nothing is written over."""
        try:
            # link(2) fails where the name is taken; rename(2) would write over whoever took it.
            os.link(private, name, src_dir_fd=self.handle, dst_dir_fd=self.handle, follow_symlinks=False)
        except FileExistsError:
            beside = f"{name}.{private.removeprefix(_PRIVATE)}"
            os.rename(private, beside, src_dir_fd=self.handle, dst_dir_fd=self.handle)
        else:
            os.unlink(private, dir_fd=self.handle)

    def _look(self, name: str) -> os.stat_result | None:
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
    """Whether somebody has the file open for writing: a read lease is granted only when nobody has (fcntl(2)).

    Where leases are not to be had the answer is no; age and names must do.
    """
    set_lease = getattr(fcntl, "F_SETLEASE", None)
    if set_lease is None:  # not Linux
        return False
    try:
        # Who opens it for writing this moment makes the kernel send a signal; the usual one would end the process.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, set_lease, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == EAGAIN
    fcntl.fcntl(file, set_lease, fcntl.F_UNLCK)
    return False
