"""The call by which a process announces itself to the others that use the same Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_operations import RunScript
from mks_hardening._core.resilience.membership import Announcement

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.operations import Op

__all__ = ["announcement_call"]


def announcement_call(client: RedisClient, prefix: str) -> Callable[..., Op[Announcement]]:
    """Return the call that ``Membership`` needs; its keys begin with ``prefix``."""
    script = client.script(
        lua_source("mks_hardening.security.rate_limits", "lua/generation.lua", "lua/presence.lua")
    )
    keys = [f"{prefix}{{presence}}:{name}" for name in ("workers", "generation")]

    def announce(*arguments: object) -> Op[Announcement]:
        return Announcement(*(yield RunScript(script, keys, arguments, idempotent=True)))

    return announce
