"""The second factors of one account as a state machine, compared with a simple model of the rules.

Derive a class and say which stores it lives on.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mks_hardening.exceptions import BackendUnavailableError, InvalidCodeError
from mks_hardening.security import (
    FailureBudget,
    PasskeyAssertion,
    RelyingParty,
    SecretBox,
    TwoFactorManager,
    generate_recovery_codes,
    totp_code,
)
from mks_hardening.testing import FrozenClock
from soft_authenticator import Lies, SoftAuthenticator, b64

__all__ = ["Account"]

ATTEMPTS, LOCK, GROWTH, MAX_LOCK, LIFETIME = 3, 60.0, 2, 200.0, 12
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
clients = st.sampled_from([None, "a", "b"])


class Faulty:
    """A store that fails before the next write, or loses the response after it."""

    def __init__(self, store: Any) -> None:
        self.fault = ""
        self._store = store
        self.load, self.scan = store.load, store.scan

    def replace(self, user_id: Any, data: Any, /, *, expected: Any, version: Any) -> Any:
        fault, self.fault = self.fault, ""
        if fault == "before":
            raise BackendUnavailableError("store", "timeout")
        done = self._store.replace(user_id, data, expected=expected, version=version)
        if fault == "conflict":
            return False  # somebody else was first, as far as the manager can tell: it decides again
        if fault == "after":
            raise BackendUnavailableError("store", "timeout")
        return done


class Budget:
    """The failure budget, in the simplest form."""

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


def name_of(key: SoftAuthenticator) -> str:
    """Return the name in the list."""
    return b64(key.credentials[0].id)


class Account(RuleBasedStateMachine):
    def open_stores(self) -> tuple[Any, Any]:
        """Return new, empty stores of records and passkeys."""
        raise NotImplementedError

    @initialize(enrolled=st.booleans())
    def open(self, enrolled: bool) -> None:
        self.clock = FrozenClock(1_700_000_000.0)
        records, self.passkey_store = self.open_stores()
        self.store = Faulty(records)
        self.devices: dict[str, float] = {}
        self.keys_of: list[SoftAuthenticator] = []
        self.counters: dict[str, int] = {}
        self.sent: list[Any] = []
        self.keys = [OLD]
        self.rebuild()
        self.secret = self.pending = None
        self.pending_until = 0.0
        self.last_step = -1
        self.codes: set[str] = set()
        self.used: set[str] = set()
        self.budget = Budget()
        self.latest = 0.0
        if enrolled:
            self.begin()
            self.confirm(drift=0)

    def rebuild(self) -> None:
        """Restart the process, possibly with other keys."""
        self.manager = TwoFactorManager(
            self.store,
            issuer="MKS",
            secret_box=SecretBox(self.keys),
            enrolment_ttl=100,
            device_ttl=1000,
            relying_party=RelyingParty("example.com", name="MKS", origins=["https://example.com"]),
            passkey_store=self.passkey_store,
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

    @property
    def enabled(self) -> bool:
        return self.secret is not None or bool(self.keys_of)

    def turned_off(self) -> None:
        """All factors are gone."""
        self.secret, self.last_step, self.pending = None, -1, None
        self.budget, self.devices, self.codes, self.used = Budget(), {}, set(), set()
        self.keys_of.clear()

    def asserted(self, key: SoftAuthenticator, lies: Any = None) -> Any:
        asked = self.manager.passkeys.begin_verification("u", session="s")
        return PasskeyAssertion(key.get(asked.json, lies or Lies()), session="s")

    def proof(self) -> Any:
        """Verify with what is accepted despite all locks, and update the model."""
        if not self.enabled:
            return None
        now = self.now
        if self.keys_of:
            key = self.keys_of[0]
            proof = self.asserted(key)
            self.counters[name_of(key)] = key.credentials[0].count
        else:
            proof = min(self.codes, default=None)
            self.codes -= {proof}
            self.used |= {proof}
        if proof is not None:
            self.budget.forgive(None, now)
        return proof

    def expected(self, step: Any, client: Any, now: Any) -> Any:
        """Return the model's answer to a TOTP code of this step."""
        if self.secret is None:
            return "not_enrolled"
        if self.budget.locked(client, now):
            return "locked"
        if abs(step - self.step) > 1 or step < 0:
            return "wrong"
        return "replayed" if step <= self.last_step else ""

    # --- time and accidents

    @rule(seconds=st.sampled_from([0.5, 15, 30, 61, 250, 900]))
    def time_passes(self, seconds: Any) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-45, -300, 45]))
    def the_wall_clock_is_set(self, seconds: Any) -> None:
        """A record that is further ahead than hosts differ is moved to the clock that reads it."""
        self.clock.step_wall(seconds)
        ahead = self.now - self.clock.time()
        if ahead > 60:
            self.pending_until -= ahead
            for entry in self.budget.by_client.values():
                entry["until"] -= ahead
                entry["last"] -= ahead
            self.devices = {token: until - ahead for token, until in self.devices.items()}

    @rule()
    def the_process_restarts(self) -> None:
        self.rebuild()

    @precondition(lambda self: self.secret is not None)
    @rule(client=clients)
    def the_store_is_away(self, client: Any) -> None:
        """The store is unavailable: every call fails, and a failed write uses up nothing."""
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
        proof = self.proof()
        enrolment = self.manager.begin_enrolment("u", account_name="taro", proof=proof)
        self.pending, self.pending_until = enrolment.secret, now + 100

    @precondition(lambda self: self.pending is not None)
    @rule(drift=st.integers(-2, 2), client=clients)
    def confirm(self, drift: int, client: Any = None) -> None:
        now, step = self.now, self.step + drift
        reason = ""
        try:
            codes = self.manager.confirm_enrolment("u", totp_code(self.pending, at=step * 30), client=client)
        except InvalidCodeError as error:
            reason = error.reason
        if now >= self.pending_until:
            assert reason == "expired"
            self.pending = None
            return
        if self.budget.locked(client, now):
            assert reason == "locked"
            return
        assert reason == ("wrong" if abs(drift) > 1 else "")
        if reason:
            self.budget.charge(client, now)
            return
        self.secret, self.pending = self.pending, None
        self.last_step = step
        self.codes, self.used = set(codes), set()
        self.budget, self.devices = Budget(), {}

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
        if code in self.codes:  # passes every lock
            assert result
            self.codes.remove(code)
            self.used.add(code)
            self.budget.forgive(client, now)
        else:  # the owner's own, once more: known for what it is, never counted
            assert (result.reason, result.locked) == ("replayed", self.budget.locked(client, now))
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
        self.manager.disable("u", proof=code)
        self.turned_off()

    # --- devices

    @precondition(lambda self: self.enabled and len(self.devices) < 5)
    @rule()
    def remember(self) -> None:
        now = self.now
        self.devices[self.manager.remember_device("u", name="phone")] = now + 1000

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), revoke=st.booleans())
    def look_at_devices(self, data: Any, revoke: bool) -> None:
        now = self.now
        token = data.draw(st.sampled_from(sorted(self.devices, key=self.devices.__getitem__)))
        alive = now < self.devices[token]
        assert self.manager.check_device("u", token) == alive
        listed = self.manager.devices("u", token=token)
        assert len(listed) == sum(now < until for until in self.devices.values())
        current = [device for device in listed if device.current]
        assert len(current) == alive
        if revoke and alive:
            assert self.manager.revoke_device("u", current[0].id)
            assert not self.manager.check_device("u", token)
            del self.devices[token]

    # --- passkeys

    @precondition(lambda self: len(self.keys_of) < 3 and (self.keys_of or self.codes or not self.enabled))
    @rule(counts=st.booleans())
    def register(self, counts: bool) -> None:
        first, proof = not self.enabled, self.proof()
        key = SoftAuthenticator(counts=counts)
        asked = self.manager.passkeys.begin_registration("u", session="s", account_name="u", proof=proof)
        made = self.manager.passkeys.finish_registration("u", key.create(asked.json), session="s")
        assert (made.recovery_codes is not None) == first
        if made.recovery_codes is not None:
            self.codes, self.used = set(made.recovery_codes), set()
            self.pending = None  # nobody proved a right to it
        self.keys_of.append(key)
        self.counters[name_of(key)] = 0

    @precondition(lambda self: self.keys_of)
    @rule(client=clients, data=st.data(), lies=st.sampled_from([None, None, "origin", "count"]))
    def assertion(self, client: Any, data: Any, lies: Any) -> None:
        now = self.now
        key = data.draw(st.sampled_from(self.keys_of))
        found = {"origin": Lies(origin="https://evil.example"), "count": Lies(count=0), None: Lies()}
        sent = self.asserted(key, found[lies])
        reason = self.manager.verify("u", sent, client=client).reason
        if lies == "origin":
            assert reason == ("locked" if self.budget.locked(client, now) else "wrong")
            if reason == "wrong":
                self.budget.charge(client, now)
        elif lies == "count" and self.counters[name_of(key)] > 0:
            assert reason == "cloned"
        else:
            assert reason == ""  # passes every lock
            self.budget.forgive(client, now)
            self.counters[name_of(key)] = 0 if lies == "count" else key.credentials[0].count
        self.sent.append(sent)

    @precondition(lambda self: self.sent and self.enabled)
    @rule(data=st.data(), client=clients)
    def assertion_again(self, data: Any, client: Any) -> None:
        again = data.draw(st.sampled_from(self.sent))
        assert self.manager.verify("u", again, client=client).reason == "expired"

    @precondition(lambda self: self.keys_of)
    @rule()
    def revoke_passkey(self) -> None:
        name = self.manager.passkeys.list("u")[0].id
        assert self.manager.passkeys.revoke("u", name, proof=self.proof())
        self.keys_of = [key for key in self.keys_of if name_of(key) != name]
        self.pending = None  # it may have been begun with the proof of this passkey
        if not self.enabled:
            self.turned_off()

    @precondition(lambda self: self.budget.total > 4)
    @rule()
    def unlock(self) -> None:
        self.manager.unlock("u", actor="admin")
        self.budget = Budget()

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
        assert status.enabled == self.enabled
        assert (status.totp, status.passkeys) == (self.secret is not None, len(self.keys_of))
        if status.enabled:
            assert status.recovery_codes_left == len(self.codes)
            assert status.locked == self.budget.locked(None, self.now)
            assert self.budget.total <= LIFETIME
        assert status.pending == (self.pending is not None and self.now < self.pending_until)
