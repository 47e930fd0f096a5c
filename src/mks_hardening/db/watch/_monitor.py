"""What the monitors of one engine share: they are installed, uninstalled, and log."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from mks_hardening._core.checks import offers

__all__ = ["Monitor", "monitor_logger"]


class Monitor:
    """Context manager that installs a monitor for its block; both methods are idempotent."""

    def install(self) -> Self:
        """Start monitoring; idempotent."""
        raise NotImplementedError

    def uninstall(self) -> None:
        """Stop monitoring and restore the engine; idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()


def monitor_logger(logger: logging.Logger | None) -> logging.Logger:
    """Return the logger of a monitor: the given one, or ``mks_hardening.db``.

    Raises:
        ConfigurationError: it is not a logger.
    """
    if logger is None:
        return logging.getLogger("mks_hardening.db")
    return offers(logger, "log", "isEnabledFor", parameter="logger", kind="a logger")
