"""Connect to a host by name within the deadline of the current call.

``getaddrinfo`` takes no timeout, and a socket timeout applies to each address: an unresponsive name server (4 s or
more) or a first address that drops packets would exceed any budget several times over. Names are resolved on a
thread that the call waits for within its deadline, and the addresses share the time that is left.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - otherwise the first lookup imports it; see ``redis_connect.prepare``
import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.memo import drop_oldest
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.resilience.deadline_socket import DeadlineSocket, call_deadline

__all__ = ["connect_within_deadline"]

Address: TypeAlias = tuple[Any, ...]
"""Entry of ``getaddrinfo``: family, type, protocol, canonical name, socket address."""

_MOST_NAMES: Final = 256
_LONGEST_FORK_WAIT: Final = (
    1.0  # seconds; a name server that does not respond must not stop a process from forking
)


class _HostLookup(threading.Thread):
    """One DNS lookup, shared by all concurrent callers."""

    def __init__(self, names: _KnownNames, host: str, port: int) -> None:
        super().__init__(name="mks-resolver", daemon=True)
        self._names = names
        self._place = (host, port)
        self.done = threading.Event()
        self.addresses: list[Address] | None = None
        self.error: OSError | None = None

    def run(self) -> None:
        self._names.begin(self)
        try:
            found = socket.getaddrinfo(*self._place, type=socket.SOCK_STREAM)
            self.addresses = self._names.remember(self._place, found)
        except OSError as error:
            self.error = error
        finally:
            self._names.lookups.pop(self._place, None)
            self._names.running.discard(self)
            self.done.set()


class _KnownNames:
    """The last addresses of each name, used if the resolver does not respond; the last working address is first."""

    def __init__(self) -> None:
        self.lookups: dict[tuple[str, int], _HostLookup] = {}
        self.known: OrderedDict[tuple[str, int], list[Address]] = OrderedDict()
        self.running: set[_HostLookup] = set()
        self._start = threading.RLock()
        self._registered = False

    def reset_after_fork(self) -> None:
        """Forget the running lookups in a forked child: the parent's threads do not exist here."""
        self.lookups = {}
        self.running = set()
        self._start = threading.RLock()

    def begin(self, lookup: _HostLookup) -> None:
        """Note that this lookup calls the resolver from now on; waits while the process forks."""
        with self._start:
            self.running.add(lookup)

    def before_fork(self) -> None:
        """Let running lookups end, and no other one begin, until the process has forked.

        The C library does not reset the locks of ``getaddrinfo`` in a child (glibc: ``check_pf.c``): a child forked
        during a lookup could never look up a name again.
        """
        self._start.acquire()
        until = SYSTEM_CLOCK.monotonic() + _LONGEST_FORK_WAIT
        for lookup in list(self.running):
            lookup.done.wait(max(0.0, until - SYSTEM_CLOCK.monotonic()))

    def after_fork_in_parent(self) -> None:
        """Allow lookups again."""
        self._start.release()

    def join(self, lookup: _HostLookup, place: tuple[str, int]) -> _HostLookup:
        """Return the running lookup of this name: the one given, or an earlier one."""
        if not self._registered:  # before the first thread runs: a forked child would wait for its result
            self._registered = True
            register_after_fork(self)
            os.register_at_fork(before=self.before_fork, after_in_parent=self.after_fork_in_parent)
        return self.lookups.setdefault(place, lookup)

    def remember(self, place: tuple[str, int], found: list[Address]) -> list[Address]:
        """Store the addresses, the one that worked last in front, and return them."""
        before = self.known.get(place)
        if before and before[0] in found:
            found = [before[0], *(address for address in found if address != before[0])]
        self.known[place] = found
        drop_oldest(self.known, _MOST_NAMES)
        return found

    def prefer(self, place: tuple[str, int], address: Address) -> None:
        """Put this address first from now on: it accepted a connection."""
        known = self.known.get(place)
        if known and known[0] != address and address in known:
            self.known[place] = [address, *(other for other in known if other != address)]


_known_names: Final = _KnownNames()


def connect_within_deadline(
    host: str, port: int, prepare: Callable[[socket.socket], object], *, share: int = 1
) -> socket.socket:
    """Return a connected socket whose timeout is the time that is left.

    Args:
        host: name or address.
        port: TCP port.
        prepare: sets the options of a socket before it connects.
        share: divisor of the time left that the whole attempt may take: 3 for a third.

    Raises:
        OSError: no address could be reached, or the name is unknown.
        TimeoutError: the deadline has passed.
    """
    addresses = _resolve(host, port, share)
    last: OSError = OSError(f"{host} has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            prepare(sock)
            _connect(sock, address, share * (len(addresses) - number))
            sock.settimeout(_left(share))
        except OSError as error:
            sock.close()
            last = error
        else:
            if number:
                _known_names.prefer((host, port), addresses[number])
            return sock
    raise last


def _connect(sock: socket.socket, address: Any, share: int) -> None:
    begun = False

    def establish() -> None:
        nonlocal begun
        if begun:
            sock.send(b"")  # waits until the connection is established
        else:
            begun = True
            sock.connect(address)

    DeadlineSocket(sock, share=share).wait_for(establish)


def _left(share: int) -> float | None:
    left = call_deadline.remaining()
    return None if left is None else left / share


def _resolve(host: str, port: int, share: int) -> list[Address]:
    try:
        with suppress(socket.gaierror):  # a numeric address needs no resolver
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except UnicodeError:  # an empty label, or one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "it is not a valid host name") from None
    left = _left(share)
    lookup = _known_names.lookups.get((host, port))
    if lookup is None:
        lookup = _start_lookup(host, port)
    known = _known_names.known.get((host, port))
    # If earlier addresses are known, half of the time is reserved for connecting to them.
    longest = left if left is None or not known else left / 2
    lookup.done.wait(longest)
    call_deadline.waited(longest)
    if lookup.error is not None:
        raise lookup.error
    found = lookup.addresses or known
    if not found:
        raise TimeoutError("the name could not be looked up in time")
    return found


def _start_lookup(host: str, port: int) -> _HostLookup:
    fresh = _HostLookup(_known_names, host, port)
    lookup = _known_names.join(fresh, (host, port))
    if lookup is fresh:
        try:
            fresh.start()
        except RuntimeError as error:  # no more threads available
            fresh.error = OSError(str(error))
            _known_names.lookups.pop((host, port), None)
            fresh.done.set()
    return lookup
