"""Structured logs that never leak or break: formatter, set-up, context, handlers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening._core.context import bind, bound, clear, current

__all__ = ["bind", "bound", "clear", "current"]

_HOME = {
    "bind": "mks_hardening._core.context",
    "bound": "mks_hardening._core.context",
    "clear": "mks_hardening._core.context",
    "current": "mks_hardening._core.context",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
