"""Purges, requests that fail in every way, restarts: no item is lost, and none is sent too early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mks_hardening.cache import BaseCDN, PurgeItem, PurgeQueue, PurgeResult
from mks_hardening.testing import FrozenClock

EVERYTHING = PurgeItem("everything", "*")
ITEMS = st.lists(
    st.sampled_from([PurgeItem("tags", tag) for tag in "abcd"] + [PurgeItem("hosts", "a.com")]),
    min_size=1,
    max_size=4,
    unique=True,
)
Outcome = Literal["done", "some fail", "busy", "refused", "raises"]
OUTCOMES = st.sampled_from(["done", "done", "some fail", "busy", "refused", "raises"])


class ScriptedCDN(BaseCDN):
    """Purges as it is told, and purges something else through the queue while a request is on its way."""

    def __init__(self) -> None:
        self.outcome: Outcome = "done"
        self.meanwhile: list[PurgeItem] = []
        self.sent: list[PurgeItem] = []
        self.purged: list[PurgeItem] = []
        self.refused: list[PurgeItem] = []
        self.purge_meanwhile = lambda _items: None

    def send_items(self, items: Sequence[PurgeItem]) -> PurgeResult:
        self.sent = [*items]
        outcome, self.outcome = self.outcome, "done"
        done = {"done": len(items), "some fail": len(items) // 2}.get(outcome, 0)
        self.purged = [*items[:done]]
        self.refused = [*items] if outcome == "refused" else []
        if self.meanwhile:
            more, self.meanwhile = self.meanwhile, []
            self.purge_meanwhile(more)
        if outcome == "raises":
            raise RuntimeError
        return PurgeResult.of_items(
            done=items[:done], failed=items[done:], retry_after=None if outcome == "refused" else 10
        )


class PurgeMachine(RuleBasedStateMachine):
    """``owed``: accepted since they were last purged, with everything that covers them, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock()
        self.folder = Path(mkdtemp())
        self.cdn = ScriptedCDN()
        self.owed: dict[PurgeItem, None] = {}
        self.during: list[PurgeItem] = []
        self.again_at = 0.0
        self._open()

    def _open(self) -> None:
        self.queue = PurgeQueue(
            self.cdn, window=1e9, max_items=4, max_age=1e9, clock=self.clock, spool=self.folder
        )
        self.cdn.purge_meanwhile = self._purge_meanwhile

    def _purge_meanwhile(self, items: Sequence[PurgeItem]) -> None:
        if self.queue.purge_items(items):
            self.during += items

    @rule(items=ITEMS)
    def purge(self, items: list[PurgeItem]) -> None:
        covered = EVERYTHING in self.owed
        new = [item for item in items if item not in self.owed]
        fits = covered or len(self.owed) + len(new) <= 4
        assert bool(self.queue.purge_items(items)) is fits
        if fits and not covered:
            self.owed.update(dict.fromkeys(items))

    @rule()
    def purge_everything(self) -> None:
        assert self.queue.purge_cache(purge_everything=True)
        self.owed = {EVERYTHING: None}

    @rule(outcome=OUTCOMES, meanwhile=st.one_of(st.just([]), ITEMS, st.just([EVERYTHING])))
    def send(self, outcome: Outcome, meanwhile: list[PurgeItem]) -> None:
        self.cdn.outcome, self.cdn.meanwhile = outcome, meanwhile
        self._sending(self.queue.flush)

    def _sending(self, send: object) -> None:
        may_send = bool(self.owed) and self.clock.monotonic() >= self.again_at
        before = [*self.owed]
        self.cdn.sent, self.cdn.purged, self.cdn.refused, self.during = [], [], [], []
        outcome = self.cdn.outcome
        send()  # type: ignore[operator]  # flush or close
        assert self.cdn.sent == (before if may_send else [])
        self.cdn.outcome, self.cdn.meanwhile = "done", []
        for item in [*self.cdn.purged, *self.cdn.refused]:
            self.owed.pop(item)
        if may_send and self.owed and outcome != "refused":
            self.again_at = self.clock.monotonic() + (30 if outcome == "raises" else 10)
        self.owed.update(dict.fromkeys(self.during))
        if EVERYTHING in self.owed:
            self.owed = {EVERYTHING: None}

    @rule(seconds=st.sampled_from([1, 10, 30]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(outcome=OUTCOMES)
    def restart(self, outcome: Outcome) -> None:
        self.cdn.outcome = outcome
        self._sending(self.queue.close)
        stats = self.queue.stats()
        assert (stats.pending, stats.spooled) == (0, len(self.owed))
        self._accounts()
        self.again_at = 0.0
        self._open()

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.queue.stats().pending == len(self.owed)
        self._accounts()

    def _accounts(self) -> None:
        stats = self.queue.stats()
        assert stats.queued == (stats.done + stats.merged + stats.dropped + stats.spooled + stats.pending)

    def teardown(self) -> None:
        self.cdn.outcome = "done"
        self.clock.advance(30)
        try:
            self._sending(self.queue.close)
            assert self.owed == {}
        finally:
            rmtree(self.folder)


TestPurges = PurgeMachine.TestCase
TestPurges.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
