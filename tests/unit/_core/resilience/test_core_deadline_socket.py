"""What a socket is timeout about the time that is left."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from mks_hardening._core.resilience import deadline_socket as module
from mks_hardening._core.resilience.deadline_socket import DeadlineSocket, call_deadline
from mks_hardening.testing import FrozenClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenClock]:
    frozen = FrozenClock()
    monkeypatch.setattr(module, "SYSTEM_CLOCK", frozen)
    yield frozen
    call_deadline.at = None


class Quiet:
    """A socket that only remembers what it was told."""

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.timeouts: list[float] = []

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, timeout: float) -> None:
        self.timeout = timeout
        self.timeouts.append(timeout)

    def send(self, data: memoryview, flags: int) -> int:
        self.sent = (bytes(data), flags)
        return len(data)

    def recv(self, size: int, flags: int) -> bytes:
        return b"x" * size + bytes([flags])

    def recv_into(self, buffer: bytearray, nbytes: int, flags: int) -> int:
        return nbytes * 10 + flags


@pytest.mark.parametrize(
    ("now_set", "left", "share", "timeout"),
    [
        (None, 1.0, 1, [0.005]),
        (None, 0.004, 1, [0.004]),
        (None, 0.016, 4, [0.004]),
        (0.0, 1.0, 1, []),  # does not want to wait at all
        (0.005, 1.0, 1, []),  # a system call less
        (1.0, 1.0, 1, [0.005]),
        (5.0, None, 1, []),
    ],
)
def test_a_wait_begins_with_a_short_step(
    clock: FrozenClock, now_set: float | None, left: float | None, share: int, timeout: list[float]
) -> None:
    for use in ("sendall", "recv", "recv_into"):
        call_deadline.at = None if left is None else clock.monotonic() + left
        quiet = Quiet(now_set)
        limited = DeadlineSocket(quiet, share=share)  # type: ignore[arg-type]
        if use == "sendall":
            limited.sendall(b"data", 3)
            assert quiet.sent == (b"data", 3)
        elif use == "recv":
            assert limited.recv(2, 5) == b"xx\x05"
        else:
            assert limited.recv_into(bytearray(1), 4, 2) == 42
        assert quiet.timeouts == pytest.approx(timeout)
        assert limited.timeouts == quiet.timeouts  # everything else goes straight through


def test_defaults_are_those_of_a_socket(clock: FrozenClock) -> None:
    limited = DeadlineSocket(Quiet(None))  # type: ignore[arg-type]
    limited.sendall(b"data")
    assert limited.sent == (b"data", 0)
    assert limited.recv(1) == b"x\x00"
    assert limited.recv_into(bytearray(1)) == 0


class Server(Quiet):
    """A socket whose response arrives ``after`` seconds, and a thread that gets the processor late.

    Args:
        clock: the clock.
        after: seconds until the response arrives.
        late: seconds by which each system call returns too late.
    """

    def __init__(self, clock: FrozenClock, *, after: float, late: float) -> None:
        super().__init__()
        self.clock, self.late = clock, late
        self.arrives = clock.monotonic() + after
        self.waited = 0.0

    def recv(self, size: int, flags: int) -> bytes:
        timeout = self.timeout or 0.0
        wait = max(0.0, min(timeout, self.arrives - self.clock.monotonic()))
        self.waited += wait
        self.clock.advance(wait)
        has_arrived = self.clock.monotonic() >= self.arrives
        if timeout:
            self.clock.advance(self.late)
        if has_arrived:
            return b"x"
        raise TimeoutError if timeout else BlockingIOError


@pytest.mark.parametrize(
    ("after", "late", "waited"),
    [
        (0.0, 0.0, 0.0),
        (0.05, 0.0, 0.05),
        (0.0, 30.0, 0.0),
        (0.05, 0.01, None),
        (0.05, 30.0, None),
        (20.0, 30.0, None),
        (0.1001, 0.0, TimeoutError),
        (1e9, 0.0, TimeoutError),
        (1e9, 0.01, TimeoutError),
        (1e9, 30.0, TimeoutError),
    ],
)
def test_only_waiting_for_the_server_counts(
    clock: FrozenClock, after: float, late: float, waited: float | type[TimeoutError] | None
) -> None:
    """However late the thread gets the processor, the server has its 0.1 seconds, and not more."""
    server = Server(clock, after=after, late=late)
    call_deadline.enter(0.1)
    try:
        clock.advance(late)
        if waited is TimeoutError:
            with pytest.raises(TimeoutError, match="deadline of this call"):
                DeadlineSocket(server).recv(1)  # type: ignore[arg-type]
            assert server.waited == pytest.approx(0.1)
        else:
            assert DeadlineSocket(server).recv(1) == b"x"  # type: ignore[arg-type]
            assert waited is None or server.waited == pytest.approx(waited)
        assert server.waited <= 0.1 + 1e-9
    finally:
        call_deadline.leave()
    assert call_deadline.at is None


def test_a_response_that_arrived_with_the_last_of_the_time_is_read_to_its_end(clock: FrozenClock) -> None:
    """In several pieces, by a thread that was away from the first to the last."""
    server = Server(clock, after=0.0, late=0.0)
    limited = DeadlineSocket(server)  # type: ignore[arg-type]
    call_deadline.enter(0.0)
    try:
        assert [limited.recv(1) for _ in range(3)] == [b"x"] * 3
        assert server.timeout  # the next call may wait again
        server.arrives = clock.monotonic() + 1e-3
        with pytest.raises(TimeoutError, match="deadline of this call"):
            limited.recv(1)
    finally:
        call_deadline.leave()


def test_an_error_of_the_connection_after_the_deadline_stays_one(clock: FrozenClock) -> None:
    class Reset(Quiet):
        def recv(self, size: int, flags: int) -> bytes:
            raise ConnectionResetError

    call_deadline.enter(0.0)
    try:
        with pytest.raises(ConnectionResetError):
            DeadlineSocket(Reset()).recv(1)  # type: ignore[arg-type]
    finally:
        call_deadline.leave()


def test_time_of_its_own_moves_the_deadline_and_waiting_does_not(clock: FrozenClock) -> None:
    call_deadline.enter(1.0)
    try:
        clock.advance(5)
        assert call_deadline.lost() == 0.0  # a client that keeps no deadline is charged in full
        assert call_deadline.remaining() == pytest.approx(1.0)
        clock.advance(0.25)
        call_deadline.waited(0.5)
        assert call_deadline.remaining() == pytest.approx(0.75)
        clock.advance(5)
        call_deadline.waited(0.5)  # it was told to wait for half a second
        assert call_deadline.remaining() == pytest.approx(0.25)
        clock.advance(3)
        assert call_deadline.lost() == pytest.approx(5 + 4.5 + 3)
    finally:
        call_deadline.leave()
    assert call_deadline.lost() == 0.0


def test_a_call_of_which_all_time_counts_ends_at_a_fixed_time(clock: FrozenClock) -> None:
    assert (call_deadline.at, call_deadline.remaining()) == (None, None)
    call_deadline.at = clock.monotonic() + 1.0
    clock.advance(0.25)
    assert call_deadline.remaining() == pytest.approx(0.75)
    clock.advance(0.25)
    call_deadline.waited(0.1)
    assert call_deadline.remaining() == pytest.approx(0.5)
    clock.advance(0.5)
    with pytest.raises(TimeoutError, match="deadline of this call"):
        call_deadline.remaining()
    assert call_deadline.lost() == 0.0


def test_the_deadline_of_an_outer_call_comes_back(clock: FrozenClock) -> None:
    now = clock.monotonic()
    call_deadline.enter(10.0)
    call_deadline.enter(5.0)
    assert call_deadline.at == now + 5.0
    call_deadline.leave()
    assert call_deadline.at == now + 10.0
    call_deadline.leave()
    assert call_deadline.at is None
    call_deadline.leave()
    assert call_deadline.at is None


def test_a_file_reads_through_it_and_keeps_the_connection() -> None:
    left, right = socket.socketpair()
    with right:
        file = DeadlineSocket(left).makefile("rb")
        right.sendall(b"one\ntwo\n")
        assert file.readline() == b"one\n"
        left.close()
        assert file.readline() == b"two\n"
        assert not file.writable()
        file.close()
        assert right.recv(1) == b""


def test_what_does_not_fit_into_the_buffer_follows_within_the_deadline() -> None:
    left, right = socket.socketpair()
    with left, right:
        limited, big = DeadlineSocket(left), bytes(range(256)) * 40_000
        call_deadline.at = module.SYSTEM_CLOCK.monotonic() + 10
        received = bytearray()

        def read() -> None:
            while len(received) < len(big):
                received.extend(right.recv(1 << 16))

        reader = threading.Thread(target=read)
        reader.start()
        limited.sendall(big)
        reader.join(10)
        assert bytes(received) == big
        limited.sendall(b"small")
        assert right.recv(10) == b"small"
        call_deadline.at = module.SYSTEM_CLOCK.monotonic() + 0.05
        with pytest.raises(TimeoutError):
            limited.sendall(big)  # nobody reads
        call_deadline.at = None


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_without_a_deadline_a_socket_sends_as_its_owner_told_it(timeout: float | None) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(timeout)
        DeadlineSocket(left).sendall(b"data")
        assert right.recv(10) == b"data"
        right.close()
        with pytest.raises(BrokenPipeError):
            DeadlineSocket(left).sendall(b"data")


class Sealed(Quiet):
    """A TLS socket that holds decrypted bytes."""

    def pending(self) -> int:
        return 5


def test_only_a_tls_socket_holds_decrypted_bytes() -> None:
    assert DeadlineSocket(Sealed(None)).pending() == 5  # type: ignore[arg-type]
    left, right = socket.socketpair()
    with left, right:
        right.sendall(b"data")
        assert DeadlineSocket(left).pending() == 0
        assert DeadlineSocket(left).fileno() == left.fileno()
