"""The generation of the data in the shared storage, as known to this process.

A new generation means that the storage has lost data. A single server has one generation, which every reply
carries. On a cluster, shards lose their data independently and a script can only access the keys of one hash slot,
so each slot has a generation of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.operations import Op

if TYPE_CHECKING:
    from mks_hardening.security.rate_limits._presence import Presence
    from mks_hardening.security.rate_limits._redis_counters import RedisCounters

__all__ = ["Generations"]


class Generations:
    """The last known generation of each slot of a cluster, or of the single server.

    Args:
        shared: the shared storage.
        presence: this process among those that use the storage.
    """

    __slots__ = ("_losses_read", "_presence", "_shared", "_slots")

    def __init__(self, shared: RedisCounters, presence: Presence) -> None:
        self._shared = shared
        self._presence = presence
        self._slots: dict[str, int] | None = {} if shared.is_cluster else None
        self._losses_read = 0

    def of(self, group: str, key: str) -> int:
        """Return the generation of the data of a key; 0 before the first reply."""
        if self._slots is None:
            return self._presence.generation
        return self._slots.get(self._shared.generation_key(group, key), 0)

    def record_generation(self, group: str, key: str, generation: int) -> bool:
        """Record the generation of a reply; return whether data was lost since the previous one."""
        if self._slots is None:
            return self._presence.record_generation(generation)
        lost = _note(self._slots, self._shared.generation_key(group, key), generation)
        if lost:
            self._presence.record_shard_loss()
        return lost

    def read(self, group: str, key: str) -> Op[None]:
        """Read the generation of one key on a cluster, where only the replies to hits carry it.

        Raises:
            BackendUnavailableError: the storage did not respond.
        """
        if self._slots is not None:
            yield from self._read(self._slots, self._shared.generation_key(group, key))

    def read_all(self) -> Op[None]:
        """Read the generations of all slots of a cluster after a loss: a hit only detects that of its own slot.

        Raises:
            BackendUnavailableError: the storage did not respond.
        """
        losses = self._presence.losses
        if self._slots is not None and losses != self._losses_read:
            for slot in tuple(self._slots):
                yield from self._read(self._slots, slot)
            self._losses_read = losses

    def _read(self, slots: dict[str, int], slot: str) -> Op[None]:
        generation = yield from self._shared.read_generation(slot, slots.get(slot, 0))
        _note(slots, slot, generation)


def _note(slots: dict[str, int], slot: str, generation: int) -> bool:
    before = slots.get(slot, 0)
    # An older generation comes from a reply that was already in transit.
    if generation <= before:
        return False
    slots[slot] = generation
    return bool(before)
