"""Offences and earlier bans of clients in the memory of one process; the same rules as in ``lua/strike.lua``."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mks_hardening._edge.client_rules.ban_rule import BanRule

__all__ = ["StrikeCounter"]


class _Record:
    __slots__ = ("bans", "ended_at", "times")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.bans = 0
        self.ended_at = 0.0


class StrikeCounter:
    """Counts offences by client and rule; beyond ``max_clients``, the least recent offenders are forgotten.

    Not thread-safe: the owner has a lock.
    """

    __slots__ = ("_max_clients", "_records")

    def __init__(self, *, max_clients: int) -> None:
        self._max_clients = max_clients
        self._records: OrderedDict[str, dict[str, _Record]] = OrderedDict()

    def strike(self, client: str, rule: BanRule, count: int, *, now: float) -> float:
        """Count offences; return the seconds of the ban that they lead to, or 0."""
        records = self._records.setdefault(client, {})
        self._records.move_to_end(client)
        if len(self._records) > self._max_clients:
            self._records.popitem(last=False)
        record = records.setdefault(rule.name, _Record())
        record.times = [time for time in record.times if time > now - rule.within]
        record.times += [now] * min(count, rule.strikes)
        if len(record.times) < rule.strikes:
            return 0.0
        record.times.clear()
        if record.ended_at + rule.forget <= now:
            record.bans = 0
        length = rule.ban_length(record.bans)
        record.bans += 1
        record.ended_at = now + length
        return length

    def forget(self, client: str) -> None:
        """Drop the offences and the earlier bans of a client."""
        self._records.pop(client, None)
