"""Whatever happens in whatever order: every record is in exactly one place, and every repetition is told once."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify import AlertPolicy, WebhookNotificationHandler
from mks_hardening.testing import FrozenClock, RecordingTransport

FAILURES = {
    "later": DeliveryError("http-503", temporary=True),
    "pause": DeliveryError("http-429", temporary=True, retry_after=7),
    "never": DeliveryError("http-404", temporary=False),
    "reset": ConnectionResetError(),
    "bug": ZeroDivisionError(),
}


class AccountingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock()
        self.folder: Path | None = None
        self.transports: list[RecordingTransport] = []
        self.logged = 0
        self.finished: Counter[str] = Counter()

    @initialize(
        spool=st.booleans(),
        digest=st.booleans(),
        max_queue=st.sampled_from([2, 1000]),
        retries=st.integers(0, 2),
        dedup_window=st.sampled_from([0, 30]),
    )
    def build_first(self, *, spool: bool, **policy: Any) -> None:
        self.folder = Path(tempfile.mkdtemp()) / "spool" if spool else None
        # All pauses are longer than the patience below, so that nothing waits for a clock that stands still.
        self.policy = AlertPolicy(rate=0.3, backoff=4, backoff_max=16, **policy)
        self._build()

    def _build(self) -> None:
        self.transports.append(RecordingTransport())
        self.logged = 0
        self.handler = WebhookNotificationHandler(
            "http://localhost/",
            transport=self.transports[-1],
            policy=self.policy,
            spool=self.folder,
            clock=self.clock,
        )
        self.log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
        self.log.addHandler(self.handler)

    @rule(kinds=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12))
    def write(self, kinds: list[str]) -> None:
        for kind in kinds:
            self.log.error("%s broke", kind)
        self.logged += len(kinds)

    @rule(seconds=st.floats(0.01, 40))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(kinds=st.lists(st.sampled_from(sorted(FAILURES)), max_size=4))
    def trouble_ahead(self, kinds: list[str]) -> None:
        self.transports[-1].failures = [FAILURES[kind] for kind in kinds]

    @rule()
    def settle(self) -> None:
        self.clock.advance(10)
        self.handler.flush(0.5)

    @rule()
    def restart(self) -> None:
        self._close()
        self._build()

    def _close(self) -> None:
        self.settle()
        self.handler.close(1)
        stats = self.handler.stats()
        assert stats.pending == 0
        self.finished.update(asdict(stats))

    @invariant()
    def the_sums_add_up(self) -> None:
        stats = self.handler.stats()
        assert stats.logged == self.logged
        ends = stats.delivered + stats.suppressed + stats.spooled + stats.dropped
        assert stats.logged == ends + stats.pending
        assert min(asdict(stats).values()) >= 0

    def teardown(self) -> None:
        if not self.transports:
            return
        self.transports[-1].failures = []
        self._close()
        alerts = [
            alert
            for transport in self.transports
            for message in transport.messages
            for alert in json.loads(message.body)["alerts"]
        ]
        files = list(self.folder.glob("*.json")) if self.folder else []
        kept = [json.loads(file.read_text()) for file in files]
        if self.folder:
            shutil.rmtree(self.folder.parent)
        self._check(alerts, kept)

    def _check(self, alerts: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
        sums = self.finished
        firsts = [alert["id"] for alert in alerts if not alert["digest"]]
        waiting = [alert["id"] for alert in kept if not alert["digest"]]
        replayed = len(firsts) - sums["delivered"]
        assert 0 <= replayed <= sums["replayed"]
        assert len(waiting) == sums["spooled"] - replayed
        assert len({*firsts, *waiting}) == len(firsts) + len(waiting)
        reported = sum(alert["repeats"] for alert in alerts + kept)
        assert reported <= sums["suppressed"]
        if self.policy.digest and self.folder:
            assert reported == sums["suppressed"]


TestAccounting = AccountingMachine.TestCase
TestAccounting.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
