from __future__ import annotations

from mks_hardening.notify.engine._alert import Alert, Fingerprint
from mks_hardening.notify.engine._dedup_windows import DedupWindows, RepeatedAlert

LENGTH = 300.0


def kind(name: str = "x") -> Fingerprint:
    return Fingerprint("app", "", "app.py", 1, name)


def alert(name: str = "x", *, created: float = 5.0) -> Alert:
    return Alert(name, "f", created, "ERROR", "app", name)


def windows(*, digest: bool = True, shared: bool = False) -> DedupWindows:
    return DedupWindows(LENGTH, digest=digest, shared=shared)


def open_one(known: DedupWindows, name: str = "x", *, now: float = 0.0) -> None:
    assert known.admit(kind(name), now=now, at=now)
    known.remember(kind(name), alert(name))


def test_the_first_is_admitted_and_repetitions_are_told_when_the_window_ends() -> None:
    known = windows()
    open_one(known)
    assert not known.admit(kind(), now=1, at=101)
    assert not known.admit(kind(), now=2, at=102)
    assert known.due(now=299) == []
    assert known.due(now=300) == [RepeatedAlert(alert(), 2, 101, 102)]


def test_after_a_digest_the_window_begins_anew() -> None:
    known = windows()
    open_one(known)
    known.admit(kind(), now=10, at=110)
    known.due(now=300)
    assert not known.admit(kind(), now=301, at=401)
    assert known.due(now=599) == []
    assert known.due(now=600) == [RepeatedAlert(alert(), 1, 401, 401)]


def test_a_window_without_repetitions_closes_and_the_next_is_a_first_one() -> None:
    known = windows()
    open_one(known)
    assert known.due(now=300) == []
    assert known.next_end(now=300) is None
    assert known.admit(kind(), now=301, at=1)


def test_a_window_that_ended_unnoticed_without_repetitions_admits() -> None:
    known = windows()
    open_one(known)
    assert known.admit(kind(), now=300, at=1)
    assert not known.admit(kind(), now=599, at=1)


def test_a_window_that_ended_unnoticed_with_repetitions_waits_for_its_digest() -> None:
    known = windows()
    open_one(known)
    known.admit(kind(), now=1, at=101)
    assert not known.admit(kind(), now=1000, at=1100)
    assert known.due(now=1000) == [RepeatedAlert(alert(), 2, 101, 1100)]


def test_everything_is_told_on_demand_and_the_window_goes_on() -> None:
    known = windows()
    open_one(known)
    known.admit(kind(), now=1, at=101)
    assert known.due(now=2, everything=True) == [RepeatedAlert(alert(), 1, 101, 101)]
    assert known.due(now=3, everything=True) == []
    assert not known.admit(kind(), now=4, at=104)


def test_repetitions_are_not_told_before_the_alert_is_in_words() -> None:
    known = windows()
    known.admit(kind(), now=0, at=0)
    known.admit(kind(), now=1, at=101)
    assert known.due(now=2, everything=True) == []
    known.remember(kind(), alert())
    assert known.due(now=2, everything=True) == [RepeatedAlert(alert(), 1, 101, 101)]


def test_without_digests_the_next_alert_takes_the_repetitions() -> None:
    known = windows(digest=False)
    open_one(known)
    known.admit(kind(), now=1, at=101)
    known.admit(kind(), now=2, at=102)
    assert known.due(now=1000, everything=True) == []
    assert known.admit(kind(), now=1000, at=1100)
    assert known.take_repeats(kind()) == 2
    assert known.take_repeats(kind()) == 0


def test_a_length_of_zero_admits_everything() -> None:
    known = DedupWindows(0, digest=True, shared=False)
    assert all(known.admit(kind(), now=0, at=0) for _ in range(3))
    assert known.take_repeats(kind()) == 0
    assert known.next_end(now=0) is None


def test_a_forgotten_kind_is_new_again() -> None:
    known = windows()
    open_one(known)
    known.forget(kind())
    assert known.admit(kind(), now=1, at=1)
    known.forget(kind("never seen"))


def test_the_next_end_is_that_of_the_oldest_window() -> None:
    known = windows()
    open_one(known, "a", now=0)
    open_one(known, "b", now=100)
    assert known.next_end(now=100) == 200
    known.admit(kind("a"), now=110, at=1)
    known.due(now=300)  # "a" is told and begins anew, so "b" ends first
    assert known.next_end(now=300) == 100
    assert known.next_end(now=10_000) == 0


def test_windows_are_bounded_and_the_one_pushed_out_is_told() -> None:
    known = windows()
    for number in range(2000):
        open_one(known, f"k{number}", now=0)
    known.admit(kind("k0"), now=1, at=101)
    open_one(known, "one more", now=2)
    open_one(known, "and another", now=2)
    assert known.due(now=3) == [RepeatedAlert(alert("k0"), 1, 101, 101)]
    assert known.admit(kind("k0"), now=4, at=1)
    assert known.admit(kind("k1"), now=4, at=1)


def test_shared_windows_without_repetitions_are_looked_at_as_well() -> None:
    known = windows(shared=True)
    open_one(known)
    assert known.due(now=1, everything=True) == [RepeatedAlert(alert(), 0, 5.0, 5.0)]
    assert known.due(now=299) == []
    assert known.due(now=300) == [RepeatedAlert(alert(), 0, 5.0, 5.0)]
    assert known.next_end(now=300) is None


def test_what_another_process_told_counts_as_a_repetition() -> None:
    known = windows(shared=True)
    open_one(known)
    known.count(kind(), alert(created=100), now=1)
    assert known.due(now=300) == [RepeatedAlert(alert(), 1, 100, 100)]


def test_what_another_process_told_is_told_of_after_its_window_has_ended_too() -> None:
    known = windows(shared=True)
    open_one(known)
    assert known.due(now=300) == [RepeatedAlert(alert(), 0, 5.0, 5.0)]
    for created in (100, 200):
        known.count(kind(), alert(created=created), now=301)
    assert known.due(now=600) == []
    assert known.due(now=601) == [RepeatedAlert(alert(created=100), 2, 100, 200)]
    assert known.next_end(now=601) == LENGTH
