"""Bans in Redis, shared by all processes: each method is one operation, for ``run`` and ``arun``."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_operations import RunScript

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._core.operations import Op
    from mks_hardening._edge.client_rules.ban_rule import BanRule

__all__ = ["BanState", "RedisBans"]

_PACKAGE: Final = "mks_hardening._edge.client_rules"


class BanState(NamedTuple):
    """What the server knows.

    Attributes:
        id: identifies the data; another one if the server has lost it.
        number: grows with each change.
        bans: client, seconds left and reason of each; ``None`` if nothing has changed.
    """

    id: str
    number: str
    bans: list[tuple[str, float, str]] | None


class RedisBans:
    """The bans of one namespace.

    Args:
        client: Redis client.
        namespace: prefix of all keys, and part of their hash tag.
        max_bans: beyond this number, those that end soonest are dropped.
    """

    __slots__ = ("_change", "_keys", "_max_bans", "_read", "_record", "_strike")

    def __init__(self, client: RedisClient, *, namespace: str, max_bans: int) -> None:
        prefix = f"{{{namespace}:bans}}"
        self._keys = [f"{prefix}:active", f"{prefix}:reasons", f"{prefix}:state"]
        self._record = f"{prefix}:client:"
        self._max_bans = max_bans
        self._strike, self._change, self._read = (
            client.script(lua_source(_PACKAGE, "lua/common.lua", f"lua/{name}.lua"))
            for name in ("strike", "change", "read")
        )

    def strike(self, offences: Sequence[tuple[str, BanRule, int]]) -> Op[list[float]]:
        """Count offences; returns for each the seconds of the ban, negative if it was in force, or 0."""
        arguments: list[object] = [self._max_bans, token_hex(8)]
        for client, rule, count in offences:
            arguments += [client, rule.name, count, rule.strikes, _milliseconds(rule.within)]
            arguments += [_milliseconds(rule.ban), rule.growth, _milliseconds(rule.longest)]
            arguments.append(_milliseconds(rule.forget))
        keys = [*self._keys, *(self._record + client for client, _, _ in offences)]
        # Not idempotent: offences whose response was lost may have been counted.
        found: list[int] = yield RunScript(self._strike, keys, arguments)
        return [length / 1000 for length in found]

    def change(self, changes: Sequence[tuple[str, float, str]]) -> Op[list[bool]]:
        """Ban clients for a number of seconds, or with 0 lift their bans; returns whether they were banned."""
        arguments: list[object] = [self._max_bans, token_hex(8)]
        for client, length, reason in changes:
            arguments += [client, _milliseconds(length), reason]
        keys = [*self._keys, *(self._record + client for client, _, _ in changes)]
        found: list[int] = yield RunScript(self._change, keys, arguments, idempotent=True)
        return [bool(banned) for banned in found]

    def read(self, known_id: str = "", known_number: str = "") -> Op[BanState]:
        """Read all bans, unless the known state is the current one."""
        arguments = (token_hex(8), known_id, known_number)
        answer = yield RunScript(self._read, self._keys, arguments, idempotent=True)
        name, number, *rest = answer
        found = BanState(name.decode(), number.decode(), None)
        if (found.id, found.number) == (known_id, known_number):
            return found
        bans = [
            (client.decode(), left / 1000, reason.decode("utf-8", "replace"))
            for client, left, reason in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
        ]
        return found._replace(bans=bans)


def _milliseconds(length: float) -> int:
    return max(1, round(length * 1000)) if length else 0
