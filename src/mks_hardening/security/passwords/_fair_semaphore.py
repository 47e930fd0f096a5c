"""A semaphore that is fair between networks and clients, with priority for known clients.

A client with many connections gets the same turns as every other, and may hold only a few places in the queue.
Clients that have proven something already (a remembered device, an open session, a mailed token) are served first,
but at most every other time while other clients wait.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple, TypeAlias

__all__ = ["FairSemaphore", "HashingClient", "Waiter", "hashing_client", "on_behalf_of"]

# As many as can be served within the default `max_wait`; more would only block threads of the server.
_MOST_OF_CLIENT: Final = 4
_MOST_OF_NETWORK: Final = 8


class HashingClient(NamedTuple):
    """The client on whose behalf a password is hashed.

    Attributes:
        network: network of the client; the clients of a network share one turn.
        client: the client; its requests share one turn within the network.
        known: whether it has proven something already, and is served first.
    """

    network: str
    client: str
    known: bool = False


hashing_client: Final[ContextVar[HashingClient | None]] = ContextVar(
    "mks_hardening.hashing_client", default=None
)
"""The current client; ``None`` for hashing by the application itself, whose requests count as one client."""

_NOBODY: Final = HashingClient("", "")


@contextmanager
def on_behalf_of(client: HashingClient) -> Generator[None]:
    """Hash on behalf of this client within the block."""
    token = hashing_client.set(client)
    try:
        yield
    finally:
        hashing_client.reset(token)


class Waiter:
    """A place in the queue; ``granted`` is set once it holds a slot."""

    __slots__ = ("client", "granted")

    def __init__(self, client: HashingClient) -> None:
        self.client = client
        self.granted = threading.Event()


_Clients: TypeAlias = OrderedDict[str, deque[Waiter]]


class _Queue:
    """Waiters by network and client, served round-robin."""

    def __init__(self) -> None:
        self._networks: OrderedDict[str, _Clients] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._networks)

    def is_full_for(self, client: HashingClient) -> bool:
        clients = self._networks.get(client.network)
        if clients is None or client == _NOBODY:
            return False
        return (
            len(clients.get(client.client, ())) >= _MOST_OF_CLIENT
            or sum(map(len, clients.values())) >= _MOST_OF_NETWORK
        )

    def add(self, waiter: Waiter) -> None:
        clients = self._networks.setdefault(waiter.client.network, OrderedDict())
        clients.setdefault(waiter.client.client, deque()).append(waiter)

    def pop(self) -> Waiter:
        """Remove and return the next waiter; its client and its network move to the end of the queue."""
        network, clients = next(iter(self._networks.items()))
        client, waiters = next(iter(clients.items()))
        waiter = waiters.popleft()
        self._networks.move_to_end(network)
        clients.move_to_end(client)
        self._clean(waiter.client)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        self._networks[waiter.client.network][waiter.client.client].remove(waiter)
        self._clean(waiter.client)

    def _clean(self, client: HashingClient) -> None:
        clients = self._networks[client.network]
        if not clients[client.client]:
            del clients[client.client]
        if not clients:
            del self._networks[client.network]


class FairSemaphore:
    """A semaphore with a fair queue.

    Args:
        slots: number of slots.
    """

    def __init__(self, slots: int) -> None:
        self._lock = threading.RLock()
        self._free = slots
        self._known, self._others = _Queue(), _Queue()
        self._known_was_last = False

    def join(self, client: HashingClient | None) -> Waiter | None:
        """Join the queue, with a slot if one is free; return ``None`` if this client has too many places."""
        waiter = Waiter(client or _NOBODY)
        with self._lock:
            queue = self._known if waiter.client.known else self._others
            if self._free == 0 and queue.is_full_for(waiter.client):
                return None
            queue.add(waiter)
            self._grant()
        return waiter

    def leave(self, waiter: Waiter) -> bool:
        """Leave the queue; return whether a slot was granted in the meantime, which the caller then holds."""
        with self._lock:
            if not waiter.granted.is_set():
                (self._known if waiter.client.known else self._others).remove(waiter)
                # Called at most once: a waiter that has left is no longer in the queue.
                return False
        return True

    def release(self) -> None:
        """Give a slot back, to the next waiter if there is one."""
        with self._lock:
            self._free += 1
            self._grant()

    def _grant(self) -> None:
        while self._free and (self._known or self._others):
            self._known_was_last = bool(self._known) and not (self._known_was_last and self._others)
            queue = self._known if self._known_was_last else self._others
            self._free -= 1
            queue.pop().granted.set()
