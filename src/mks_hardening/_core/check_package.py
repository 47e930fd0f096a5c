"""What the package ``mks-check`` adds to commands, fixtures and adapters of this one, which does not import it."""

from __future__ import annotations

from typing import Any

from mks_hardening.exceptions import MissingDependencyError

__all__ = ["check_tool"]


def check_tool(name: str) -> Any:
    """Return what ``mks-check`` registers under a name of the entry point group ``mks_hardening.check``.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    from importlib.metadata import entry_points  # it takes longer to load than most of this package

    for entry in entry_points(group="mks_hardening.check", name=name):
        return entry.load()
    raise MissingDependencyError("mks-check", "check")
