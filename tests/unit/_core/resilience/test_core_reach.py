from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.resilience import connect, deadline_socket
from mks_hardening._core.resilience.connect import connect_within_deadline
from mks_hardening._core.resilience.deadline_socket import call_deadline
from mks_hardening.testing import FrozenClock
from testbed.polling import wait_until

real = socket.getaddrinfo


class Resolver:
    """Knows made-up names; silent while it is held."""

    def __init__(self) -> None:
        self.names: dict[str, list[tuple[str, int]]] = {}
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    def __call__(self, host: str, port: int, *args: Any, **options: Any) -> list[Any]:
        if options.get("flags") == socket.AI_NUMERICHOST:
            return real(host, port, *args, **options)
        self.asked += 1
        self.answers.wait(10)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in self.names[host]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    monkeypatch.setattr(connect, "_known_names", connect._KnownNames())
    yield made
    made.answers.set()


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening.getsockname()


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """A place whose backlog is full, so that a connection attempt gets no answer."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()


def reached(host: str, *, within: float = 5.0) -> tuple[str, int]:
    call_deadline.at = SYSTEM_CLOCK.monotonic() + within
    try:
        with connect_within_deadline(host, 1, lambda _: None) as sock:
            timeout = sock.gettimeout()
            assert timeout is not None
            assert 0 < timeout <= within
            place: tuple[str, int] = sock.getpeername()
            return place
    finally:
        call_deadline.at = None


def test_a_resolver_that_is_away_costs_no_more_than_the_deadline(resolver: Resolver) -> None:
    resolver.answers.clear()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            reached("redis.test", within=0.02)
    assert resolver.asked == 1  # all wait for one thread


def test_a_child_forked_while_the_first_name_is_looked_up_asks_itself(
    resolver: Resolver, server: tuple[str, int]
) -> None:
    resolver.answers.clear()
    resolver.names["redis.test"] = [server]
    with pytest.raises(TimeoutError):
        reached("redis.test", within=0.02)
    child = os.fork()
    if not child:
        resolver.answers = threading.Event()
        resolver.answers.set()
        os._exit(0 if reached("redis.test") == server else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_older_answer_stands_in_for_a_resolver_that_is_away(
    resolver: Resolver, server: tuple[str, int]
) -> None:
    resolver.names["redis.test"] = [server]
    assert reached("redis.test") == server
    resolver.answers.clear()
    assert reached("redis.test", within=0.05) == server


def test_a_name_is_looked_up_anew_for_each_connection(resolver: Resolver, server: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        for place in (server, other.getsockname()):
            resolver.names["redis.test"] = [place]
            assert reached("redis.test") == place


def test_an_address_that_is_silent_leaves_time_for_the_next_and_is_tried_last_from_then_on(
    resolver: Resolver, server: tuple[str, int], silent: tuple[str, int]
) -> None:
    resolver.names["redis.test"] = [silent, server]
    assert reached("redis.test", within=0.1) == server
    assert connect._known_names.known["redis.test", 1][0][4] == server
    assert reached("redis.test") == server


def test_only_silent_addresses_end_at_the_deadline(resolver: Resolver, silent: tuple[str, int]) -> None:
    resolver.names["redis.test"] = [silent, silent, silent]
    with pytest.raises(TimeoutError):
        reached("redis.test", within=0.03)


def test_time_without_the_processor_is_not_taken_from_the_connection(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FrozenClock()
    monkeypatch.setattr(deadline_socket, "SYSTEM_CLOCK", clock)
    call_deadline.enter(0.1)
    try:
        clock.advance(30)
        with connect_within_deadline(*server, lambda _: clock.advance(30)) as sock:
            clock.advance(30)
            assert sock.getpeername() == server
            assert call_deadline.remaining() == pytest.approx(0.1)
    finally:
        call_deadline.leave()


class Slow(socket.socket):
    """A socket whose connection is not established within the first step."""

    def connect(self, address: Any) -> None:
        timeout = self.gettimeout()
        self.setblocking(False)
        self.connect_ex(address)
        self.settimeout(timeout)
        raise TimeoutError


def test_a_connection_may_take_several_steps(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        refused = gone.getsockname()
    monkeypatch.setattr(socket, "socket", Slow)
    call_deadline.enter(30.0)
    try:
        with connect_within_deadline(*server, lambda _: None) as sock:
            assert sock.getpeername() == server
        with pytest.raises(ConnectionRefusedError):
            connect_within_deadline(*refused, lambda _: None)
    finally:
        call_deadline.leave()


def test_an_unknown_name_is_said_at_once(resolver: Resolver) -> None:
    with pytest.raises(socket.gaierror):
        reached("nowhere.test")


def test_an_address_needs_no_resolver(resolver: Resolver, server: tuple[str, int]) -> None:
    with connect_within_deadline(*server, lambda _: None) as sock:
        assert sock.getpeername() == server
        assert sock.gettimeout() is None
    assert resolver.asked == 0


def test_a_thread_that_cannot_start_is_an_error_at_once_and_is_tried_again(
    resolver: Resolver, server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.names["redis.test"] = [server]

    def cannot_start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot_start)
        with pytest.raises(OSError, match="can't start new thread"):
            reached("redis.test")
    assert resolver.asked == 0
    assert reached("redis.test") == server


def test_a_host_without_addresses_is_an_error(resolver: Resolver) -> None:
    resolver.names["redis.test"] = []
    with pytest.raises(OSError, match=r"address|looked up"):
        reached("redis.test", within=0.05)


def test_the_last_error_is_told_and_sockets_are_closed(resolver: Resolver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        place = gone.getsockname()
    resolver.names["redis.test"] = [place, place]
    with pytest.raises(ConnectionRefusedError):
        reached("redis.test")


def test_an_attempt_may_take_its_share_only(resolver: Resolver, server: tuple[str, int]) -> None:
    resolver.names["redis.test"] = [server]
    prepared: list[socket.socket] = []
    call_deadline.at = SYSTEM_CLOCK.monotonic() + 4.0
    try:
        with connect_within_deadline("redis.test", 1, prepared.append, share=4) as sock:
            timeout = sock.gettimeout()
            assert timeout is not None
            assert timeout <= 1.0
            assert prepared == [sock]
    finally:
        call_deadline.at = None


def test_what_is_known_of_names_is_bounded_and_forgets_the_parents_threads() -> None:
    names = connect._KnownNames()
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    for number in range(1000):
        assert names.remember((f"host{number}", 1), [address]) == [address]
    assert 0 < len(names.known) <= 256
    names.lookups["host", 1] = connect._HostLookup(names, "host", 1)
    names.reset_after_fork()
    assert names.lookups == {}
    assert names.known


def test_the_address_that_worked_stays_in_front() -> None:
    names = connect._KnownNames()
    first, second, third = ((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", n)) for n in (1, 2, 3))
    names.remember(("host", 1), [first, second])
    names.prefer(("host", 1), second)
    names.prefer(("host", 1), third)  # no longer among the answers
    names.prefer(("other", 1), third)
    assert names.known == {("host", 1): [second, first]}
    assert names.remember(("host", 1), [first, second, third]) == [second, first, third]
    assert names.remember(("host", 1), [first, third]) == [first, third]


def test_a_fork_waits_for_running_lookups_and_holds_back_new_ones(resolver: Resolver) -> None:
    names = connect._KnownNames()
    resolver.names["redis.test"] = [("127.0.0.1", 1)]
    resolver.answers.clear()
    first, second = (connect._HostLookup(names, "redis.test", port) for port in (1, 2))
    first.start()
    wait_until(lambda: resolver.asked == 1, what="the first lookup")
    seen: list[tuple[bool, int]] = []

    def fork() -> None:
        names.before_fork()
        seen.append((first.done.is_set(), resolver.asked))
        names.after_fork_in_parent()

    forking = threading.Thread(target=fork)
    forking.start()
    wait_until(lambda: not is_free(names), what="the fork")
    second.start()
    resolver.answers.set()
    for thread in (forking, first, second):
        thread.join(10)
    assert seen == [(True, 1)]
    assert second.addresses
    assert names.running == set()


def test_a_fork_does_not_wait_for_a_resolver_that_hangs(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_LONGEST_FORK_WAIT", 0.01)
    names = connect._KnownNames()
    resolver.answers.clear()
    lookup = connect._HostLookup(names, "redis.test", 1)
    lookup.start()
    wait_until(lambda: names.running, what="the lookup")
    names.before_fork()
    assert not lookup.done.is_set()
    names.after_fork_in_parent()
    names.reset_after_fork()
    assert names.running == set()
    resolver.answers.set()
    lookup.join(10)


def is_free(names: Any) -> bool:
    """Whether no fork is under way."""
    if free := names._start.acquire(blocking=False):
        names._start.release()
    return free
