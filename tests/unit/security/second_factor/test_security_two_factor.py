import asyncio
import hashlib
import hmac
import json
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, astuple
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening.events import add_observer, remove_observer
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    DecodeError,
    InvalidCodeError,
)
from mks_hardening.security import (
    FailureBudget,
    MemoryTwoFactorStore,
    SecretBox,
    TwoFactorManager,
    generate_recovery_codes,
    totp_code,
)
from mks_hardening.security.second_factor._factor_record import (
    DeviceRecord,
    FactorRecord,
    PendingSecret,
    decode_record,
    encode_record,
)
from mks_hardening.security.second_factor.codes.recovery_codes import hash_recovery_code
from mks_hardening.security.second_factor.failure_budget import NO_FAILURES, ClientFailures, Failures
from mks_hardening.testing import FrozenClock

OLD_KEY, NEW_KEY = bytes(range(32)), bytes(range(32, 64))
START = 1_700_000_010.0


class Scenario:
    """A manager with its store, clock and one enrolled user."""

    def __init__(self, **options: Any) -> None:
        self.clock = FrozenClock(START)
        self.store = options.pop("store", None) or MemoryTwoFactorStore()
        self.manager = TwoFactorManager(
            self.store, issuer="現場", secret_box=SecretBox(NEW_KEY), clock=self.clock, **options
        )
        enrolment = self.manager.begin_enrolment("u", account_name="taro")
        self.secret = enrolment.secret
        self.codes = self.manager.confirm_enrolment("u", self.code())
        self.clock.advance(30)

    def code(self, drift: int = 0, secret: Any = None) -> Any:
        return totp_code(secret or self.secret, at=self.clock.time() + 30 * drift)

    def wrong(self) -> Any:
        return next(
            text
            for text in (f"{number:06}" for number in range(10))
            if text not in {self.code(drift) for drift in (-1, 0, 1)}
        )

    def verify(self, code: Any, **options: Any) -> Any:
        return self.manager.verify("u", code, **options)

    def fail(self, times: Any, **options: Any) -> Any:
        return [self.verify(self.wrong(), **options).reason for _ in range(times)]


@pytest.fixture
def scenario() -> Any:
    return Scenario()


@pytest.fixture
def seen() -> Iterator[Any]:
    events = []
    add_observer(events.append)
    yield events
    remove_observer(events.append)


# --- enrolment -----------------------------------------------------------------------------------


def fresh(**options: Any) -> Any:
    clock = FrozenClock(START)
    return TwoFactorManager(
        MemoryTwoFactorStore(), issuer="MKS", secret_box=SecretBox(NEW_KEY), clock=clock, **options
    ), clock


def test_enrolment_is_on_only_after_its_first_code() -> None:
    manager, _ = fresh()
    assert astuple(manager.status("u")) == (False, False, False, None, 0, False, False, 0)
    enrolment = manager.begin_enrolment("u", account_name="taro")
    assert enrolment.expires_at == START + 600
    assert enrolment.qr_code.startswith("data:image/png;base64,")
    assert not manager.status("u").enabled
    assert manager.status("u").pending
    assert manager.verify("u", totp_code(enrolment.secret, at=START)).reason == "not_enrolled"
    codes = manager.confirm_enrolment("u", totp_code(enrolment.secret, at=START))
    assert len(codes) == 10
    assert astuple(manager.status("u")) == (True, False, False, None, 10, False, True, 0)
    assert manager.verified_within("u", 0)


def test_a_wrong_code_at_confirmation_leaves_the_pending_secret() -> None:
    manager, _ = fresh()
    enrolment = manager.begin_enrolment("u", account_name="taro")
    for code, reason in (("000000", "wrong"), ("12345", "malformed"), ("", "malformed"), (None, "malformed")):
        with pytest.raises(InvalidCodeError) as caught:
            manager.confirm_enrolment("u", code)
        assert caught.value.reason == reason
    assert manager.confirm_enrolment("u", totp_code(enrolment.secret, at=START))


def test_confirmation_has_a_budget() -> None:
    manager, clock = fresh()
    enrolment = manager.begin_enrolment("u", account_name="taro")
    right = totp_code(enrolment.secret, at=START)
    wrong = "000000" if right != "000000" else "000001"
    reasons = []
    for _ in range(7):
        with pytest.raises(InvalidCodeError) as caught:
            manager.confirm_enrolment("u", wrong)
        reasons.append(caught.value.reason)
    assert reasons == ["wrong"] * 5 + ["locked"] * 2
    assert caught.value.retry_after == 300
    with pytest.raises(InvalidCodeError, match="locked"):
        manager.confirm_enrolment("u", right)
    enrolment = manager.begin_enrolment("u", account_name="taro")  # a new secret is no way around
    with pytest.raises(InvalidCodeError, match="locked"):
        manager.confirm_enrolment("u", totp_code(enrolment.secret, at=START))
    clock.advance(300)
    assert manager.confirm_enrolment("u", totp_code(enrolment.secret, at=clock.time()))


def test_confirmation_and_codes_share_one_budget_by_client() -> None:
    """Neither is a way around the other, and one client's guesses are not another's."""
    scenario = Scenario()
    new = scenario.manager.begin_enrolment("u", account_name="taro", proof=scenario.code())
    scenario.clock.advance(30)
    scenario.fail(3, client="office")
    for _ in range(2):
        with pytest.raises(InvalidCodeError, match="wrong"):
            scenario.manager.confirm_enrolment("u", wrong_for(scenario, new.secret), client="office")
    assert scenario.verify(scenario.code(), client="office").reason == "locked"
    with pytest.raises(InvalidCodeError, match="locked") as caught:
        scenario.manager.confirm_enrolment("u", scenario.code(secret=new.secret), client="office")
    assert caught.value.retry_after == 300
    assert scenario.manager.confirm_enrolment("u", scenario.code(secret=new.secret), client="home")


def wrong_for(scenario: Scenario, secret: str) -> str:
    near = {scenario.code(drift, secret) for drift in (-1, 0, 1)}
    return next(text for text in ("000000", "000001", "000002", "000003") if text not in near)


def test_a_pending_secret_expires_and_a_clock_set_back_does_not_revive_it() -> None:
    manager, clock = fresh()
    enrolment = manager.begin_enrolment("u", account_name="taro")
    clock.advance(599.9)
    assert manager.status("u").pending
    clock.advance(0.1)
    assert not manager.status("u").pending
    with pytest.raises(InvalidCodeError, match="expired"):
        manager.confirm_enrolment("u", totp_code(enrolment.secret, at=clock.time()))
    clock.step_wall(-300)
    with pytest.raises(InvalidCodeError, match="no_enrolment"):
        manager.confirm_enrolment("u", totp_code(enrolment.secret, at=clock.time()))


def test_cancel() -> None:
    manager, _ = fresh()
    assert not manager.cancel_enrolment("u")
    enrolment = manager.begin_enrolment("u", account_name="taro")
    assert manager.cancel_enrolment("u")
    with pytest.raises(InvalidCodeError, match="no_enrolment"):
        manager.confirm_enrolment("u", totp_code(enrolment.secret, at=START))


def test_the_confirming_code_is_used_up(scenario: Scenario) -> None:
    manager, _ = fresh()
    enrolment = manager.begin_enrolment("u", account_name="taro")
    code = totp_code(enrolment.secret, at=START)
    manager.confirm_enrolment("u", code)
    assert manager.verify("u", code).reason == "replayed"


def test_replacing_a_factor_needs_proof_and_keeps_the_old_one_until_confirmed(scenario: Scenario) -> None:
    for proof in (None, "", "000000" if scenario.code() != "000000" else "000001"):
        with pytest.raises(InvalidCodeError):
            scenario.manager.begin_enrolment("u", account_name="taro", proof=proof)
    new = scenario.manager.begin_enrolment("u", account_name="taro", proof=scenario.code())
    scenario.clock.advance(30)
    assert scenario.verify(scenario.code())
    token = scenario.manager.remember_device("u")
    scenario.clock.advance(30)
    codes = scenario.manager.confirm_enrolment("u", scenario.code(secret=new.secret))
    scenario.clock.advance(30)
    assert not scenario.verify(scenario.code())
    assert not scenario.verify(scenario.codes[0])
    assert not scenario.manager.check_device("u", token)
    assert scenario.verify(scenario.code(secret=new.secret))
    assert scenario.verify(codes[0])


# --- codes ---------------------------------------------------------------------------------------


def test_a_code_works_once(scenario: Scenario) -> None:
    code = scenario.code()
    result = scenario.verify(code)
    assert result
    assert astuple(result)[:-1] == (True, "totp", "", None, 10, False, False)
    again = scenario.verify(code)
    assert not again
    assert (again.method, again.reason) == ("totp", "replayed")


def test_an_older_step_is_refused_after_a_newer_one(scenario: Scenario) -> None:
    assert scenario.verify(scenario.code(+1))
    assert scenario.verify(scenario.code(0)).reason == "replayed"
    assert scenario.verify(scenario.code(-1)).reason == "replayed"


def test_a_clock_set_back_does_not_revive_a_code(scenario: Scenario) -> None:
    code = scenario.code()
    assert scenario.verify(code)
    scenario.clock.step_wall(-30)
    assert scenario.verify(code).reason == "replayed"


@pytest.mark.parametrize("form", ["{} {}", " {}{}", "{}{}  ", "  {} {} "])
def test_blanks_as_apps_show_them_are_read(scenario: Scenario, form: str) -> None:
    code = scenario.code()
    assert scenario.verify(form.format(code[:3], code[3:]))
    assert scenario.verify(code).reason == "replayed"  # one code, however it is typed
    enrolment = scenario.manager.begin_enrolment("v", account_name="taro")
    code = scenario.code(secret=enrolment.secret)
    assert scenario.manager.confirm_enrolment("v", form.format(code[:3], code[3:]))


@pytest.mark.parametrize(
    "form",
    [
        "{0}  {1}",
        "{0}-{1}",
        "{0}\u3000{1}",
        "{0}\n{1}",
        "{0}{1}\n",
        "{0}{1}0",
        "+{0}{1}",
        "{0}_{1}",
        " " * 9 + "{0}{1}",
    ],
)
def test_everything_else_is_malformed_and_not_counted(scenario: Scenario, form: str) -> None:
    code = scenario.code()
    for _ in range(10):
        assert scenario.verify(form.format(code[:3], code[3:])).reason == "malformed"
    assert scenario.verify("１２３４５６").reason == "malformed"
    assert scenario.verify(code)


def test_replays_and_malformed_codes_are_not_counted(scenario: Scenario) -> None:
    code = scenario.code()
    assert scenario.verify(code)
    assert scenario.verify(scenario.codes[0])
    for _ in range(30):
        assert scenario.verify(code).reason == "replayed"
        assert (
            scenario.verify(scenario.codes[0]).reason == "replayed"
        )  # a double click, or a list read from the top
        assert scenario.verify("12345").reason == "malformed"
        assert scenario.verify(None).reason == "malformed"
    scenario.clock.advance(30)
    assert scenario.verify(scenario.code())


def test_recovery_codes_work_once_and_are_counted_down(scenario: Scenario) -> None:
    low = []
    for left in range(9, -1, -1):
        code = scenario.codes[left].lower().replace("-", " ")
        assert astuple(scenario.verify(code))[:-1] == (True, "recovery", "", None, left, False, False)
        again = scenario.verify(code)
        assert (again.method, again.reason) == ("recovery", "replayed")
        low.append(scenario.manager.status("u").recovery_codes_low)
    assert low == [False] * 6 + [True] * 4
    assert scenario.manager.status("u").recovery_codes_left == 0


@pytest.mark.parametrize(
    ("methods", "totp", "recovery"),
    [(("totp",), True, False), (("recovery",), False, True), ((), False, False)],
)
def test_methods(scenario: Scenario, methods: Any, totp: Any, recovery: Any) -> None:
    assert bool(scenario.verify(scenario.code(), methods=methods)) == totp
    assert bool(scenario.verify(scenario.codes[0], methods=methods)) == recovery


def test_the_secret_of_another_user_is_of_no_use(scenario: Scenario) -> None:
    enrolment = scenario.manager.begin_enrolment("v", account_name="hana")
    scenario.manager.confirm_enrolment("v", scenario.code(secret=enrolment.secret))
    scenario.clock.advance(30)
    assert not scenario.verify(scenario.code(secret=enrolment.secret))
    moved = scenario.store.load("v")
    mine = scenario.store.load("u")
    assert scenario.store.replace("u", moved.data, expected=mine.version, version="x")
    with pytest.raises(DecodeError):
        scenario.verify(scenario.code(secret=enrolment.secret))


# --- failure budget ------------------------------------------------------------------------------


def test_one_budget_over_both_methods(scenario: Scenario) -> None:
    assert scenario.fail(3) == ["wrong"] * 3
    strange = list(generate_recovery_codes(2))
    assert scenario.verify(strange[0]).reason == "wrong"
    last = scenario.verify(strange[1])
    assert (last.reason, last.retry_after, last.locked) == ("wrong", 300, True)
    for code in (scenario.code(), strange[0], "no code"):
        refused = scenario.verify(code)
        assert (refused.reason, refused.retry_after, refused.locked) == ("locked", 300, True)
    assert scenario.manager.status("u").locked


def test_no_lock_holds_the_owners_recovery_code_back(scenario: Scenario) -> None:
    """120 bits are not guessed; without this, whoever knows the password keeps the owner out for ever."""
    scenario.fail(5)
    assert scenario.verify(scenario.code()).reason == "locked"
    assert scenario.verify(scenario.codes[0]).method == "recovery"
    assert scenario.verify(scenario.code())
    scenario.fail(4)
    for number in range(200):
        scenario.verify(scenario.wrong(), client=f"2001:db8:{number:x}::/64")
    scenario.clock.advance(30 * 86400)
    assert scenario.verify(scenario.code()).reason == "locked"
    used = scenario.verify(scenario.codes[0])
    assert (used.reason, used.locked) == ("replayed", True)
    assert scenario.verify(scenario.codes[1], methods=["totp"]).reason == "locked"
    assert scenario.verify(scenario.codes[1])
    assert scenario.verify(scenario.code())


def test_a_proof_by_recovery_code_passes_a_lock(scenario: Scenario) -> None:
    scenario.fail(5)
    assert len(scenario.manager.regenerate_recovery_codes("u", proof=scenario.codes[0])) == 10


def test_a_remembered_device_is_not_locked_by_the_guesses_of_others(scenario: Scenario) -> None:
    device = scenario.manager.remember_device("u")
    for number in range(200):
        scenario.verify(scenario.wrong(), client=f"2001:db8:{number:x}::/64")
    scenario.fail(20, client="office")
    assert scenario.verify(scenario.code(), client="office").reason == "locked"
    assert scenario.verify(scenario.code(), client="office", device="x" * 43).reason == "locked"
    assert scenario.verify(scenario.code(), client="office", device=device)
    assert (
        scenario.verify(scenario.wrong(), client="elsewhere").reason == "wrong"
    )  # success cleared the account


def test_a_device_that_guesses_is_forgotten(scenario: Scenario) -> None:
    device, other = scenario.manager.remember_device("u"), scenario.manager.remember_device("u")
    for number in range(200):
        scenario.verify(scenario.wrong(), client=f"2001:db8:{number:x}::/64")
    reasons = scenario.fail(6, device=device)
    assert reasons == ["wrong"] * 5 + ["locked"]
    assert not scenario.manager.check_device("u", device)
    scenario.clock.advance(86400)
    assert scenario.verify(scenario.code(), device=device).retry_after is None
    assert scenario.manager.check_device("u", other)
    assert scenario.verify(scenario.code(), device=other)


def test_a_device_that_has_expired_is_nobody(scenario: Scenario) -> None:
    device = scenario.manager.remember_device("u")
    for number in range(200):
        scenario.verify(scenario.wrong(), client=f"2001:db8:{number:x}::/64")
    scenario.clock.advance(30 * 86400)
    assert scenario.verify(scenario.code(), device=device).reason == "locked"


@pytest.mark.parametrize("device", [7, b"x", "", "x" * 129, "\udc80"])
def test_a_device_that_is_no_token_is_nobody(scenario: Scenario, device: Any) -> None:
    assert scenario.verify(scenario.wrong(), device=device).reason == "wrong"
    assert scenario.verify(scenario.code(), device=device)


def test_locks_grow_up_to_the_longest(scenario: Scenario) -> None:
    locks = []
    for _ in range(6):
        scenario.fail(4)
        locks.append(scenario.verify(scenario.wrong()).retry_after)
        scenario.clock.advance(locks[-1])
    assert locks == [300, 600, 1200, 2400, 3600, 3600]
    assert scenario.verify(scenario.code())
    scenario.fail(4)
    assert scenario.verify(scenario.wrong()).retry_after == 300


def test_a_bot_that_is_locked_for_the_four_hundredth_time_is_locked() -> None:
    budget = FailureBudget(1, growth=10)
    before = Failures(0, (ClientFailures("bot", 0, 400, 0.0, 0.0),))
    lock = budget.lock_of(budget.charged(before, "bot", 0.0), "bot", 0.0)
    assert lock is not None
    assert lock.retry_after == 3600


def test_success_clears_the_count(scenario: Scenario) -> None:
    scenario.fail(4)
    assert scenario.verify(scenario.code())
    assert scenario.fail(4) == ["wrong"] * 4
    scenario.clock.advance(30)
    assert scenario.verify(scenario.code())


def test_a_clock_set_back_does_not_lift_a_lock_and_set_forward_does(scenario: Scenario) -> None:
    scenario.fail(5)
    scenario.clock.step_wall(-3600)
    assert scenario.verify(scenario.code()).retry_after == 300
    scenario.clock.advance(299)
    assert scenario.verify(scenario.code()).retry_after == 1
    scenario.clock.step_wall(1)
    assert (
        scenario.verify(scenario.code()).reason == "replayed"
    )  # no lock, but the step was used an hour later


DAY = 86400


def test_a_lock_of_a_clock_that_ran_ahead_is_not_waited_for(scenario: Scenario) -> None:
    scenario.clock.step_wall(DAY)
    scenario.fail(5)
    scenario.clock.step_wall(-DAY)
    assert scenario.manager.status("u").retry_after == 300
    scenario.clock.advance(200)
    assert scenario.manager.status("u").retry_after == 100
    assert scenario.verify(scenario.code()).retry_after == 100
    scenario.clock.advance(100)
    assert scenario.verify(scenario.code())


def test_what_a_clock_that_ran_ahead_wrote_ends_when_it_should(scenario: Scenario) -> None:
    manager, clock = scenario.manager, scenario.clock
    clock.step_wall(DAY)
    device = manager.remember_device("u")
    manager.begin_enrolment("u", account_name="taro", proof=scenario.codes[0])
    clock.step_wall(-DAY)
    assert manager.verified_within("u", 0)
    clock.advance(599)
    assert manager.status("u").pending
    assert not manager.verified_within("u", 598)
    clock.advance(1)
    assert not manager.status("u").pending
    clock.advance(30 * DAY - 601)
    assert manager.check_device("u", device)
    clock.advance(1)
    assert not manager.check_device("u", device)


def test_a_used_step_stays_used_whatever_the_clock_does(scenario: Scenario) -> None:
    code = scenario.code()
    assert scenario.verify(code)
    scenario.clock.step_wall(DAY)
    scenario.fail(1)
    scenario.clock.step_wall(-DAY)
    assert scenario.verify(code).reason == "replayed"


def test_hosts_that_differ_by_seconds_share_the_later_time(scenario: Scenario) -> None:
    scenario.fail(5)
    scenario.clock.step_wall(-60)
    assert scenario.manager.status("u").retry_after == 300
    scenario.clock.step_wall(59)
    assert scenario.manager.status("u").retry_after == 300
    scenario.clock.step_wall(2)
    assert scenario.manager.status("u").retry_after == 299


def test_an_attacker_on_one_address_does_not_lock_the_owner_out_on_another(scenario: Scenario) -> None:
    for _ in range(1_000):
        scenario.verify(scenario.wrong(), client="203.0.113.9")
    assert scenario.verify(scenario.code(), client="203.0.113.9").reason == "locked"
    assert scenario.manager.status("u", client="203.0.113.9").locked
    assert not scenario.manager.status("u", client="198.51.100.1").locked
    assert scenario.verify(scenario.code(), client="198.51.100.1")
    scenario.clock.advance(30)
    assert scenario.verify(scenario.code(), client="203.0.113.9").reason == "locked"


def test_the_lifetime_cap_holds_over_all_clients_until_unlocked(scenario: Scenario) -> None:
    reasons = scenario.fail(4)
    for number in range(200):
        reasons.append(scenario.verify(scenario.wrong(), client=f"2001:db8:{number:x}::/64").reason)
    assert reasons.count("wrong") == 100
    assert reasons[100:] == ["locked"] * 104
    scenario.clock.advance(10 * 365 * 86400)
    result = scenario.verify(scenario.code(), client="anywhere")
    assert (result.reason, result.retry_after, result.locked) == ("locked", None, True)
    assert scenario.manager.status("u").retry_after is None
    assert scenario.manager.unlock("u", actor="admin")
    assert not scenario.manager.unlock("u", actor="admin")
    assert scenario.verify(scenario.code(), client="anywhere")


def test_the_record_stays_small_whatever_an_attacker_does(scenario: Scenario) -> None:
    for number in range(300):
        scenario.verify(scenario.wrong(), client=f"client {number}")
        if number % 90 == 0:
            scenario.manager.verify("u", scenario.codes[number // 90])
    assert len(scenario.store.load("u").data) < 20_000


def test_clients_are_not_stored_in_clear(scenario: Scenario) -> None:
    scenario.verify(scenario.wrong(), client="203.0.113.9")
    assert b"203.0.113.9" not in scenario.store.load("u").data


def test_parallel_guesses_do_not_exceed_the_budget() -> None:
    scenario = Scenario()
    barrier = threading.Barrier(16)
    wrong = scenario.wrong()

    def guess(_: Any) -> Any:
        barrier.wait()
        return [scenario.verify(wrong).reason for _ in range(10)]

    with ThreadPoolExecutor(16) as pool:
        reasons = [reason for some in pool.map(guess, range(16)) for reason in some]
    assert reasons.count("wrong") == 5
    assert reasons.count("locked") == 155


def test_one_code_in_parallel_works_once() -> None:
    scenario = Scenario()
    barrier = threading.Barrier(16)
    code = scenario.code()

    def use(_: Any) -> Any:
        barrier.wait()
        return bool(scenario.verify(code)), bool(scenario.verify(scenario.codes[0]))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(use, range(16)))
    assert sum(first for first, _ in answers) == 1
    assert sum(second for _, second in answers) == 1


# --- with proof ----------------------------------------------------------------------------------


def test_regenerate_needs_a_code_and_voids_the_former_ones(scenario: Scenario) -> None:
    with pytest.raises(InvalidCodeError) as caught:
        scenario.manager.regenerate_recovery_codes("u", proof=scenario.wrong())
    assert caught.value.reason == "wrong"
    codes = scenario.manager.regenerate_recovery_codes("u", proof=scenario.code())
    assert scenario.verify(scenario.codes[0]).reason == "wrong"
    assert scenario.verify(codes[0])
    again = scenario.manager.regenerate_recovery_codes("u", proof=codes[1])
    assert scenario.manager.status("u").recovery_codes_left == 10
    assert scenario.verify(again[0])


def test_disable_needs_a_code_and_forgets_everything(scenario: Scenario) -> None:
    token = scenario.manager.remember_device("u")
    with pytest.raises(InvalidCodeError):
        scenario.manager.disable("u", proof=scenario.wrong())
    assert scenario.manager.status("u").enabled
    scenario.manager.disable("u", proof=scenario.code())
    assert not scenario.manager.status("u").enabled
    assert not scenario.manager.check_device("u", token)
    assert not scenario.manager.verified_within("u", 3600)
    assert scenario.store.load("u") is None


def test_proofs_share_the_failure_budget(scenario: Scenario) -> None:
    for _ in range(5):
        with pytest.raises(InvalidCodeError):
            scenario.manager.disable("u", proof=scenario.wrong())
    with pytest.raises(InvalidCodeError) as caught:
        scenario.manager.regenerate_recovery_codes("u", proof=scenario.code())
    assert (caught.value.reason, caught.value.retry_after) == ("locked", 300)
    assert scenario.verify(scenario.code()).reason == "locked"


def test_admin_reset(scenario: Scenario, seen: list[Any]) -> None:
    assert scenario.manager.admin_reset("u", actor="admin", reason="phone lost, checked by telephone")
    assert not scenario.manager.status("u").enabled
    assert not scenario.manager.admin_reset("u", actor="admin", reason="again")
    assert seen[0] == events.TwoFactorEvent("reset", "u", "", "phone lost, checked by telephone", "admin")


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_administration_needs_names(scenario: Scenario, blank: Any) -> None:
    with pytest.raises(ConfigurationError):
        scenario.manager.unlock("u", actor=blank)
    with pytest.raises(ConfigurationError):
        scenario.manager.admin_reset("u", actor=blank, reason="r")
    with pytest.raises(ConfigurationError):
        scenario.manager.admin_reset("u", actor="a", reason=blank)
    with pytest.raises(ConfigurationError):
        scenario.manager.status(blank)


@pytest.mark.parametrize("user_id", ["x" * 256, "a\0b", "\udc80", 7])
def test_user_ids_that_a_store_could_not_keep(scenario: Scenario, user_id: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        scenario.manager.status(user_id)
    assert caught.value.parameter == "user_id"


# --- freshness and devices -----------------------------------------------------------------------


def test_verified_within(scenario: Scenario) -> None:
    assert scenario.verify(scenario.code())
    assert scenario.manager.verified_within("u", 0)
    scenario.clock.advance(60)
    assert scenario.manager.verified_within("u", 60)
    assert not scenario.manager.verified_within("u", 59)
    scenario.clock.step_wall(-50)
    scenario.fail(1)
    assert scenario.manager.verified_within("u", 20)
    assert not scenario.manager.verified_within("nobody", 1e9)


def test_a_clock_set_back_does_not_make_a_verification_fresh(scenario: Scenario) -> None:
    assert scenario.verify(scenario.code())
    scenario.clock.advance(600)
    scenario.fail(1)
    scenario.clock.step_wall(-590)
    assert not scenario.manager.verified_within("u", 60)


def test_devices(scenario: Scenario) -> None:
    token = scenario.manager.remember_device("u")
    assert token.encode() not in scenario.store.load("u").data
    assert scenario.manager.check_device("u", token)
    for other in (None, "", "x", token + "x", 1, "x" * 500):
        assert not scenario.manager.check_device("u", other)
    assert not scenario.manager.check_device("v", token)
    scenario.clock.advance(30 * 86400)
    assert not scenario.manager.check_device("u", token)


def test_devices_are_listed_named_and_revoked_one_by_one(scenario: Scenario) -> None:
    tokens = []
    for name in ("Firefox, 事務所", "", " phone "):
        tokens.append(scenario.manager.remember_device("u", name=name))
        scenario.clock.advance(60)
    phone, nameless, office = scenario.manager.devices("u", token=tokens[0])
    assert [device.name for device in (phone, nameless, office)] == ["phone", "", "Firefox, 事務所"]
    assert [device.current for device in (phone, nameless, office)] == [False, False, True]
    assert office.created_at == office.used_at == START + 30
    assert office.expires_at == START + 30 + 30 * 86400
    assert not any(token in repr((phone, nameless, office)) for token in tokens)
    assert scenario.manager.rename_device("u", nameless.id, name="tablet")
    assert not scenario.manager.rename_device("u", "nothing", name="x")
    assert scenario.manager.devices("u")[1].name == "tablet"
    assert scenario.manager.revoke_device("u", phone.id)
    assert not scenario.manager.revoke_device("u", phone.id)
    assert not scenario.manager.revoke_device("v", office.id)  # of another user
    assert [scenario.manager.check_device("u", token) for token in tokens] == [True, True, False]
    scenario.clock.advance(30 * 86400)
    assert scenario.manager.devices("u", token=tokens[0]) == ()
    assert not scenario.manager.revoke_device("u", office.id)


def test_the_last_use_of_a_device_is_kept_by_the_day(scenario: Scenario) -> None:
    token = scenario.manager.remember_device("u")
    writes = []
    scenario.clock.advance(86400)
    for seconds in (0, 1, 86400, 1):
        scenario.clock.advance(seconds)
        assert scenario.manager.check_device("u", token)
        writes.append(scenario.manager.devices("u")[0].used_at - START - 30)
    assert writes == [0, 86401, 86401, 172802]


@pytest.mark.parametrize("name", ["a\nb", "x" * 65, "\u202e", None, 7, "\udc80"])
def test_names_that_would_garble_a_list(scenario: Scenario, name: Any) -> None:
    scenario.manager.remember_device("u", name="x" * 64)
    (device,) = scenario.manager.devices("u")
    for call in (
        lambda: scenario.manager.remember_device("u", name=name),
        lambda: scenario.manager.rename_device("u", device.id, name=name),
    ):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert caught.value.parameter == "name"
    assert scenario.manager.devices("u") == (device,)


@pytest.mark.parametrize("strange", [None, 7, b"x", "", "x" * 500, "\udc80", ["x"]])
def test_ids_and_tokens_that_are_none(scenario: Scenario, strange: Any) -> None:
    scenario.manager.remember_device("u")
    assert not scenario.manager.revoke_device("u", strange)
    assert not scenario.manager.rename_device("u", strange, name="x")
    assert [device.current for device in scenario.manager.devices("u", token=strange)] == [False]


def test_forget_devices(scenario: Scenario) -> None:
    tokens = [scenario.manager.remember_device("u") for _ in range(3)]
    assert scenario.manager.forget_devices("u") == 3
    assert not any(scenario.manager.check_device("u", token) for token in tokens)
    assert scenario.manager.forget_devices("u") == 0


def test_the_device_that_expires_first_gives_way() -> None:
    scenario = Scenario(max_devices=2)
    tokens = []
    for _ in range(4):
        tokens.append(scenario.manager.remember_device("u"))
        scenario.clock.advance(1)
    assert [scenario.manager.check_device("u", token) for token in tokens] == [False, False, True, True]


def test_only_enrolled_users_have_devices() -> None:
    manager, _ = fresh()
    with pytest.raises(InvalidCodeError, match="not_enrolled"):
        manager.remember_device("u")


# --- keys ----------------------------------------------------------------------------------------


def test_reencryption_is_resumable_and_nobody_is_locked_out() -> None:
    store, clock = MemoryTwoFactorStore(), FrozenClock(START)

    def manager(*keys: Any) -> Any:
        return TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(keys), clock=clock)

    secrets = {}
    for number in range(7):
        user = f"u{number}"
        secrets[user] = manager(OLD_KEY).begin_enrolment(user, account_name=user).secret
        if number != 3:  # one stays pending
            manager(OLD_KEY).confirm_enrolment(user, totp_code(secrets[user], at=clock.time()))
    both = manager(NEW_KEY, OLD_KEY)
    first = both.reencrypt(batch=3)
    assert astuple(first) == (3, 3, 0, "u2")
    progress = both.reencrypt(batch=3, cursor=first.cursor)
    assert (progress.examined, progress.changed) == (3, 3)
    progress = both.reencrypt(batch=3, cursor=progress.cursor)
    assert astuple(progress) == (1, 1, 0, None)
    assert astuple(both.reencrypt(batch=100)) == (7, 0, 0, None)
    clock.advance(30)
    new = manager(NEW_KEY)
    assert new.confirm_enrolment("u3", totp_code(secrets["u3"], at=clock.time()))
    clock.advance(30)
    for user, secret in secrets.items():
        assert new.verify(user, totp_code(secret, at=clock.time()))


def test_reencryption_goes_past_what_it_cannot_read(scenario: Scenario, seen: list[Any]) -> None:
    scenario.store.replace("damaged", b"{", expected=None, version="1")
    other = TwoFactorManager(
        scenario.store, issuer="MKS", secret_box=SecretBox(OLD_KEY), clock=scenario.clock
    )
    assert astuple(other.reencrypt()) == (2, 0, 2, None)
    assert [event.change for event in seen] == ["reencryption_failed"] * 2


# --- what is stored and shown --------------------------------------------------------------------


def test_nothing_secret_is_stored_in_clear(scenario: Scenario) -> None:
    data = scenario.store.load("u").data.decode()
    assert scenario.secret not in data
    for code in scenario.codes:
        assert code not in data
        assert code.replace("-", "") not in data


def test_repr_hides_secrets() -> None:
    manager, _ = fresh()
    enrolment = manager.begin_enrolment("u", account_name="taro")
    shown = f"{enrolment!r} {manager!r} {FailureBudget()!r}"
    assert enrolment.secret not in shown
    assert "taro" not in shown


def test_a_stolen_database_recognises_no_code_and_no_device(scenario: Scenario) -> None:
    """What stands in the record is keyed, and the key is sealed: a guess cannot even be checked."""
    token = scenario.manager.remember_device("u")
    record = decode_record(scenario.store.load("u").data)
    plain = {hash_recovery_code(code.replace("-", ""), salt=record.salt) for code in scenario.codes}
    plain.add(hashlib.sha256(f"u\0{token}".encode()).hexdigest())
    assert not plain & {*record.recovery, *(device.digest for device in record.devices)}
    stranger = TwoFactorManager(
        scenario.store, issuer="MKS", secret_box=SecretBox(OLD_KEY), clock=scenario.clock
    )
    for call in (
        lambda: stranger.verify("u", scenario.codes[0]),
        lambda: stranger.check_device("u", token),
    ):
        with pytest.raises(DecodeError):
            call()


@pytest.mark.parametrize("number", [1, 10])
def test_a_recovery_code_is_one_look_up_whatever_their_number(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for code in scenario.codes[number:]:
        scenario.verify(code)
    digests, hashed = [], hmac.digest
    monkeypatch.setattr(hmac, "digest", lambda *args: digests.append(args) or hashed(*args))
    assert scenario.verify(generate_recovery_codes(1)[0]).reason == "wrong"
    assert len(digests) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"v":1,"secret":5,"x":1}',
        b'{"v":1,"failures":3}',
        b"\xff",
        b'{"x":1}',
        b"[" * 5000,
    ],
)
def test_a_damaged_record_is_never_taken_for_no_second_factor(scenario: Scenario, data: Any) -> None:
    stored = scenario.store.load("u")
    scenario.store.replace("u", data, expected=stored.version, version="x")
    for call in (lambda: scenario.verify(scenario.code()), lambda: scenario.manager.status("u")):
        with pytest.raises(DecodeError) as caught:
            call()
        assert not caught.value.newer
    assert scenario.manager.admin_reset("u", actor="admin", reason="damaged")


FIRST_RELEASE = (
    b'{"v":1,"secret":"s","last_step":7,"salt":"00","recovery":["a","b"],"verified_at":1.5,"pending":["p",2.5],'
    b'"failures":[3,[["c",1,2,3.5,4.5],["e",1,0,9.5,9.5]]],"enrolment_failures":[2,[["",2,0,0.0,8.5],["e",0,1,5.5,5.5]]],'
    b'"devices":[["0123456789abcdef01",5.5]],"touched":6.5}'
)


def test_a_record_written_by_the_first_release_stays_readable() -> None:
    record = decode_record(FIRST_RELEASE)
    assert record == FactorRecord(
        secret="s",
        last_step=7,
        salt="00",
        recovery=frozenset({"a", "b"}),
        verified_at=1.5,
        pending=PendingSecret("p", 2.5),
        failures=Failures(
            5,
            (
                ClientFailures("", 2, 0, 0.0, 8.5),
                ClientFailures("e", 1, 0, 9.5, 9.5),
                ClientFailures("c", 1, 2, 3.5, 4.5),
            ),
        ),
        devices=(DeviceRecord("0123456789abcdef01", 5.5, "0123456789abcdef"),),
        touched=6.5,
    )
    assert decode_record(encode_record(record)) == record


def written_by_the_first_release(scenario: Scenario, token: str) -> None:
    """The record of "u" as the first release kept it: plain hashes, no key."""
    stored = scenario.store.load("u")
    record = decode_record(stored.data)
    hashes = [hash_recovery_code(code.replace("-", ""), salt=record.salt) for code in scenario.codes]
    fields = {
        "v": 1,
        "secret": record.secret,
        "last_step": record.last_step,
        "salt": record.salt,
        "recovery": hashes,
        "verified_at": None,
        "pending": None,
        "failures": [0, []],
        "enrolment_failures": [0, []],
        "devices": [[hashlib.sha256(f"u\0{token}".encode()).hexdigest(), START + 9_999_999]],
        "touched": record.touched,
    }
    assert scenario.store.replace("u", json.dumps(fields).encode(), expected=stored.version, version="first")


@pytest.mark.parametrize("first", ["code", "recovery", "device", "reencrypt", "rename"])
def test_codes_and_devices_of_the_first_release_go_on_working(scenario: Scenario, first: str) -> None:
    written_by_the_first_release(scenario, "token")
    (shown,) = scenario.manager.devices("u", token="token")
    assert (shown.current, shown.name, shown.created_at) == (True, "", None)
    if first == "code":
        assert scenario.verify(scenario.code(), device="token")
    elif first == "recovery":
        assert scenario.verify(scenario.codes[9])
    elif first == "device":
        assert scenario.manager.check_device("u", "token")
    elif first == "rename":
        assert scenario.manager.rename_device("u", shown.id, name="事務所")
    else:
        assert scenario.manager.reencrypt().changed == 1
        assert scenario.manager.reencrypt().changed == 0
    assert json.loads(scenario.store.load("u").data)["v"] == 2
    for code in scenario.codes[:9]:
        assert scenario.verify(code)
        assert scenario.verify(code).reason == "replayed"
    assert scenario.manager.check_device("u", "token")
    assert not scenario.manager.check_device("u", "another")
    assert scenario.manager.revoke_device("u", shown.id)
    assert not scenario.manager.check_device("u", "token")


def test_a_record_of_a_newer_version_is_left_alone(scenario: Scenario) -> None:
    stored = scenario.store.load("u")
    fields = json.loads(stored.data) | {"v": 3, "news": 1}
    scenario.store.replace("u", json.dumps(fields).encode(), expected=stored.version, version="x")
    with pytest.raises(DecodeError) as caught:
        scenario.verify(scenario.code())
    assert caught.value.newer


# --- outages and conflicts -----------------------------------------------------------------------


class Away:
    def load(self, user_id: Any, /) -> None:
        raise BackendUnavailableError("store", "refused")

    def replace(self, user_id: Any, data: Any, /, *, expected: Any, version: Any) -> None:
        raise BackendUnavailableError("store", "refused")


class ReadOnly(MemoryTwoFactorStore):
    frozen = False

    def replace(self, user_id: Any, data: Any, /, *, expected: Any, version: Any) -> Any:
        if self.frozen:
            raise BackendUnavailableError("store", "readonly")
        return super().replace(user_id, data, expected=expected, version=version)


class Contended(MemoryTwoFactorStore):
    refuse = 0

    def replace(self, user_id: Any, data: Any, /, *, expected: Any, version: Any) -> Any:
        if self.refuse:
            self.refuse -= 1
            return False
        return super().replace(user_id, data, expected=expected, version=version)


def test_a_store_that_is_away_lets_nobody_in() -> None:
    manager = TwoFactorManager(Away(), issuer="MKS", secret_box=SecretBox(NEW_KEY))
    for call in (
        lambda: manager.verify("u", "123456"),
        lambda: manager.status("u"),
        lambda: manager.check_device("u", "token"),
        lambda: manager.begin_enrolment("u", account_name="a"),
        lambda: manager.admin_reset("u", actor="a", reason="r"),
    ):
        with pytest.raises(BackendUnavailableError):
            call()


def test_a_right_code_that_cannot_be_recorded_is_not_accepted() -> None:
    scenario = Scenario(store=ReadOnly())
    scenario.store.frozen = True
    for code in (scenario.code(), scenario.wrong(), scenario.codes[0]):
        with pytest.raises(BackendUnavailableError):
            scenario.verify(code)
    scenario.store.frozen = False
    assert scenario.verify(scenario.code())


def test_conflicts_are_borne_up_to_a_limit() -> None:
    scenario = Scenario(store=Contended())
    scenario.store.refuse = 10
    assert scenario.verify(scenario.code())
    scenario.clock.advance(30)
    scenario.store.refuse = 1000
    with pytest.raises(BackendUnavailableError, match="busy"):
        scenario.verify(scenario.code())


# --- from another library ------------------------------------------------------------------------


def test_an_adopted_secret_is_on_at_once_and_refuses_the_code_used_last(seen: list[Any]) -> None:
    scenario = Scenario()
    step = int(scenario.clock.time() // 30)
    spelled = f"{scenario.secret[:8].lower()} {scenario.secret[8:]}=="
    assert scenario.manager.adopt_secret("v", spelled, last_step=step)
    assert [(event.change, event.user_id, event.reason) for event in seen][-1] == ("enrolled", "v", "adopted")
    assert scenario.manager.verify("v", scenario.code()).reason == "replayed"
    assert scenario.manager.verify("v", scenario.code(1))
    status = scenario.manager.status("v")
    assert (status.enabled, status.recovery_codes_left) == (True, 0)
    scenario.clock.advance(60)
    assert len(scenario.manager.regenerate_recovery_codes("v", proof=scenario.code())) == 10


def test_an_import_that_is_run_again_changes_nothing(scenario: Scenario) -> None:
    other = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    scenario.manager.begin_enrolment("v", account_name="jiro")
    assert scenario.manager.adopt_secret("v", other)
    assert not scenario.manager.cancel_enrolment("v")  # what was shown before is worth nothing
    assert not scenario.manager.adopt_secret("v", scenario.secret)
    assert not scenario.manager.adopt_secret("u", other)
    assert scenario.verify(scenario.code())
    assert scenario.manager.verify("v", scenario.code(secret=other))


@pytest.mark.parametrize(
    ("secret", "step"),
    [
        ("too short", -1),
        ("JBSWY3DP", -1),
        (b"x" * 20, -1),
        ("A" * 32, -2),
        ("A" * 32, 1.5),
        ("A" * 32, int(START)),  # a wall time: no code would work for thousands of years
        ("A" * 32, int(START // 30) + 100),
    ],
)
def test_what_is_no_secret_is_not_adopted(scenario: Scenario, secret: Any, step: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        scenario.manager.adopt_secret("v", secret, last_step=step)
    assert str(secret) not in str(caught.value)
    assert not scenario.manager.status("v").enabled


@pytest.mark.parametrize("methods", [["TOTP"], ["totp", "sms"], "totp", [7]])
def test_a_method_that_there_is_not_is_refused_by_name(scenario: Scenario, methods: Any) -> None:
    """It would refuse every code of everybody."""
    with pytest.raises(ConfigurationError) as caught:
        scenario.manager.verify("u", scenario.code(), methods=methods)
    assert caught.value.parameter == "methods"


@pytest.mark.parametrize(
    ("parameter", "value"), [("batch", 0), ("batch", True), ("batch", 1.5), ("cursor", 7), ("cursor", b"u")]
)
def test_an_impossible_batch_is_refused_by_name(scenario: Scenario, parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        scenario.manager.reencrypt(**{parameter: value})
    assert caught.value.parameter == parameter


# --- events and parameters -----------------------------------------------------------------------


def test_events_tell_the_story(seen: list[Any]) -> None:
    scenario = Scenario(failure_budget=FailureBudget(attempts=2))
    scenario.fail(3)
    scenario.manager.unlock("u", actor="admin")
    for code in scenario.codes[:7]:
        scenario.verify(code)
    scenario.manager.disable("u", proof=scenario.code())
    story = [(event.change, event.method, event.reason) for event in seen]
    assert story[:6] == [
        ("enrolment_begun", "", ""),
        ("enrolled", "", ""),
        ("refused", "totp", "wrong"),
        ("refused", "totp", "wrong"),
        ("locked", "totp", ""),
        ("refused", "", "locked"),
    ]
    assert story[6] == ("unlocked", "", "")
    assert story[7:15] == [("verified", "recovery", "")] * 7 + [("recovery_codes_low", "", "")]
    assert story[15:] == [("disabled", "", "")]
    assert scenario.secret not in repr(seen)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("issuer", "a:b"),
        ("drift_window", 3),
        ("drift_window", -1),
        ("enrolment_ttl", 0),
        ("recovery_codes", 7),
        ("recovery_codes", 21),
        ("low_water", -1),
        ("max_devices", 0),
        ("max_devices", 101),
        ("low_water", 21),
        ("device_ttl", "1d"),
    ],
)
def test_impossible_parameters(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TwoFactorManager(
            MemoryTwoFactorStore(), **{"issuer": "MKS", "secret_box": SecretBox(NEW_KEY), parameter: value}
        )
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    "given",
    [
        {"drift_window": 0, "recovery_codes": 8, "low_water": 0, "max_devices": 1},
        {"drift_window": 2, "recovery_codes": 20, "low_water": 20, "max_devices": 100},
    ],
)
def test_parameters_at_the_edge_of_what_is_possible(given: Any) -> None:
    scenario = Scenario(**given)
    assert len(scenario.codes) == given["recovery_codes"]
    assert bool(scenario.verify(scenario.code(given["drift_window"])))
    assert scenario.manager.status("u").recovery_codes_low == (given["low_water"] == 20)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("attempts", 0),
        ("attempts", 21),
        ("attempts", 2.5),
        ("lock", 0),
        ("growth", 0.5),
        ("growth", 11),
        ("growth", True),
        ("max_lock", 299),
        ("lifetime", 101),
        ("lifetime", 4),
    ],
)
def test_impossible_budgets(parameter: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FailureBudget(**{parameter: value})
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    "given",
    [
        {"attempts": 1},
        {"attempts": 20},
        {"growth": 1},
        {"growth": 10},
        {"attempts": 9, "lifetime": 9},
        {"max_lock": 300},
    ],
)
def test_budgets_at_the_edge_of_what_is_possible(given: Any) -> None:
    budget = FailureBudget(**given)
    assert {name: getattr(budget, name) for name in given} == given


def test_clients_are_forgotten_when_there_are_too_many_or_they_were_quiet() -> None:
    budget, state = FailureBudget(), NO_FAILURES
    for number in range(300):
        state = budget.charged(state, f"client {number}", now=1_000.0)
        state = budget.forgiven(state, "owner", now=1_000.0)
    assert [entry.client for entry in state.clients] == [f"client {number}" for number in range(171, 300)]
    assert len(budget.forgiven(state, "owner", now=1_000.0 + 3599).clients) == 129
    assert budget.forgiven(state, "owner", now=1_000.0 + 3600).clients == ()
    assert [e.client for e in budget.charged(state, "late", now=1_000.0 + 3600).clients] == ["late"]


def test_a_lock_is_remembered_for_as_long_as_the_longest_lock_after_it() -> None:
    """Or a client that waits its lock out would always get the first, shortest one."""
    budget, state = FailureBudget(), NO_FAILURES
    for _ in range(5):
        state = budget.charged(state, "guesser", now=1_000.0)
    until = 1_000.0 + 300
    for change in (budget.forgiven, budget.charged):
        late = change(state, "owner", now=until + 3599)
        assert [entry.locks for entry in late.clients if entry.client == "guesser"] == [1]
        later = change(state, "owner", now=until + 3600)
        assert [entry for entry in later.clients if entry.client == "guesser"] == []
    for _ in range(5):
        late = budget.charged(late, "guesser", now=until + 3599)
    assert budget.lock_of(late, "guesser", until + 3599) == (600,)


def test_success_forgets_the_lock_of_the_one_who_succeeds_and_no_other() -> None:
    budget, state = FailureBudget(), NO_FAILURES
    for client in ("a", "b"):
        for _ in range(5):
            state = budget.charged(state, client, now=1_000.0)
    state = budget.forgiven(state, "a", now=1_001.0)
    assert state.total == 0
    assert budget.lock_of(state, "a", 1_001.0) is None
    assert budget.lock_of(state, "b", 1_001.0) == (299,)
    assert budget.lock_of(state, "b", 1_300.0) is None


def test_errors_travel() -> None:
    error = pickle.loads(pickle.dumps(InvalidCodeError("locked", retry_after=3.0)))  # noqa: S301 - our own bytes
    assert (error.reason, error.retry_after, str(error)) == (
        "locked",
        3.0,
        "the code was not accepted (locked)",
    )


# --- asyncio -------------------------------------------------------------------------------------


class Twins(MemoryTwoFactorStore):
    """Says which of its twins are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def aload(self, user_id: str, /) -> Any:
        self.asked.append("load")
        return await super().aload(user_id)

    async def areplace(self, user_id: str, data: bytes | None, /, **rest: Any) -> bool:
        self.asked.append("replace")
        return await super().areplace(user_id, data, **rest)


def test_every_method_has_a_twin_that_decides_alike() -> None:
    scenario = Scenario(store=Twins())
    manager, clock = scenario.manager, scenario.clock

    async def play() -> None:
        assert await manager.averify("u", scenario.code())
        assert (await manager.averify("u", scenario.code())).reason == "replayed"
        assert (await manager.astatus("u")).recovery_codes_left == 10
        assert await manager.averified_within("u", 0)
        device = await manager.aremember_device("u", name="phone")
        assert await manager.acheck_device("u", device)
        (listed,) = await manager.adevices("u", token=device)
        assert listed.current
        assert await manager.arename_device("u", listed.id, name="tablet")
        assert await manager.arevoke_device("u", listed.id)
        await manager.aremember_device("u")
        assert await manager.aforget_devices("u") == 1
        codes = await manager.aregenerate_recovery_codes("u", proof=scenario.codes[0])
        enrolment = await manager.abegin_enrolment("u", account_name="taro", proof=codes[0])
        assert await manager.acancel_enrolment("u")
        enrolment = await manager.abegin_enrolment("v", account_name="jiro")
        clock.advance(30)
        await manager.aconfirm_enrolment("v", totp_code(enrolment.secret, at=clock.time()))
        await manager.averify("u", scenario.wrong())
        assert await manager.aunlock("u", actor="admin")
        assert (await manager.areencrypt()).examined == 2
        await manager.adisable("u", proof=codes[1])
        assert await manager.aadmin_reset("v", actor="admin", reason="lost")
        assert await manager.aadopt_secret("v", enrolment.secret)
        assert await manager.aadmin_reset("v", actor="admin", reason="lost")

    asyncio.run(play())
    assert not manager.status("u").enabled
    assert not manager.status("v").enabled
    assert {"load", "replace"} == set(scenario.store.asked)


def test_a_plain_store_does_not_hold_up_the_loop() -> None:
    import threading

    where = []

    class Plain:
        """A store of a user, without twins."""

        def __init__(self) -> None:
            self.replace = MemoryTwoFactorStore.replace.__get__(inner)

        def load(self, user_id: str, /) -> Any:
            where.append(threading.current_thread())
            return inner.load(user_id)

    inner = MemoryTwoFactorStore()
    scenario = Scenario(store=Plain())
    del where[:]
    asyncio.run(scenario.manager.astatus("u"))
    assert where
    assert threading.current_thread() not in where


def test_results_cannot_be_changed_and_hide_secrets(scenario: Scenario) -> None:
    enrolment = scenario.manager.begin_enrolment("v", account_name="taro")
    assert enrolment.secret not in repr(enrolment)
    for result, field in (
        (scenario.verify("x"), "ok"),
        (scenario.manager.status("u"), "locked"),
        (enrolment, "secret"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(result, field, True)
