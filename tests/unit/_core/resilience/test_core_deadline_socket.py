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
    """A socket that only remembers what it was timeout."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.timeouts: list[float] = []

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, timeout: float) -> None:
        self.timeouts.append(timeout)

    def sendall(self, data: bytes, flags: int) -> None:
        self.sent = (data, flags)

    def recv(self, size: int, flags: int) -> bytes:
        return b"x" * size + bytes([flags])

    def recv_into(self, buffer: bytearray, nbytes: int, flags: int) -> int:
        return nbytes * 10 + flags


@pytest.mark.parametrize(
    ("now_set", "left", "share", "timeout"),
    [
        (None, 1.0, 1, [1.0]),
        (None, 1.0, 4, [0.25]),
        (0.0, 1.0, 1, []),  # does not want to wait at all
        (1.0, 1.0, 1, []),
        (0.95, 1.0, 1, []),
        (0.949, 1.0, 1, [1.0]),
        (1.001, 1.0, 1, [1.0]),
        (0.25, 1.0, 4, []),
        (1.0, 1.0, 4, [0.25]),
        (5.0, None, 1, []),
    ],
)
def test_a_socket_is_told_what_is_left_unless_it_nearly_knows(
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
        assert limited.timeout == now_set  # everything else goes straight through


def test_defaults_are_those_of_a_socket(clock: FrozenClock) -> None:
    limited = DeadlineSocket(Quiet(None))  # type: ignore[arg-type]
    limited.sendall(b"data")
    assert limited.sent == (b"data", 0)
    assert limited.recv(1) == b"x\x00"
    assert limited.recv_into(bytearray(1)) == 0


def test_the_share_of_the_server_is_what_was_left_at_the_first_wait(clock: FrozenClock) -> None:
    assert (call_deadline.at, call_deadline.share, call_deadline.remaining()) == (None, None, None)
    call_deadline.at = clock.monotonic() + 1.0
    assert call_deadline.share is None
    clock.advance(0.25)
    assert call_deadline.remaining() == pytest.approx(0.75)
    clock.advance(0.25)
    assert call_deadline.remaining() == pytest.approx(0.5)
    assert call_deadline.share == pytest.approx(0.75)


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_a_call_that_never_came_to_wait_gave_the_server_no_share(clock: FrozenClock, late: float) -> None:
    call_deadline.at = clock.monotonic() + 1.0
    clock.advance(1.0 + late)
    with pytest.raises(TimeoutError, match="deadline of this call"):
        call_deadline.remaining()
    assert call_deadline.share == 0.0


def test_the_deadline_of_an_outer_call_comes_back(clock: FrozenClock) -> None:
    before = call_deadline.begin(10.0)
    assert before is None
    outer = call_deadline.begin(5.0)
    assert call_deadline.at == 5.0
    call_deadline.restore(outer)
    assert call_deadline.at == 10.0
    call_deadline.restore(before)
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
