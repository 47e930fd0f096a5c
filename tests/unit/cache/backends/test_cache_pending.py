"""Invalidations that Redis has not received."""

import pytest

from mks_hardening.cache.backends import _pending_invalidations
from mks_hardening.cache.backends._pending_invalidations import Invalidation, PendingInvalidations

A: Invalidation = ("key", "a")
B: Invalidation = ("tag", "b")
C: Invalidation = ("pattern", "c*")


def test_a_key_that_is_written_is_not_pending() -> None:
    pending = PendingInvalidations("n")
    pending.add([A, B])
    pending.supersede([A, C])
    assert (list(pending.snapshot()), pending.changes) == ([B], 1)


def test_what_is_invalidated_again_while_it_is_flushed_stays_pending() -> None:
    pending = PendingInvalidations("n")
    pending.add([A, B])
    flushed = pending.snapshot()
    pending.add([B])
    pending.mark_flushed(flushed)
    assert (list(pending.snapshot()), pending.changes) == ([B], 1)


def test_more_invalidations_than_the_maximum_are_those_of_the_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_pending_invalidations, "_MOST", 2)
    pending = PendingInvalidations("n")
    pending.add([A, B, C])
    assert list(pending.snapshot()) == [("pattern", "*")]
    assert A not in pending
    assert pending.covers("anything", [])
