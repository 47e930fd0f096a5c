"""Circuit breakers per primary of a Redis Cluster: one unavailable primary must not block calls to the others.

Each primary has its own breaker in addition to that of the cluster as a whole. The primary of a call follows from
the hash slots of its keys and the slot map that redis-py maintains.
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

__all__ = ["ClusterShards", "SlotNotCoveredError", "unwrap_cluster_error"]

_WITHOUT_KEY: Final = frozenset(
    {"PING", "SCAN", "SCRIPT", "INFO", "TIME", "CONFIG", "PUBLISH", "CLUSTER", "FLUSHDB"}
)
_MOST_SHARDS: Final = 1000
_REFRESH_EVERY: Final = 1.0


class SlotNotCoveredError(MksHardeningError):
    """The slot map does not cover the slot of a key; named like the exception of redis-py."""


def unwrap_cluster_error(error: Exception) -> Exception:
    """Return the actual error behind an exception that redis-py's cluster clients raise by mistake."""
    if isinstance(error, KeyError):  # asynchronous client: a slot missing from the map
        return SlotNotCoveredError()
    # redis-py 7.3 reads ``.host`` of a connection that was never made (``None``) before it looks for a new primary.
    if isinstance(error, AttributeError) and isinstance(error.__context__, Exception):
        return error.__context__
    return error


class ClusterShards:
    """The breakers of the primaries of one cluster.

    Args:
        client: returns the synchronous client, for probing.
        budget: returns the seconds that a probe may take.
        make: creates the breaker of a primary from its address and a probe.
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
        """Return a callable for ``breaker_for``, to be called after the cluster's own breaker has passed."""
        return lambda: self.breaker_for(client(), commands, operation)

    def breaker_for(
        self, client: Client, commands: Sequence[Command], operation: str
    ) -> CircuitBreaker | None:
        """Return the breaker of the one primary that serves all commands; ``None`` for several or none.

        Raises:
            BackendUnavailableError: the breaker of one of the primaries is open; nothing was sent.
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
        """Whether to reload the slot map, which redis-py omits for uncovered slots and after its own mistakes."""
        now = SYSTEM_CLOCK.monotonic()
        due = (stumbled or reason == "uncovered") and now >= self._next_refresh
        if due:
            self._next_refresh = now + _REFRESH_EVERY
        return due

    def probe_all(self, client: Client) -> None:
        """Raise unless the cluster state is ``ok``; nodes of a failed cluster still respond to ``PING``."""
        state: dict[str, str] = client.execute_command("CLUSTER INFO")
        if state.get("cluster_state") != "ok":
            raise BackendUnavailableError("redis", "refused", operation="CLUSTER INFO")

    def retire(self) -> None:
        """Stop probing."""
        for breaker in tuple(self._breakers.values()):
            breaker.retire()

    def _remember(self, address: str, slot: int) -> CircuitBreaker:
        if len(self._breakers) >= _MOST_SHARDS:  # addresses change when nodes are replaced
            self.retire()
            self._breakers.clear()
        return self._breakers.setdefault(address, self._make(address, lambda: self._probe(slot)))

    def _probe(self, slot: int) -> None:
        """Probe the node that currently serves the slot."""
        call_deadline.enter(self._budget())
        try:
            client = self._client()
            client.nodes_manager.initialize()
            client.execute_command("PING", target_nodes=client.nodes_manager.slots_cache[slot][0])
        except Exception as error:
            raise BackendUnavailableError("redis", "timeout", operation="PING") from error
        finally:
            call_deadline.leave()


def _slot(command: Command) -> int | None:
    """Return the hash slot of the first key, according to the Redis Cluster specification."""
    name = str(command[0]).upper()
    position = 3 if name in ("EVAL", "EVALSHA") else 1
    if name in _WITHOUT_KEY or len(command) <= position or (position == 3 and not int(str(command[2]))):
        return None
    key = command[position]
    return hash_slot(key if isinstance(key, bytes) else str(key))
