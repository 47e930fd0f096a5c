"""The windows against a model that keeps every occurrence."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mks_hardening.notify.engine._alert import Alert, Fingerprint
from mks_hardening.notify.engine._deduplication import DedupWindows

LENGTH = 10.0
NAMES = st.sampled_from("abc")


def kind(name: str) -> Fingerprint:
    return Fingerprint("app", "", "app.py", 1, name)


class WindowsMachine(RuleBasedStateMachine):
    """For each name: when it was last told of, and which repetitions came since then."""

    @initialize(digest=st.booleans())
    def begin(self, *, digest: bool) -> None:
        self.digest = digest
        self.windows = DedupWindows(LENGTH, digest=digest, shared=False)
        self.now = 0.0
        self.reported_at: dict[str, float] = {}
        self.since: dict[str, list[float]] = {}
        self.firsts = self.repetitions = self.reported = 0

    @rule(seconds=st.floats(0.01, 15))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=NAMES)
    def occur(self, name: str) -> None:
        unreported = self.windows.admit(kind(name), now=self.now, at=self.now)
        first = unreported is not None
        known = name in self.reported_at
        ended = known and self.now - self.reported_at[name] >= LENGTH
        assert first == (not known or (ended and not (self.digest and self.since[name])))
        if not first:
            self.repetitions += 1
            self.since[name].append(self.now)
            return
        self.firsts += 1
        self.reported_at[name] = self.now
        assert unreported == len(self.since.get(name, []))
        self.reported += len(self.since.get(name, []))
        self.since[name] = []
        self.windows.set_alert(kind(name), Alert(name, "f", self.now, "ERROR", "app", name))

    @rule(everything=st.booleans())
    def tell(self, *, everything: bool) -> None:
        due = self.windows.pop_digests(now=self.now, everything=everything)
        ended = {name for name, at in self.reported_at.items() if self.now - at >= LENGTH}
        wanted = {name for name in self.reported_at if self.since[name] and (everything or name in ended)}
        assert {digest.message for digest in due} == (wanted if self.digest else set())
        for digest in due:
            times = self.since[digest.message]
            assert (digest.repeats, digest.since, digest.created) == (len(times), times[0], times[-1])
            self.reported += digest.repeats
            self.since[digest.message] = []
            self.reported_at[digest.message] = self.now
        if everything:
            return
        for name in ended - wanted:
            if not self.since[name]:
                del self.reported_at[name], self.since[name]

    @invariant()
    def every_repetition_is_told_or_waits(self) -> None:
        assert self.repetitions == self.reported + sum(map(len, self.since.values()))

    @invariant()
    def the_next_end_is_known(self) -> None:
        end = self.windows.next_end(now=self.now)
        if not self.reported_at or not self.digest:
            assert end is None
        else:
            oldest = min(self.reported_at.values())
            assert end is not None
            assert abs(end - max(0.0, oldest + LENGTH - self.now)) < 1e-6


TestWindows = WindowsMachine.TestCase
