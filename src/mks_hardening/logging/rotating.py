"""The handler that rotates its own file, safely over processes; how it does that stands in ``rotated_log``."""

from __future__ import annotations

import os
from typing import NamedTuple
from weakref import WeakSet

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.worker import BackgroundWorker
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.handlers import FileHandler
from mks_hardening.logging.rotated_log import RotatedLog
from mks_hardening.protocols import Clock

__all__ = ["ProcessSafeRotatingFileHandler", "Rotation", "check_rotation"]

_handlers: WeakSet[ProcessSafeRotatingFileHandler] = WeakSet()
_fork_armed = False


class Rotation(NamedTuple):
    """When to rotate and what to keep.

    Attributes:
        max_bytes: size of a file beyond which the next line goes into a new one.
        backups: old files kept, named ``.1`` (newest) upwards.
        compress: whether old files are compressed with gzip.
    """

    max_bytes: int = 10_485_760
    backups: int = 10
    compress: bool = True


class ProcessSafeRotatingFileHandler(FileHandler):
    """Appends to a file and rotates it by size, safely over processes.

    Args:
        filename: the file; the lock lies beside it as ``.NAME.lock``.
        max_bytes: see ``Rotation``.
        backups: see ``Rotation``.
        compress: see ``Rotation``.
        level: lowest level written.
        min_free_bytes: see ``FileHandler``.
        clock: see ``FileHandler``.

    Raises:
        ConfigurationError: ``max_bytes`` below 1024 or ``backups`` below 1.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        *,
        max_bytes: int = Rotation().max_bytes,
        backups: int = Rotation().backups,
        compress: bool = True,
        level: int | str = 0,
        min_free_bytes: int = 104_857_600,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_rotation(Rotation(max_bytes, backups, compress))
        self._log = RotatedLog(filename, max_bytes=max_bytes, backups=backups, compress=compress)
        self._compressor = (
            BackgroundWorker(self._log.compress, name="mks-log-gzip", max_queue=1, clock=clock)
            if compress
            else None
        )
        super().__init__(filename, level=level, min_free_bytes=min_free_bytes, clock=clock)
        _remember(self)

    def close(self) -> None:
        """Close the file and wait up to five seconds for compression in progress."""
        super().close()
        if self._compressor is not None:
            self._compressor.close()

    def _append(self, line: bytes, now: float) -> None:
        if self._log.append(line, now) and self._compressor is not None:
            self._compressor.put(None)

    def _close_file(self) -> None:
        self._log.close()

    def _after_fork(self) -> None:
        # A lock belongs to the open file, which parent and child would share.
        self._log.close()


def check_rotation(rotation: Rotation) -> None:
    """Refuse an impossible rotation.

    Raises:
        ConfigurationError: see ``ProcessSafeRotatingFileHandler``.
    """
    for name, value, least in (("max_bytes", rotation.max_bytes, 1024), ("backups", rotation.backups, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(
                f"{name} must be a whole number of at least {least}, not {type(value).__name__}",
                parameter=name,
            )


def _remember(handler: ProcessSafeRotatingFileHandler) -> None:
    global _fork_armed  # noqa: PLW0603 - armed once a process
    _handlers.add(handler)
    if not _fork_armed:
        _fork_armed = True
        os.register_at_fork(after_in_child=_reopen_in_child)


def _reopen_in_child() -> None:
    for handler in list(_handlers):
        handler._after_fork()  # noqa: SLF001 - same module
