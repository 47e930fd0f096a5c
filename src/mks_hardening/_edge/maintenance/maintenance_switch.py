"""Switch of the maintenance mode: a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mks_hardening._core.checks import path_text
from mks_hardening._core.clock import given_clock
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.protocols import Clock

__all__ = ["MaintenanceSwitch"]


class MaintenanceSwitch:
    """Maintenance mode that is on while a file exists.

    All processes of a machine see the same file, and it survives a restart. Neither a database nor Redis is needed:
    those are what is often under maintenance.

    Args:
        path: the file, for example ``/run/app/maintenance``; its folder must exist.
        check_interval: seconds for which a process relies on what it has seen.
        clock: source of time.

    Raises:
        ConfigurationError: ``path`` is empty, or its folder does not exist.
    """

    __slots__ = ("_check_interval", "_checked_at", "_is_on", "_monotonic", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        check_interval: float | timedelta = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.path: Path = Path(path_text(path, parameter="path"))
        if not self.path.parent.is_dir():
            raise ConfigurationError(
                f"path: the folder {str(self.path.parent)!r} does not exist", parameter="path"
            )
        self._check_interval = seconds(check_interval, parameter="check_interval")
        self._monotonic: Callable[[], float] = given_clock(clock).monotonic
        self._checked_at = float("-inf")
        self._is_on = False

    def is_on(self) -> bool:
        """Return whether the maintenance mode is on; looks at the file once per ``check_interval``.

        If the file system does not respond with yes or no, the last known state stays.
        """
        now = self._monotonic()
        if now - self._checked_at >= self._check_interval:
            self._checked_at = now
            try:
                self.path.stat()
            except (FileNotFoundError, NotADirectoryError):
                self._is_on = False
            except OSError:
                pass  # for example no permission: unknown
            else:
                self._is_on = True
        return self._is_on

    def turn_on(self) -> None:
        """Create the file.

        Raises:
            OSError: the file cannot be created.
        """
        self.path.touch()
        self._checked_at = float("-inf")

    def turn_off(self) -> None:
        """Remove the file.

        Raises:
            OSError: the file cannot be removed.
        """
        self.path.unlink(missing_ok=True)
        self._checked_at = float("-inf")

    def __repr__(self) -> str:
        return f"MaintenanceSwitch({str(self.path)!r})"
