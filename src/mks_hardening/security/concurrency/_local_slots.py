"""The slots that this process holds: all slots without Redis, the ones to renew with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from mks_hardening._core.process.after_fork import register_after_fork

if TYPE_CHECKING:
    from mks_hardening.security.concurrency.slot import Slot

__all__ = ["LocalSlots"]

_SWEPT_ABOVE: Final = 1_000


class LocalSlots:
    """Slots by place. A slot that its holder has dropped, for example by a thread that died, counts as released."""

    __slots__ = ("__weakref__", "_lock", "_slots")

    def __init__(self) -> None:
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start empty in a forked child: the slots belong to the parent."""
        self._lock = threading.RLock()  # reentrant: a signal handler may release a slot
        self._slots: dict[str, WeakSet[Slot]] = {}

    def number(self, place: str) -> int:
        """Return how many slots of a place are held."""
        return len(self._slots.get(place, ()))

    def add(self, slot: Slot, *, most: int | None = None) -> bool:
        """Add a slot unless ``most`` are held; return whether it was added."""
        with self._lock:
            held = self._slots.get(slot.place)
            if held is None:
                if len(self._slots) > _SWEPT_ABOVE:
                    self._slots = {place: some for place, some in self._slots.items() if len(some)}
                held = self._slots[slot.place] = WeakSet()
            if most is not None and len(held) >= most:
                return False
            held.add(slot)
            slot.held = max(slot.held, len(held))
            return True

    def drop(self, slot: Slot) -> bool:
        """Remove a slot; return whether it was held here."""
        with self._lock:
            held = self._slots.get(slot.place)
            if held is None or slot not in held:
                return False
            held.discard(slot)
            if not held:
                del self._slots[slot.place]
            return True

    def by_place(self) -> dict[str, list[Slot]]:
        """Return all held slots by place."""
        with self._lock:
            return {place: list(held) for place, held in self._slots.items() if held}
