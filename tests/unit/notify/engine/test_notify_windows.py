from __future__ import annotations

from mks_hardening.notify.engine._alert import Alert, Fingerprint
from mks_hardening.notify.engine._deduplication import DedupWindows

LENGTH = 300.0


def kind(name: str = "x") -> Fingerprint:
    return Fingerprint("app", "", "app.py", 1, name)


def alert(name: str = "x", *, created: float = 5.0) -> Alert:
    return Alert(name, "f", created, "ERROR", "app", name)


def digest(repeated: Alert, number: int, first: float, last: float) -> Alert:
    return repeated._replace(digest=True, repeats=number, since=first, created=last)


def windows(*, digest: bool = True, shared: bool = False) -> DedupWindows:
    return DedupWindows(LENGTH, digest=digest, shared=shared)


def open_one(known: DedupWindows, name: str = "x", *, now: float = 0.0) -> None:
    assert known.admit(kind(name), now=now, at=now) == 0
    known.set_alert(kind(name), alert(name))


def test_the_first_is_admitted_and_repetitions_are_told_when_the_window_ends() -> None:
    known = windows()
    open_one(known)
    assert known.admit(kind(), now=1, at=101) is None
    assert known.admit(kind(), now=2, at=102) is None
    assert known.pop_digests(now=299) == []
    assert known.pop_digests(now=300) == [digest(alert(), 2, 101, 102)]


def test_a_window_without_repetitions_closes_and_the_next_is_a_first_one() -> None:
    known = windows()
    open_one(known)
    assert known.pop_digests(now=300) == []
    assert known.next_end(now=300) is None
    assert known.admit(kind(), now=301, at=1) == 0


def test_a_window_that_ended_unnoticed_with_repetitions_waits_for_its_digest() -> None:
    known = windows()
    open_one(known)
    known.admit(kind(), now=1, at=101)
    assert known.admit(kind(), now=1000, at=1100) is None
    assert known.pop_digests(now=1000) == [digest(alert(), 2, 101, 1100)]


def test_everything_is_told_on_demand_and_the_window_goes_on() -> None:
    known = windows()
    open_one(known)
    known.admit(kind(), now=1, at=101)
    assert known.pop_digests(now=2, everything=True) == [digest(alert(), 1, 101, 101)]
    assert known.pop_digests(now=3, everything=True) == []
    assert known.admit(kind(), now=4, at=104) is None


def test_repetitions_are_not_told_before_the_alert_is_in_words() -> None:
    known = windows()
    known.admit(kind(), now=0, at=0)
    known.admit(kind(), now=1, at=101)
    assert known.pop_digests(now=2, everything=True) == []
    known.set_alert(kind(), alert())
    assert known.pop_digests(now=2, everything=True) == [digest(alert(), 1, 101, 101)]


def test_without_digests_the_next_alert_takes_the_repetitions() -> None:
    known = windows(digest=False)
    open_one(known)
    known.admit(kind(), now=1, at=101)
    known.admit(kind(), now=2, at=102)
    assert known.pop_digests(now=1000, everything=True) == []
    assert known.admit(kind(), now=1000, at=1100) == 2
    assert known.admit(kind(), now=2000, at=2100) == 0


def test_without_digests_no_end_is_waited_for() -> None:
    known = windows(digest=False)
    open_one(known)
    known.admit(kind(), now=1, at=101)
    assert known.next_end(now=1000) is None


def test_a_length_of_zero_admits_everything() -> None:
    known = DedupWindows(0, digest=True, shared=False)
    assert all(known.admit(kind(), now=0, at=0) == 0 for _ in range(3))
    assert known.next_end(now=0) is None


def test_a_forgotten_kind_is_new_again() -> None:
    known = windows()
    open_one(known)
    known.discard(kind())
    assert known.admit(kind(), now=1, at=1) == 0
    known.discard(kind("never seen"))


def test_the_next_end_is_that_of_the_oldest_window() -> None:
    known = windows()
    open_one(known, "a", now=0)
    open_one(known, "b", now=100)
    assert known.next_end(now=100) == 200
    known.admit(kind("a"), now=110, at=1)
    known.pop_digests(now=300)  # "a" is told and begins anew, so "b" ends first
    assert known.next_end(now=300) == 100
    assert known.next_end(now=10_000) == 0


def test_windows_are_bounded_and_the_one_pushed_out_is_told() -> None:
    known = windows()
    for number in range(2000):
        open_one(known, f"k{number}", now=0)
    known.admit(kind("k0"), now=1, at=101)
    open_one(known, "one more", now=2)
    open_one(known, "and another", now=2)
    assert known.pop_digests(now=3) == [digest(alert("k0"), 1, 101, 101)]
    assert known.admit(kind("k0"), now=4, at=1) == 0
    assert known.admit(kind("k1"), now=4, at=1) == 0


def test_shared_windows_without_repetitions_are_looked_at_as_well() -> None:
    known = windows(shared=True)
    open_one(known)
    assert known.pop_digests(now=1, everything=True) == [digest(alert(), 0, 5.0, 5.0)]
    assert known.pop_digests(now=299) == []
    assert known.pop_digests(now=300) == [digest(alert(), 0, 5.0, 5.0)]
    assert known.next_end(now=300) is None


def test_what_another_process_told_counts_as_a_repetition() -> None:
    known = windows(shared=True)
    open_one(known)
    known.count_sent_elsewhere(kind(), alert(created=100), now=1)
    assert known.pop_digests(now=300) == [digest(alert(), 1, 100, 100)]


def test_what_another_process_told_is_told_of_after_its_window_has_ended_too() -> None:
    known = windows(shared=True)
    open_one(known)
    assert known.pop_digests(now=300) == [digest(alert(), 0, 5.0, 5.0)]
    for created in (100, 200):
        known.count_sent_elsewhere(kind(), alert(created=created), now=301)
    assert known.pop_digests(now=600) == []
    assert known.pop_digests(now=601) == [digest(alert(created=100), 2, 100, 200)]
    assert known.next_end(now=601) == LENGTH
