"""All checks; the module of a group is imported when its checks are needed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Final

from mks_check.production_check.check_definition import CheckDefinition, CheckGroup

__all__ = ["checks_reading", "definitions"]

_GROUPS: Final = {
    "settings": ("setting_checks",),
    "files": ("nginx_checks", "deployment_checks"),
    "application": ("application_checks", "adapter_checks"),
    "live": ("live_checks",),
    "host": ("host_checks",),
    "": ("run_checks",),
}
"""Modules with a ``GROUP``, by the part of the facts that they read."""


def definitions() -> tuple[CheckDefinition, ...]:
    """Return every check, sorted by id."""
    found = [check for modules in _GROUPS.values() for check in _checks_of(modules)]
    return tuple(sorted(found, key=lambda check: check.id))


def checks_reading(parts: Iterable[str]) -> list[CheckDefinition]:
    """Return the checks that can be made with these parts of the facts."""
    given = {*parts, ""}
    modules = [module for part in given & _GROUPS.keys() for module in _GROUPS[part]]
    found = [check for check in _checks_of(modules) if given.issuperset(check.reads)]
    return sorted(found, key=lambda check: check.id)


def _checks_of(modules: Iterable[str]) -> list[CheckDefinition]:
    groups: list[CheckGroup] = [import_module(f"mks_check.production_check.{name}").GROUP for name in modules]
    return [check for group in groups for check in group.checks]
