from __future__ import annotations

from itertools import count

import pytest

from mks_hardening.notify import AlertPolicy
from mks_hardening.notify.engine._alert import Alert, OutgoingMessage
from mks_hardening.notify.engine._outbox import Outbox


def alert(name: str, *, digest: bool = False) -> Alert:
    return Alert(name, "f", 0.0, "ERROR", "app", name, digest=digest)


def outbox(*, spooling: bool = False, **policy: float) -> Outbox:
    ids = count()
    return Outbox(
        AlertPolicy(**{"rate": 1.0, "retries": 2, "backoff": 1, **policy}),  # type: ignore[arg-type]  # a mixed bag
        spooling=spooling,
        random=lambda: 1.0,
        new_id=lambda: f"summary-{next(ids)}",
    )


def names(sent: OutgoingMessage | None) -> list[str]:
    return [] if sent is None else [one.message for one in sent.alerts]


def given_up(box: Outbox) -> list[list[str]]:
    """What is given up, which is put aside."""
    messages = [names(message) for message in box.given_up]
    box.given_up.clear()
    return messages


def taken(box: Outbox, *, now: float) -> list[list[str]]:
    """What can be delivered at this moment."""
    messages = []
    while message := box.next_message(now=now):
        messages.append(names(message))
        box.succeeded()
    return messages


def test_three_go_at_once_and_then_one_a_second() -> None:
    box = outbox()
    box.add([alert(name) for name in "abcde"])
    assert taken(box, now=100) == [["a"], ["b"], ["c"]]
    assert box.wait(now=100) == 1
    assert box.wait(now=100.5) == 0.5
    assert taken(box, now=100.9) == []
    assert taken(box, now=101) == [["d"]]
    assert taken(box, now=102) == [["e"]]
    assert box.idle


def test_the_rate_is_messages_a_second() -> None:
    box = outbox(rate=4.0)
    box.add([alert(name) for name in "abcde"])
    taken(box, now=0)
    assert box.wait(now=0) == 0.25
    assert taken(box, now=0.25) == [["d"]]


def test_the_burst_comes_back_with_time_but_does_not_grow() -> None:
    box = outbox()
    box.add([alert(name) for name in "abc"])
    taken(box, now=0)
    box.add([alert(name) for name in "defgh"])
    assert len(taken(box, now=1_000_000)) == 3


def test_many_that_wait_become_one_message_of_bounded_size() -> None:
    box = outbox()
    box.add([alert(str(number)) for number in range(100)])
    message = box.next_message(now=0)
    assert message is not None
    assert message.id == "summary-0"
    assert names(message) == [str(number) for number in range(40)]
    assert message.weight == 40
    box.succeeded()
    assert [len(names) for names in taken(box, now=0)] == [40, 20]


@pytest.mark.parametrize(("waiting", "messages"), [(1, 1), (3, 3), (5, 5), (6, 1), (40, 1), (41, 2)])
def test_how_many_messages_so_many_alerts_become(waiting: int, messages: int) -> None:
    box = outbox()
    box.add([alert(str(number)) for number in range(waiting)])
    sent = [message for now in range(10) for message in taken(box, now=float(now))]
    assert len(sent) == messages
    assert [name for names in sent for name in names] == [str(number) for number in range(waiting)]


def test_one_at_a_time() -> None:
    box = outbox()
    box.add([alert("a"), alert("b")])
    assert names(box.next_message(now=0)) == ["a"]
    assert box.next_message(now=0) is None
    assert not box.idle


def test_a_failure_pauses_and_the_same_message_comes_again_first() -> None:
    box = outbox()
    box.add([alert("a"), alert("b")])
    first = box.next_message(now=0)
    box.failed(now=0)
    assert given_up(box) == []
    assert box.wait(now=0) == 1
    assert box.next_message(now=0.9) is None
    again = box.next_message(now=1)
    assert first is not None
    assert again == first._replace(tries=1)
    box.failed(now=1)
    assert box.wait(now=1) == 2


def test_after_the_last_try_it_is_given_up_alone_without_a_spool() -> None:
    box = outbox(retries=1, backoff=0)
    box.add([alert("a"), alert("b")])
    box.next_message(now=0)
    box.failed(now=0)
    assert given_up(box) == []
    box.next_message(now=0)
    box.failed(now=0)
    assert given_up(box) == [["a"]]
    assert names(box.next_message(now=100)) == ["b"]


def test_with_a_spool_nothing_waits_for_a_destination_that_is_down() -> None:
    box = outbox(retries=1, backoff=1, spooling=True)
    box.add([alert("a"), alert("b"), alert("c")])
    box.next_message(now=0)
    box.failed(now=0)
    box.next_message(now=1)
    assert not box.down
    box.failed(now=1)
    assert given_up(box) == [["a"], ["b"], ["c"]]
    assert box.down
    assert box.idle
    box.add([alert("d")])
    assert box.next_message(now=2.9) is None
    box.next_message(now=3)  # one look after the pause, and no second one
    box.failed(now=3)
    assert given_up(box) == [["d"]]


def test_a_delivery_ends_the_trouble() -> None:
    box = outbox(retries=0)
    box.add([alert("a"), alert("b")])
    box.next_message(now=0)
    box.failed(now=0)
    assert (box.failing, box.down) == (True, True)
    box.next_message(now=10)
    box.succeeded()
    assert (box.failing, box.down) == (False, False)


@pytest.mark.parametrize(
    ("asked", "pause"), [(None, 1.0), (0.0, 1.0), (0.2, 1.0), (7.0, 7.0), (300.0, 300.0)]
)
def test_the_destination_may_ask_for_a_pause(asked: float | None, pause: float) -> None:
    box = outbox()
    box.add([alert("a")])
    box.next_message(now=0)
    box.failed(now=0, retry_after=asked)
    assert box.wait(now=0) == pause


def test_a_refusal_is_final_and_does_not_pause() -> None:
    box = outbox()
    box.add([alert("a"), alert("b")])
    box.next_message(now=0)
    box.refused()
    assert given_up(box) == [["a"]]
    assert not box.failing
    assert names(box.next_message(now=0)) == ["b"]


def test_replays_go_together_weigh_nothing_and_are_given_back_after_one_failure() -> None:
    box = outbox(retries=5)
    box.add_spooled([("entry a", alert("a")), ("entry b", alert("b"))])
    message = box.next_message(now=0)
    assert message is not None
    assert (message.id, message.weight, message.entries) == ("summary-0", 0, ("entry a", "entry b"))
    box.failed(now=0)
    assert list(box.given_up) == [message._replace(tries=1)]
    box.add_spooled([("entry a", alert("a"))])
    again = box.next_message(now=10)
    assert again is not None
    assert again.id == "a"


def test_replays_that_are_refused_together_go_one_by_one() -> None:
    box = outbox()
    box.add_spooled([(f"entry {name}", alert(name)) for name in ("a", "bad", "c")])
    box.add([alert("later")])
    box.next_message(now=0)
    box.refused()
    ends = []
    for now in range(4):
        message = box.next_message(now=10 * now)
        assert message is not None
        ends.append((message.id, message.entries))
        if message.id == "bad":
            box.refused()
        else:
            box.succeeded()
    assert ends == [("a", ("entry a",)), ("bad", ("entry bad",)), ("c", ("entry c",)), ("later", ())]
    assert given_up(box) == [["bad"]]


def test_digests_weigh_nothing() -> None:
    assert OutgoingMessage("x", (alert("a"), alert("b", digest=True))).weight == 1


def test_a_box_that_gives_up_is_idle_and_ignores_what_comes_later() -> None:
    box = outbox()
    box.add([alert("a"), alert("b")])
    message = box.next_message(now=0)
    assert message is not None
    assert box.is_sending(message)
    box.give_up()
    assert given_up(box) == [["a"], ["b"]]
    assert not box.is_sending(message)
    assert box.idle
    box.failed(now=0)
    box.refused()
    assert given_up(box) == []
