"""The life of one account as a state machine, against a model that knows the rules in plain words."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mks_hardening.exceptions import BackendUnavailableError, InvalidCodeError
from mks_hardening.security import (
    FailureBudget,
    MemoryTwoFactorStore,
    SecretBox,
    TwoFactorManager,
    generate_recovery_codes,
    totp_code,
)
from mks_hardening.testing import FrozenClock

ATTEMPTS, LOCK, GROWTH, MAX_LOCK, LIFETIME = 3, 60.0, 2, 200.0, 12
OLD, NEW = b"o" * 32, b"n" * 32
clients = st.sampled_from([None, "a", "b"])


class Faulty(MemoryTwoFactorStore):
    """Loses what it is asked to do before, or its answer after, the next write."""

    fault = ""

    def replace(self, user_id: Any, data: Any, /, *, expected: Any, version: Any) -> Any:
        fault, self.fault = self.fault, ""
        if fault == "before":
            raise BackendUnavailableError("store", "timeout")
        done = super().replace(user_id, data, expected=expected, version=version)
        if fault == "conflict":
            return False  # somebody else was first, as far as the manager can tell: it decides again
        if fault == "after":
            raise BackendUnavailableError("store", "timeout")
        return done


class Budget:
    """Failures in plain words."""

    def __init__(self) -> None:
        self.total = 0
        self.by_client = {}

    def locked(self, client: Any, now: Any) -> Any:
        entry = self.by_client.get(client)
        return self.total >= LIFETIME or (entry is not None and entry["until"] > now)

    def charge(self, client: Any, now: Any) -> None:
        self.total += 1
        entry = self.by_client.get(client) or {"wrong": 0, "locks": 0, "until": 0.0, "last": now}
        self.by_client = {
            name: other
            for name, other in self.by_client.items()
            if name == client or self.remembered(other, now)
        }
        entry["wrong"] += 1
        entry["last"] = now
        if entry["wrong"] >= ATTEMPTS:
            entry["until"] = now + min(MAX_LOCK, LOCK * GROWTH ** entry["locks"])
            entry["wrong"], entry["locks"] = 0, entry["locks"] + 1
        self.by_client[client] = entry

    def forgive(self, client: Any, now: Any) -> None:
        self.total = 0
        self.by_client = {
            name: entry
            for name, entry in self.by_client.items()
            if name != client and self.remembered(entry, now)
        }

    @staticmethod
    def remembered(entry: Any, now: Any) -> Any:
        return max(entry["last"], entry["until"]) + MAX_LOCK > now


class Account(RuleBasedStateMachine):
    @initialize(enrolled=st.booleans())
    def open(self, enrolled: bool) -> None:
        self.clock = FrozenClock(1_700_000_000.0)
        self.store = Faulty()
        self.keys = [OLD]
        self.rebuild()
        self.secret = self.pending = None
        self.pending_until = 0.0
        self.last_step = -1
        self.codes, self.used = set(), set()
        self.budget, self.enrolling = Budget(), Budget()
        self.latest = 0.0
        if enrolled:
            self.begin()
            self.confirm(drift=0)

    def rebuild(self) -> None:
        """As after a restart of the process, perhaps with other keys."""
        self.manager = TwoFactorManager(
            self.store,
            issuer="MKS",
            secret_box=SecretBox(self.keys),
            enrolment_ttl=100,
            failure_budget=FailureBudget(
                ATTEMPTS, lock=LOCK, growth=GROWTH, max_lock=MAX_LOCK, lifetime=LIFETIME
            ),
            clock=self.clock,
        )

    @property
    def now(self) -> Any:
        """What counts for everything that expires."""
        stored = self.store.load("u")
        if stored is not None:
            import json

            self.latest = json.loads(stored.data)["touched"]
        else:
            self.latest = 0.0
        return max(self.clock.time(), self.latest)

    @property
    def step(self) -> Any:
        return int(self.clock.time() // 30)

    def expected(self, step: Any, client: Any, now: Any) -> Any:
        """What the model says to a TOTP code of this step."""
        if self.secret is None:
            return "not_enrolled"
        if self.budget.locked(client, now):
            return "locked"
        if abs(step - self.step) > 1 or step < 0:
            return "wrong"
        return "replayed" if step <= self.last_step else ""

    # --- time and accidents

    @rule(seconds=st.sampled_from([0.5, 15, 30, 61, 250]))
    def time_passes(self, seconds: Any) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-45, -300, 45]))
    def the_wall_clock_is_set(self, seconds: Any) -> None:
        self.clock.step_wall(seconds)

    @rule()
    def the_process_restarts(self) -> None:
        self.rebuild()

    @precondition(lambda self: self.secret is not None)
    @rule(client=clients)
    def the_store_is_away(self, client: Any) -> None:
        """Nothing is answered, and nothing was used up when nothing was written."""
        step = max(self.last_step + 1, self.step)
        if self.expected(step, client, self.now) != "":
            return
        self.store.fault = "before"
        try:
            self.manager.verify("u", totp_code(self.secret, at=step * 30), client=client)
        except BackendUnavailableError:
            return
        raise AssertionError("a code was accepted that was not recorded")

    # --- enrolment

    @precondition(lambda self: self.secret is None and self.pending is None)
    @rule()
    def begin(self) -> None:
        now = self.now
        enrolment = self.manager.begin_enrolment("u", account_name="taro")
        self.pending, self.pending_until = enrolment.secret, now + 100

    @precondition(lambda self: self.pending is not None)
    @rule(drift=st.integers(-2, 2))
    def confirm(self, drift: int) -> None:
        now, step = self.now, self.step + drift
        reason = ""
        try:
            codes = self.manager.confirm_enrolment("u", totp_code(self.pending, at=step * 30))
        except InvalidCodeError as error:
            reason = error.reason
        if now >= self.pending_until:
            assert reason == "expired"
            self.pending = None
            return
        if self.enrolling.locked(None, now):
            assert reason == "locked"
            return
        assert reason == ("wrong" if abs(drift) > 1 else "")
        if reason:
            self.enrolling.charge(None, now)
            return
        self.secret, self.pending = self.pending, None
        self.last_step = step
        self.codes, self.used = set(codes), set()
        self.budget, self.enrolling = Budget(), Budget()

    # --- codes

    @precondition(lambda self: self.secret is not None)
    @rule(
        drift=st.sampled_from([-2, -1, 0, 0, 1, 1, 2]),
        client=clients,
        fault=st.sampled_from(["", "", "", "conflict"]),
    )
    def code(self, drift: int, client: Any, fault: Any) -> None:
        now, step = self.now, self.step + drift
        expected = self.expected(step, client, now)
        self.store.fault = fault if expected == "" else ""
        result = self.manager.verify("u", totp_code(self.secret, at=step * 30), client=client)
        if expected == "":
            # A write that was done but looked like a conflict: decided again, the code is burnt, nobody is let in.
            assert result.reason == ("replayed" if fault else "")
            self.last_step = step
            self.budget.forgive(client, now)
        else:
            assert result.reason == expected
            if expected == "wrong":
                self.budget.charge(client, now)

    @precondition(lambda self: self.secret is not None)
    @rule(client=clients, data=st.data())
    def recovery_code(self, client: Any, data: Any) -> None:
        now = self.now
        code = data.draw(st.sampled_from(sorted(self.codes | self.used)))
        result = self.manager.verify("u", code, client=client)
        if self.budget.locked(client, now):
            assert result.reason == "locked"
        elif code in self.codes:
            assert result
            self.codes.remove(code)
            self.used.add(code)
            self.budget.forgive(client, now)
        else:
            assert result.reason == "wrong"
            self.budget.charge(client, now)
        assert result.recovery_codes_left == len(self.codes)

    @precondition(lambda self: self.secret is not None)
    @rule(client=clients, times=st.integers(1, 5))
    def guesses(self, client: Any, times: Any) -> None:
        for _ in range(times):
            now = self.now
            expected = "locked" if self.budget.locked(client, now) else "wrong"
            result = self.manager.verify("u", generate_recovery_codes(1)[0], client=client)
            assert result.reason == expected
            if expected == "wrong":
                self.budget.charge(client, now)

    @precondition(lambda self: self.secret is not None and 0 < len(self.codes) < 8)
    @rule(data=st.data())
    def disable(self, data: Any) -> None:
        code = data.draw(st.sampled_from(sorted(self.codes)))
        locked = self.budget.locked(None, self.now)
        reason = ""
        try:
            self.manager.disable("u", proof=code)
        except InvalidCodeError as error:
            reason = error.reason
        assert reason == ("locked" if locked else "")
        if locked:
            return
        self.secret, self.last_step, self.pending = None, -1, None
        self.budget, self.enrolling = Budget(), Budget()

    @precondition(lambda self: self.budget.total > 4)
    @rule()
    def unlock(self) -> None:
        self.manager.unlock("u", actor="admin")
        self.budget, self.enrolling = Budget(), Budget()

    @rule()
    def rotate_keys(self) -> None:
        self.keys = [NEW, OLD] if self.keys[0] == OLD else [OLD, NEW]
        self.rebuild()
        progress = self.manager.reencrypt()
        assert progress.failed == 0
        self.keys = self.keys[:1]
        self.rebuild()

    # --- always

    @invariant()
    def status_agrees(self) -> None:
        if not hasattr(self, "manager"):
            return
        status = self.manager.status("u")
        assert status.enabled == (self.secret is not None)
        if status.enabled:
            assert status.recovery_codes_left == len(self.codes)
            assert status.locked == self.budget.locked(None, self.now)
            assert self.budget.total <= LIFETIME
        assert status.pending == (self.pending is not None and self.now < self.pending_until)


Account.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestAccount = Account.TestCase
