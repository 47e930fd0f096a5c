"""Who is hashed for next: clients and networks in turn, and those who are known first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import PasswordHasher, SignInClient
from mks_hardening.security.passwords._fair_semaphore import (
    FairSemaphore,
    HashingClient,
    Waiter,
    hashing_client,
    on_behalf_of,
)
from sign_in_scenario import RIGHT, Scenario
from testbed.polling import wait_until
from testbed.run_python import run_python

STRANGER = HashingClient("203.0.113.0/24", "203.0.113.9")


def owner(number: int) -> HashingClient:
    return HashingClient(f"198.51.{number}.0/24", f"198.51.{number}.1")


def device(number: int, name: str = "phone") -> HashingClient:
    return HashingClient(f"user {number}", name, known=True)


def joined(slots: FairSemaphore, client: HashingClient | None) -> Waiter:
    waiter = slots.join(client)
    assert waiter is not None
    return waiter


def order(slots: FairSemaphore, waiting: list[Waiter]) -> Iterator[HashingClient]:
    """Who gets the slot that is given back, again and again."""
    left = [waiter for waiter in waiting if not waiter.granted.is_set()]
    while left:
        slots.release()
        [served] = [waiter for waiter in left if waiter.granted.is_set()]
        left.remove(served)
        yield served.client


def test_each_client_gets_its_turn_however_many_connections_one_has() -> None:
    slots = FairSemaphore(2)
    flood = [slots.join(STRANGER) for _ in range(12)]
    assert [waiter is None for waiter in flood] == [False] * 6 + [True] * 6  # two at work, four in the queue
    owners = [joined(slots, owner(number)) for number in range(8)]
    waiting = [waiter for waiter in flood if waiter] + owners
    assert list(order(slots, waiting)) == [
        STRANGER, *(owner(number) for number in range(8)), STRANGER, STRANGER, STRANGER,
    ]  # fmt: skip


def test_a_network_gets_no_more_than_another_and_fills_no_queue() -> None:
    slots = FairSemaphore(1)
    neighbours = [HashingClient(STRANGER.network, f"203.0.113.{number}") for number in range(20)]
    waiting = [waiter for one in neighbours if (waiter := slots.join(one))]
    assert len(waiting) == 9  # one at work
    waiting.append(joined(slots, owner(1)))
    assert list(order(slots, waiting))[:3] == [neighbours[1], owner(1), neighbours[2]]


def test_who_is_known_goes_first_but_not_always() -> None:
    slots = FairSemaphore(1)
    waiting = [joined(slots, owner(number)) for number in range(4)]
    waiting += [joined(slots, device(1)) for _ in range(4)] + [joined(slots, device(2))]
    served = list(order(slots, waiting))
    assert served[:4] == [device(1), owner(1), device(2), owner(2)]
    assert served[4:] == [device(1), owner(3), device(1), device(1)]


def test_who_hashes_without_a_sign_in_is_one_client_without_a_cap() -> None:
    slots = FairSemaphore(1)
    waiting = [joined(slots, None) for _ in range(30)] + [joined(slots, owner(1))]
    assert list(order(slots, waiting))[1] == owner(1)


def test_who_leaves_takes_no_slot_along() -> None:
    slots = FairSemaphore(1)
    first, second, third = (joined(slots, owner(number)) for number in range(3))
    assert slots.leave(first)  # granted: it holds the slot
    assert not slots.leave(second)
    slots.release()
    assert third.granted.is_set()
    slots.release()
    assert joined(slots, owner(4)).granted.is_set()


class Gate(PasswordHasher):
    """A hasher whose computations end one by one, when they are let go; it notes whom each was for."""

    def __init__(self, slots: int) -> None:
        super().__init__(max_wait=60)
        self.slots = slots
        self.reset_after_fork()
        self.begun: list[HashingClient | None] = []
        self.go = threading.Semaphore(0)

    def _verified(self, password: str, stored: str | None) -> bool:
        self.begun.append(hashing_client.get())
        assert self.go.acquire(timeout=20)
        return password == RIGHT and stored is not None

    def needs_rehash(self, stored: str, /) -> bool:
        return False


def test_one_address_with_many_connections_keeps_nobody_out() -> None:
    """Twelve connections of one address, and then the owners of two accounts: one on a remembered device."""
    scenario = Scenario()
    scenario.signed_in("sato", remember=True)
    token = scenario.device
    gate = Gate(1)
    sign_in = type(scenario.sign_in)(scenario.people, **{**scenario.parts, "passwords": gate})
    flood = SignInClient(address="203.0.113.9")
    busy: list[str] = []

    def guess(number: int) -> None:
        try:
            sign_in.password(f"name {number}", "guess", client=flood)
        except BackendUnavailableError as error:
            busy.append(error.reason)

    with ThreadPoolExecutor(20) as pool:
        for number in range(12):
            pool.submit(guess, number)
        wait_until(
            lambda: len(busy) == 7
        )  # one at work, four in the queue, and nobody holds a thread for nothing
        stranger = SignInClient(address="192.0.2.7")
        new = pool.submit(sign_in.password, "sato", RIGHT, client=stranger)
        queue: Any = gate._slots._others
        wait_until(lambda: "192.0.2.0/24" in queue._networks)
        known = SignInClient(address="203.0.113.9", device=token)
        old = pool.submit(sign_in.password, "sato", RIGHT, client=known)
        wait_until(lambda: bool(gate._slots._known))
        for _ in range(10):
            gate.go.release()
        assert old.result(20)
        assert new.result(20)
    begun = [client for client in gate.begun if client is not None]
    assert [client.known for client in begun].index(True) == 1  # the very next one, from the same address
    assert [client.client for client in begun].index("192.0.2.7") <= 4
    # Nobody who was told to come again has been counted as a wrong guess.
    assert busy == ["busy"] * 7


def test_on_a_loop_too() -> None:
    gate = Gate(1)

    async def play() -> list[str]:
        async def verify(client: HashingClient) -> str:
            with on_behalf_of(client):
                try:
                    await gate.averify("guess", None)
                except BackendUnavailableError:
                    return "busy"
            return client.client

        flood = [asyncio.create_task(verify(STRANGER)) for _ in range(12)]
        await asyncio.sleep(0.05)
        late = asyncio.create_task(verify(device(1)))
        flood[1].cancel()
        await asyncio.sleep(0.05)
        done: list[str] = []
        late.add_done_callback(lambda task: done.append(f"{sum(one.done() for one in flood)} before"))
        for _ in range(6):
            gate.go.release()
        with suppress(asyncio.CancelledError):
            await flood[1]
        answers = [await one for one in flood if one is not flood[1]]
        assert await late == "phone"
        return [*answers, *done]

    answers = asyncio.run(play())
    assert answers.count("busy") == 7
    assert answers.count(STRANGER.client) == 4
    assert joined(gate._slots, None).granted.is_set()  # every slot came back


@pytest.mark.parametrize("address", ["", "unix:"])
def test_without_an_address_nobody_is_capped(address: str) -> None:
    scenario = Scenario()
    gate = Gate(1)
    sign_in = type(scenario.sign_in)(
        scenario.people, **{**scenario.parts, "passwords": gate, "limiter": None}
    )
    with ThreadPoolExecutor(12) as pool:
        answers = [
            pool.submit(sign_in.password, "sato", RIGHT, client=SignInClient(address=address))
            for _ in range(12)
        ]
        for _ in range(12):
            gate.go.release()
        assert [answer.result(20).state for answer in answers] == ["done"] * 12


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
from mks_hardening.security import PasswordHasher

hasher = PasswordHasher(scheme="scrypt", memory_budget=2**25, max_wait=60)
stop = monkey.get_original("_thread", "allocate_lock")()  # blocks its thread, as a computation does
stop.acquire()
begun = []

def make(password):
    begun.append(password)
    if not stop.acquire(timeout=30):
        return "the other greenlets stood still"
    stop.release()
    return "hashed"

hasher._scheme.make = make
jobs = [gevent.spawn(hasher.hash, name) for name in ("first", "second", "third")]
while not begun:
    gevent.sleep(0.001)
if KILL:
    jobs[0].kill(block=False)
gevent.sleep(0.01)
print(hasher.slots, begun)  # the slot is taken as long as its computation
stop.release()
gevent.joinall(jobs)
print(*(job.value if job.successful() else job.exception for job in jobs))
print(hasher.verify("a", None), gevent.spawn(hasher.verify, "a", None).get())
"""


@pytest.mark.parametrize("kill", [False, True])
def test_greenlets_go_on_while_a_password_is_hashed(kill: bool) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    slots, values, verified = run_python(GREENLETS.replace("KILL", str(kill))).stdout.splitlines()
    assert slots == "1 ['first']"
    assert "stood still" not in values
    assert values.count("hashed") == 3 - kill
    assert verified == "False False"
