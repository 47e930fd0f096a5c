"""Sign-in compared with a simple model of its rules, over any store."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import (
    SignInClient,
    SignInStep,
    VerificationResult,
    generate_recovery_codes,
)
from sign_in_scenario import RIGHT, Scenario

LIMITS = {
    "auth_login": "3 per minute",
    "auth_login_address": "5 per minute",
    "auth_login_network": "7 per minute",
    "auth_login_account": "6 per 10 minute",
    "auth_login_device": "2 per minute",
    "auth_2fa_verify": "3 per minute",
    "auth_password_reset": "9 per minute",
    "auth_password_reset_address": "9 per minute",
}
QUOTAS = {
    group: (int(text.split()[0]), 600.0 if "10 minute" in text else 60.0) for group, text in LIMITS.items()
}
ADDRESSES = ("192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1")
NAMES = {"tanaka": "1", "sato": "2", "gone": "3"}

names = st.sampled_from(["tanaka", "tanaka", "sato", "gone", "nobody"])
addresses = st.sampled_from(ADDRESSES)


class Verifier:
    """Any second factor: words that work once. A store that is away is played by ``fault``."""

    def __init__(self) -> None:
        self.recovery = list(generate_recovery_codes(10))
        self.used: set[str] = set()
        self.owners = {"1"}
        self.fault = False

    def status(self, user_id: str, /) -> Any:
        class Standing(NamedTuple):
            enabled: bool

        return Standing(user_id in self.owners)

    def verify(self, user_id: str, code: str, /, *, client: str | None = None) -> VerificationResult:
        if self.fault:
            raise BackendUnavailableError("factors", "timeout")
        if user_id not in self.owners:
            return VerificationResult(ok=False, reason="not_enrolled")
        if code in self.used:
            return VerificationResult(ok=False, reason="replayed")
        if code.startswith("right") or code in self.recovery:
            self.used.add(code)
            return VerificationResult(ok=True, method="recovery" if code in self.recovery else "totp")
        return VerificationResult(ok=False, reason="wrong")

    def unlock(self, user_id: str, *, actor: str) -> bool:
        return False

    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        found = user_id in self.owners
        self.owners.discard(user_id)
        return found


class Typed(NamedTuple):
    """What a user enters, and where."""

    name: str
    address: str
    right: bool
    remember: bool


class Held(NamedTuple):
    """A challenge that a client has."""

    token: str
    user_id: str
    address: str
    password: str
    until: float


class SignInModel(RuleBasedStateMachine):
    """Four addresses, two of them in one network; three accounts and an unknown name."""

    def make_store(self) -> Any:
        raise NotImplementedError

    @initialize()
    def open(self) -> None:
        self.verifier = Verifier()
        self.scenario = Scenario(limits=LIMITS, factors=self.verifier, store=self.make_store())
        self.clock = self.scenario.clock
        self.failed: dict[tuple[str, str], list[float]] = {}
        self.passwords = dict.fromkeys(NAMES.values(), RIGHT)
        self.held: list[Held] = []
        self.spent: list[Held] = []
        self.devices: list[tuple[str, str, str]] = []
        self.quiet_until: dict[str, float] = {}
        self.notices = 0
        self.started = 0
        self.sessions = 0
        self.number = 0

    # --- the rules in plain words

    def full(self, row: tuple[str, str]) -> bool:
        quota, window = QUOTAS[row[0]]
        return sum(self.now - moment < window for moment in self.failed.get(row, [])) >= quota

    def charge(self, *rows: tuple[str, str]) -> None:
        for row in rows:
            self.failed.setdefault(row, []).append(self.now)

    @property
    def now(self) -> float:
        return self.clock.time()

    def device_of(self, token: str | None, user_id: str | None) -> str | None:
        """Return the device if it is known for this account and its current password."""
        for known, owner, password in self.devices:
            if known == token and owner == user_id and self.passwords[owner] == password:
                return token
        return None

    # --- what happens

    @rule(seconds=st.sampled_from([0.5, 7, 31, 61, 301, 601]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        typed=st.builds(Typed, names, addresses, st.booleans(), st.booleans()),
        with_device=st.booleans(),
        with_recovery=st.booleans(),
        times=st.sampled_from([1, 1, 1, 4]),
        data=st.data(),
    )
    def password(self, typed: Typed, with_device: bool, with_recovery: bool, times: int, data: Any) -> None:
        for _ in range(times):
            user_id = NAMES.get(typed.name)
            token = data.draw(st.sampled_from(self.devices))[0] if with_device and self.devices else None
            fresh = [code for code in self.verifier.recovery if code not in self.verifier.used]
            code = fresh[0] if with_recovery and fresh else None
            session = self.scenario.browser()
            step = self.scenario.sign_in.password(
                typed.name,
                self.passwords.get(user_id or "", RIGHT) if typed.right else "guess",
                client=SignInClient(address=typed.address, device=token),
                session=session,
                recovery_code=code,
                remember=typed.remember,
            )
            self.check_password(step, session, typed, self.device_of(token, user_id), code)

    def check_password(
        self, step: SignInStep, session: Any, typed: Typed, device: str | None, code: str | None
    ) -> None:
        name, address, right, _ = typed
        user_id = NAMES.get(name)
        rows = [
            ("auth_login_network", "192.0.2" if address.startswith("192.0.2") else address),
            ("auth_login_address", address),
            ("auth_login", f"{address} {name}"),
        ]
        if device is not None:
            rows = [("auth_login_device", device)]
        if any(self.full(row) for row in rows):
            assert step.state == "limited"
            assert step.retry_after
            return
        account = ("auth_login_account", name)
        locked = device is None and self.full(account)
        well = user_id is not None and user_id != "3" and right
        passed = locked and well and code is not None and user_id in self.verifier.owners
        if not well or (locked and not passed):
            assert step == SignInStep(state="refused")
            assert session.user_id is None
            self.charge(*rows, *([] if locked or device is not None else [account]))
            if (
                device is None
                and not locked
                and self.full(account)
                and self.quiet_until.get(name, 0.0) <= self.now
            ):
                self.quiet_until[name] = self.now + 600
                self.notices += user_id is not None
            return
        assert user_id is not None
        if passed:
            self.failed.pop(account, None)
            self.quiet_until.pop(name, None)
        if user_id in self.verifier.owners and not passed:
            assert step.state == "challenged"
            assert session.user_id is None
            assert step.challenge is not None
            self.held.append(Held(step.challenge, user_id, address, self.passwords[user_id], self.now + 300))
            return
        assert step.state == "done"
        assert step.amr == (("pwd", "otp", "mfa") if passed else ("pwd",))
        self.signed_in(step, session, user_id)

    def signed_in(self, step: SignInStep, session: Any, user_id: str) -> None:
        assert (session.user_id, step.user_id, step.auth_time) == (user_id, user_id, self.now)
        self.started += 1
        if step.device is not None:
            self.devices.append((step.device, user_id, self.passwords[user_id]))

    @precondition(lambda self: self.held or self.spent)
    @rule(
        kind=st.sampled_from(["right", "right", "wrong", "wrong", "recovery", "replayed", ""]),
        elsewhere=st.booleans(), remember=st.booleans(), times=st.sampled_from([1, 1, 4]), data=st.data(),
    )  # fmt: skip
    def factor(self, kind: str, elsewhere: bool, remember: bool, times: int, data: Any) -> None:
        held = data.draw(st.sampled_from([*self.held, *self.spent]))
        address = next(one for one in ADDRESSES if one != held.address) if elsewhere else held.address
        for _ in range(times):
            self.number += 1
            code = {"right": f"right {self.number}", "wrong": "guess", "": ""}.get(kind, "")
            if kind == "recovery":
                code = next(
                    code for code in [*self.verifier.recovery, "none"] if code not in self.verifier.used
                )
            if kind == "replayed":
                code = next(iter(self.verifier.used), "")
            session = self.scenario.browser()
            step = self.scenario.sign_in.second_factor(
                held.token, code, client=SignInClient(address=address), session=session, remember=remember
            )
            self.check_factor(step, session, held, address, code)

    def check_factor(self, step: SignInStep, session: Any, held: Held, address: str, code: str) -> None:
        user_id = held.user_id
        alive = held in self.held and self.now < held.until and address == held.address
        if not alive or self.passwords[user_id] != held.password:
            assert step == SignInStep(state="expired")
            assert session.user_id is None
            return
        rows = [
            ("auth_login_network", "192.0.2" if address.startswith("192.0.2") else address),
            ("auth_login_address", address),
            ("auth_2fa_verify", f"{address} {user_id}"),
        ]
        if any(self.full(row) for row in rows):
            assert step.state == "limited"
        elif user_id not in self.verifier.owners and code:
            assert step.state == "expired"
        elif step:
            assert code.startswith("right") or code in self.verifier.recovery
            self.held.remove(held)
            self.spent.append(held)
            self.signed_in(step, session, user_id)
            return
        else:
            assert step.state == "refused"
            assert not code.startswith("right") or code in self.verifier.used
            if code and code not in self.verifier.used:
                self.charge(*rows)
        assert session.user_id is None

    @rule(user_id=st.sampled_from(["1", "2"]))
    def the_password_changes(self, user_id: str) -> None:
        self.number += 1
        self.passwords[user_id] = f"sentence {self.number}"
        self.scenario.people.change(user_id, password_hash=f"h:{self.passwords[user_id]}", stamp="")

    @rule(name=st.sampled_from(["tanaka", "sato"]))
    def somebody_unlocks(self, name: str) -> None:
        was_notified = self.quiet_until.pop(name, 0.0) > self.now
        assert self.scenario.sign_in.unlock(NAMES[name], actor="ito", reason="asked") is was_notified
        self.failed.pop(("auth_login_account", name), None)
        self.notices += 1

    @rule()
    def the_factor_is_taken_off(self) -> None:
        on = "1" in self.verifier.owners
        assert self.scenario.sign_in.admin_reset("1", actor="ito", reason="lost") is on
        self.failed.pop(("auth_login_account", "tanaka"), None)
        self.quiet_until.pop("tanaka", None)
        self.devices = [device for device in self.devices if device[1] != "1"]
        self.notices += 1

    @rule()
    def the_factor_is_on_again(self) -> None:
        self.verifier.owners.add("1")

    @rule(address=addresses, right=st.booleans())
    def the_accounts_are_away(self, address: str, right: bool) -> None:
        """The accounts are unavailable: every call fails, and nothing is counted."""
        self.scenario.people.fault = BackendUnavailableError("accounts", "timeout")
        try:
            step = self.scenario.sign_in.password(
                "tanaka", RIGHT if right else "guess", client=SignInClient(address=address)
            )
        except BackendUnavailableError:
            return
        finally:
            self.scenario.people.fault = None
        assert step.state == "limited"

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def the_factors_are_away(self, data: Any) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.verifier.fault = True
        try:
            step = self.scenario.sign_in.second_factor(
                held.token,
                "right",
                client=SignInClient(address=held.address),
                session=self.scenario.browser(),
            )
        except BackendUnavailableError:
            return
        finally:
            self.verifier.fault = False
        assert not step

    # --- what always holds

    @invariant()
    def nobody_has_a_session_but_who_signed_in(self) -> None:
        alive = sum(session.user_id is not None for session in self.scenario.sessions)
        assert alive <= self.started

    @invariant()
    def owners_are_told_once_for_each_lock(self) -> None:
        assert len(self.scenario.notices) == self.notices
