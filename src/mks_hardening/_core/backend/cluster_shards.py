"""A cluster is several servers: a primary that is away must not close the others to their callers.

Each primary has a breaker of its own beside that of the cluster as a whole. Which primary a call goes to is told by
the hash slots of its keys and the map of slots that redis-py keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mks_hardening._core.backend.hash_slots import hash_slot
from mks_hardening._core.backend.redis_types import Client, Command
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.resilience.breaker import CircuitBreaker
from mks_hardening._core.resilience.deadline_socket import call_deadline
from mks_hardening.exceptions import BackendUnavailableError, MksHardeningError

__all__ = ["ClusterShards", "SlotNotCoveredError", "what_is_meant"]

_WITHOUT_KEY: Final = frozenset(
    {"PING", "SCAN", "SCRIPT", "INFO", "TIME", "CONFIG", "PUBLISH", "CLUSTER", "FLUSHDB"}
)
_MOST_SHARDS: Final = 1000
_REFRESH_EVERY: Final = 1.0


class SlotNotCoveredError(MksHardeningError):
    """The map of slots has a hole; named as redis-py names it."""


def what_is_meant(error: Exception) -> Exception:
    """The fault behind an exception that redis-py's cluster clients raise by mistake."""
    if isinstance(error, KeyError):  # the asynchronous map of slots, at a hole
        return SlotNotCoveredError()
    # 7.3 measures the connection that did not come about (``None.host``), before it looks for the new primary.
    if isinstance(error, AttributeError) and isinstance(error.__context__, Exception):
        return error.__context__
    return error


class ClusterShards:
    """The breakers of the primaries of one cluster.

    Args:
        client: the synchronous client, for probing.
        budget: seconds that a probe may take.
        make: makes the breaker of a primary at an address, with a probe.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        budget: Callable[[], float],
        make: Callable[[str, Callable[[], object]], CircuitBreaker],
    ) -> None:
        self._client = client
        self._budget = budget
        self._make = make
        self._breakers: dict[str, CircuitBreaker] = {}
        self._next_refresh = 0.0

    def finder(
        self, client: Callable[[], Client], commands: Sequence[Command], operation: str
    ) -> Callable[[], CircuitBreaker | None]:
        """``breaker_for``, to be called once the cluster as a whole is known to be well."""
        return lambda: self.breaker_for(client(), commands, operation)

    def breaker_for(
        self, client: Client, commands: Sequence[Command], operation: str
    ) -> CircuitBreaker | None:
        """The breaker of the one primary that all commands go to; ``None`` where several or none are known.

        Raises:
            BackendUnavailableError: one of the primaries is known to be away; nothing was sent.
        """
        if client is None:
            return None
        slots: dict[str, int] = {}
        covered: dict[int, list[Client]] = client.nodes_manager.slots_cache
        for command in commands:
            slot = _slot(command)
            nodes = covered.get(slot) if slot is not None else None
            if nodes and slot is not None:
                slots[str(nodes[0].name)] = slot
        for address in slots:
            known = self._breakers.get(address)
            if known is not None:
                known.check(operation)
        if len(slots) != 1:
            return None
        ((address, slot),) = slots.items()
        return self._breakers.get(address) or self._remember(address, slot)

    def refresh_due(self, reason: str, *, stumbled: bool) -> bool:
        """Whether to read the map of slots again, which redis-py does not at a hole, nor where it stumbled."""
        now = SYSTEM_CLOCK.monotonic()
        due = (stumbled or reason == "uncovered") and now >= self._next_refresh
        if due:
            self._next_refresh = now + _REFRESH_EVERY
        return due

    def probe_all(self, client: Client) -> None:
        """Raise unless the cluster says that it serves; a ping is answered by one that does not."""
        state: dict[str, str] = client.execute_command("CLUSTER INFO")
        if state.get("cluster_state") != "ok":
            raise BackendUnavailableError("redis", "refused", operation="CLUSTER INFO")

    def retire(self) -> None:
        """Probe no more."""
        for breaker in tuple(self._breakers.values()):
            breaker.retire()

    def _remember(self, address: str, slot: int) -> CircuitBreaker:
        if len(self._breakers) >= _MOST_SHARDS:  # addresses come and go where nodes are replaced
            self.retire()
            self._breakers.clear()
        return self._breakers.setdefault(address, self._make(address, lambda: self._probe(slot)))

    def _probe(self, slot: int) -> None:
        """Ask whoever serves the slot by now."""
        call_deadline.at = SYSTEM_CLOCK.monotonic() + self._budget()
        try:
            client = self._client()
            client.nodes_manager.initialize()
            client.execute_command("PING", target_nodes=client.nodes_manager.slots_cache[slot][0])
        except Exception as error:
            raise BackendUnavailableError("redis", "timeout", operation="PING") from error
        finally:
            call_deadline.at = None


def _slot(command: Command) -> int | None:
    """The hash slot of the first key, as the cluster specification counts it."""
    name = str(command[0]).upper()
    position = 3 if name in ("EVAL", "EVALSHA") else 1
    if name in _WITHOUT_KEY or len(command) <= position or (position == 3 and not int(str(command[2]))):
        return None
    key = command[position]
    return hash_slot(key if isinstance(key, bytes) else str(key))
