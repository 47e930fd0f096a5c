"""Counters in Redis: one script, one round trip, the server's clock, the algorithms of ``_windows``.

Each group has its own scripts, which begin with its limits: the server compiles them once, and a hit sends three
keys and three numbers.

Each pair of group and key has two Redis keys in one cluster slot: a list with the times of the last hits, shared by
all exact limits (``mks:limit:{group:key}:hits``), and a hash with one field for each other limit (``...:counts``).
Both expire when they no longer matter. A hit names the newest hits that its process has seen in the data: a script
that does not find them counts nothing, and the process first restores what the server has lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_operations import RunScript, Script
from mks_hardening._core.checks import namespace_of
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.security._membership import announcement_call
from mks_hardening.security.rate_limits._keys import encode_group, encode_key, needs_encoding
from mks_hardening.security.rate_limits._schedule import TurnPlace, WantedTurn
from mks_hardening.security.rate_limits._windows import NO_HITS, KnownHits, WindowCount, strategy_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening._core.operations import Op
    from mks_hardening.protocols import Clock, RedisLike
    from mks_hardening.security.rate_limits._groups import LimitGroup
    from mks_hardening.security.rate_limits.limit import Limit, Strategy

__all__ = ["RedisCounters"]

_PACKAGE: Final = "mks_hardening.security.rate_limits"
_EXACT: Final = "exact"
_KINDS: Final = {"exact-window": _EXACT, "sliding-window": "sliding", "fixed-window": "fixed", "gcra": "gcra"}
"""Lua file of each strategy; its first letter identifies the strategy in scripts and hash fields."""


class RedisCounters:
    """Counters shared by all processes that use one Redis."""

    def __init__(
        self,
        storage: str | RedisLike | RedisClient,
        *,
        strategy: Strategy,
        namespace: str = "mks",
        store_budget: float,
        allow_plaintext: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._client = RedisClient(
            storage, name="limits", store_budget=store_budget, allow_plaintext=allow_plaintext, clock=clock
        )
        self._pace = self._client.script(lua_source(_PACKAGE, "lua/pace.lua"))
        self._give_up = self._client.script(lua_source(_PACKAGE, "lua/give_up.lua"))
        self._strategy: Strategy = strategy
        self._prefix = f"{namespace_of(namespace)}:limit:"
        self.announce = announcement_call(self._client, self._prefix)
        self._groups: dict[str, _GroupScripts] = {}

    def hit(
        self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int, known: KnownHits = NO_HITS
    ) -> GroupCounting:
        """Count hits against all limits or none; the effect returns a ``WindowCount``.

        If the data does not have the known hits, nothing is counted and the ``WindowCount`` has no limits.
        """
        scripts = self._groups.get(group) or self._of(group, limits)
        # Not idempotent: a hit whose reply was lost may have been counted, and a retry would count it twice.
        return GroupCounting(scripts.counting, self._keys(scripts, key), (1, cost, *known))

    def test(
        self, group: str, key: str, limits: tuple[Limit, ...], *, cost: int, known: KnownHits = NO_HITS
    ) -> GroupCounting:
        """Return what ``hit`` would return, without counting."""
        scripts = self._of(group, limits)
        return GroupCounting(scripts.counting, self._keys(scripts, key), (0, cost, *known))

    def give_back(
        self, group: str, key: str, limits: tuple[Limit, ...], *, at: int, cost: int
    ) -> GroupCounting:
        """Subtract hits that were counted at the given time; the effect returns what is left."""
        scripts = self._of(group, limits)
        return GroupCounting(scripts.give_back, self._keys(scripts, key), (at, cost, *NO_HITS))

    def restore(
        self,
        group: str,
        key: str,
        limits: tuple[Limit, ...],
        unknown: Sequence[tuple[int, int]],
        *,
        known: KnownHits,
    ) -> GroupCounting:
        """Count hits that the server does not know: for each limit, those seen before a loss and others."""
        numbers = ",".join(f"{before} {others}" for before, others in unknown)
        scripts = self._of(group, limits)
        return GroupCounting(scripts.restore, self._keys(scripts, key), (numbers, 0, *known))

    def reserve(self, rules: LimitGroup, key: str, wanted: WantedTurn, *, known: int) -> Op[TurnPlace]:
        """Reserve the next free time of a schedule, which is occupied for at least ``known`` microseconds."""
        reserved, start, now, till = yield RunScript(self._pace, [self._paced(rules, key)], (*wanted, known))
        return TurnPlace(bool(reserved), start, now, till, wanted.cost * wanted.spacing)

    def give_up(self, rules: LimitGroup, key: str, place: TurnPlace) -> Op[None]:
        """Release a reserved time."""
        yield RunScript(self._give_up, [self._paced(rules, key)], (place.till, place.occupied))

    def reset(self, group: str, key: str, limits: tuple[Limit, ...]) -> Op[None]:
        """Drop all hits of a key."""
        scripts = self._of(group, limits)
        yield RunScript(scripts.reset, self._keys(scripts, key), (), idempotent=True)

    def in_doubt(self) -> bool:
        """Return whether the server is known to be unavailable, so that a call would fail."""
        return self._client.in_doubt()

    @property
    def is_probed(self) -> bool:
        """Whether a probe tests an unavailable server; see ``RedisClient``."""
        return self._client.is_probed

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    async def aclose(self) -> None:
        """Release connections, including those of the running event loop."""
        await self._client.aclose()

    def _paced(self, rules: LimitGroup, key: str) -> str:
        return f"{self._of(rules.name, rules.limits).tag}{encode_key(key)}}}:pace"

    def _keys(self, scripts: _GroupScripts, key: str) -> tuple[str, ...]:
        base = f"{scripts.tag}{encode_key(key) if needs_encoding(key) else key}}}"
        return (f"{base}:hits", f"{base}:counts")

    def _of(self, group: str, limits: tuple[Limit, ...]) -> _GroupScripts:
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = self._build_scripts(group, limits)
        return found

    def _build_scripts(self, group: str, limits: tuple[Limit, ...]) -> _GroupScripts:
        kinds = [_KINDS[strategy_for(limit, self._strategy)] for limit in limits]
        rows: list[str] = []
        fields = ['"now"', '"since"']
        sliding_fields: list[str] = []
        # How long each kind of key exists at least after a hit.
        list_lasts = hash_lasts = 0
        for kind, limit in zip(kinds, limits, strict=True):
            window = round(limit.window * 1e6)
            # Inserted into Lua source: ``checked_limit`` guarantees a name without quotes and backslashes.
            field = f'"{kind[0]}:{window}:{limit.name}"'
            place = ""
            if kind == _EXACT:
                list_lasts = max(list_lasts, window)
                sliding_fields.append(f'"s:{window}:{limit.name}"')
            else:
                hash_lasts = max(hash_lasts, 2 * window if kind == "sliding" else window)
                fields.append(field)
                place = f"place = {len(fields)}, "
            rows.append(
                f'{{kind = "{kind[0]}", {place}field = {field}, quota = {limit.quota}, window = {window}}}'
            )
        heading = f"local limits = {{{', '.join(rows)}}}\nlocal fields = {{{', '.join(fields)}}}\n"
        heading += f"local sliding_fields = {{{', '.join(sliding_fields)}}}\n"
        heading += f"local list_lasts, hash_lasts = {list_lasts}, {hash_lasts}\n"
        # Only the parts that the group needs: the length of a script costs time at every load, its branches at
        # every hit.
        parts = ["windows", *(["exact"] if _EXACT in kinds else [])]
        parts += ["counts"] if hash_lasts else []
        parts += dict.fromkeys(kind for kind in kinds if kind != _EXACT)
        # Hits counted with another strategy, before a change of the configuration, still count.
        parts += ["from_exact"] if "sliding" in kinds else []
        if sliding_fields:
            parts += ["from_sliding"] if "sliding" in kinds else ["sliding", "from_sliding"]

        def script(*names: str) -> Script:
            return self._client.script(heading + lua_source(_PACKAGE, *(f"lua/{name}.lua" for name in names)))

        return _GroupScripts(
            tag=f"{self._prefix}{{{encode_group(group)}:",
            counting=script(*parts, "count"),
            restore=script(*parts, "restore"),
            give_back=script("give_back", "removed", *parts, "answer"),
            reset=script("reset", "removed"),
        )


class GroupCounting(RunScript):
    """A call of a script that returns a ``WindowCount``."""

    __slots__ = ()

    def run(self) -> WindowCount:
        """Run it in this thread."""
        return _count_of(super().run())

    async def arun(self) -> WindowCount:
        """Run it on the running event loop."""
        return _count_of(await super().arun())


def _count_of(answer: list[int]) -> WindowCount:
    # One flat list: parsing nested replies takes longer than the counting.
    at, moment = answer[0], answer[1]
    taken_at, newest = (moment, moment) if moment > 0 else (None, -moment)
    return WindowCount(answer[2::3], answer[3::3], answer[4::3], taken_at, newest, at)


class _GroupScripts(NamedTuple):
    """The scripts of one group, and the beginning of its hash tags."""

    tag: str
    counting: Script
    restore: Script
    give_back: Script
    reset: Script
