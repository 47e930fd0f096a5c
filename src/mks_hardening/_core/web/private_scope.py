"""Scopes that belong to our middleware: a server's scope is never modified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from mks_hardening._core.web.asgi_types import Scope

__all__ = ["private_scope"]

_OWNED: Final = "mks_hardening.scope"
_NONE: Final[Mapping[str, Any]] = {}


def private_scope(scope: Scope, changes: Mapping[str, Any] = _NONE) -> dict[str, Any]:
    """Return a scope that may be modified: a copy, or the same object if outer middleware of ours has copied it.

    Args:
        scope: the scope.
        changes: values to set in it.
    """
    # The id instead of a reference to itself, which would leave a cycle for the garbage collector. A copy that
    # a framework makes carries the id of another object, so it is copied again.
    if scope.get(_OWNED) == id(scope):
        scope.update(changes)
        return cast("dict[str, Any]", scope)
    copy = {**scope, **changes}
    copy[_OWNED] = id(copy)
    return copy
