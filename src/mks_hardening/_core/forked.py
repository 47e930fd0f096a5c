"""Locks of a parent's threads must not bind a forked child: objects that hold one are renewed there."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renew_in_child"]


class Renewable(Protocol):
    """Has locks or state of running threads."""

    def renew(self) -> None:
        """Replace them by fresh ones."""
        ...


_renewables: WeakSet[Renewable] = WeakSet()
_registered = False


def renew_in_child(renewable: Renewable) -> None:
    """Call ``renewable.renew()`` in every child forked from now on, as long as the object lives."""
    global _registered  # noqa: PLW0603 - os.register_at_fork cannot be undone, so it is done once per process
    _renewables.add(renewable)
    if not _registered:
        os.register_at_fork(after_in_child=_renew_all)
        _registered = True


def _renew_all() -> None:
    for renewable in list(_renewables):
        renewable.renew()
