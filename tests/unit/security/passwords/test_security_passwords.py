import asyncio
import os
import signal
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import werkzeug.security

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, MissingDependencyError
from mks_hardening.security import PasswordHasher, hash_password, needs_rehash, verify_password
from mks_hardening.security.passwords import _argon2, _scrypt, hasher, hashing
from mks_hardening.security.passwords._argon2 import Argon2
from mks_hardening.security.passwords._scrypt import Scrypt

CHEAP = "scrypt:1024:8:1"
STORED = werkzeug.security.generate_password_hash("足場の点検は毎朝", method=CHEAP)


def cheap(scheme: str = "scrypt", **options: Any) -> PasswordHasher:
    """The rules do not depend on the cost; some tests below pay the real one."""
    made = PasswordHasher(scheme=scheme, **options)
    if scheme == "scrypt":
        nobody = werkzeug.security.generate_password_hash("-", method=CHEAP)
        made._scheme = Scrypt(method=CHEAP, nobody=nobody)
    else:
        light = Argon2(memory_kib=64, passes=1)
        made._scheme = Argon2(memory_kib=64, passes=1, nobody=light.make("-"))
    older = Scrypt(method=CHEAP, nobody=werkzeug.security.generate_password_hash("-", method=CHEAP))
    made._expected = (made._scheme,) if scheme == "scrypt" else (made._scheme, older)
    return made


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> PasswordHasher:
    """What the functions use."""
    made = cheap()
    monkeypatch.setattr(hashing, "_create_hasher", lambda: made)
    return made


@pytest.mark.parametrize("typed", ["", "x" * 1025, "\udc80"])
def test_what_can_be_no_password_fits_no_form(typed: str) -> None:
    """Not even that of what is checked in its place."""
    assert not verify_password(typed, hash_password("-"))


@pytest.mark.parametrize("scheme", ["scrypt", "argon2id"])
def test_the_real_parameters(scheme: Any) -> None:
    real = PasswordHasher(scheme=scheme)
    stored = real.hash("足場の点検は毎朝")
    assert real.verify("足場の点検は毎朝", stored)
    assert not real.verify("足場の点検は毎晩", stored)
    assert not real.needs_rehash(stored)
    assert real.needs_rehash(STORED)
    nobody = real._scheme.nobody
    assert not real.needs_rehash(nobody)
    assert len(nobody) == len(stored)
    assert real.verify("-", nobody) is False


def test_the_real_parameters_are_as_strong_as_owasp_asks() -> None:
    method, n, r, p = _scrypt._METHOD.split(":")
    assert method == "scrypt"
    assert int(n) * int(r) * int(p) >= 2**15 * 8 * 3
    assert Scrypt.memory == 128 * int(n) * int(r)
    assert _argon2._MEMORY_KIB >= 47104
    assert _argon2._PASSES >= 1
    assert _argon2._LANES == 1  # or the CPU time of one thread would not be the work


def test_right_and_wrong() -> None:
    assert verify_password("足場の点検は毎朝", STORED)
    assert not verify_password("足場の点検は毎晩", STORED)
    assert not verify_password("足場の点検は毎朝 ", STORED)


def test_the_same_password_has_another_form_each_time() -> None:
    assert hash_password("x") != hash_password("x")


def test_decomposed_spelling_is_the_same_password_and_width_is_not() -> None:
    stored = hash_password("ガード")
    assert verify_password(unicodedata.normalize("NFD", "ガード"), stored)
    assert not verify_password("ｶﾞｰﾄﾞ", stored)


@pytest.mark.parametrize("tail", ["a", "é", "足"])
def test_every_character_of_a_long_password_counts(tail: Any) -> None:
    long = "x" * 127 + tail
    stored = hash_password(long)
    assert verify_password(long, stored)
    assert not verify_password(long[:-1] + "z", stored)


@pytest.mark.parametrize("password", ["", "x" * 1025, "\ud800", None, 12, b"x", ["x"]])
def test_what_cannot_be_a_password(password: Any) -> None:
    assert not verify_password(password, STORED)
    assert not verify_password(password, None)
    with pytest.raises(ValueError, match="password must be"):
        hash_password(password)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "x",
        "scrypt:bad$x$y",
        "scrypt:-1:8:1$x$y",
        f"scrypt:{10**26}:8:1$x$y",
        f"pbkdf2:sha256:{10**26}$x$y",
        "md5$a$b",
        "$$",
    ],
)
def test_unknown_users_and_unusable_forms_are_refused(stored: Any) -> None:
    assert not verify_password("-", stored)


@pytest.mark.parametrize(
    ("password", "stored"),
    [("right", STORED), ("wrong", None), ("", None), ("", STORED), ("x" * 2000, None), ("a", "")],
    ids=["right", "nobody", "empty for nobody", "empty", "long", "no form"],
)
def test_every_answer_costs_one_hash_of_the_same_strength(
    monkeypatch: pytest.MonkeyPatch, password: Any, stored: Any
) -> None:
    seen = []
    original = werkzeug.security.check_password_hash

    def counting(form: Any, text: Any) -> Any:
        seen.append(form.partition("$")[0])
        return original(form, text)

    monkeypatch.setattr(werkzeug.security, "check_password_hash", counting)
    verify_password(password, stored)
    assert seen == [STORED.partition("$")[0]]


def test_needs_rehash() -> None:
    assert not needs_rehash(STORED)
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method="scrypt:512:8:1"))
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method="pbkdf2:sha256:1000"))
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method=CHEAP, salt_length=8))
    assert needs_rehash("rubbish")


# --- the same work, whatever is stored ---------------------------------------------------------------


class Work:
    """A CPU clock that only the work moves: seconds by the form that is checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: dict[str, float], *, step: float) -> None:
        self.now = 0.0
        self.hasher = cheap()
        monkeypatch.setattr(hasher, "thread_time", lambda: self.now)

        def check(stored: str, password: str) -> bool:
            for form, cost in costs.items():
                if stored.startswith(form):
                    self.now += cost
                    return password == "right"
            raise ValueError

        def work() -> None:
            self.now += step

        monkeypatch.setattr(werkzeug.security, "check_password_hash", check)
        monkeypatch.setattr(hasher, "_padding_work", work)

    def of(self, stored: str | None, password: str = "wrong") -> float:
        began = self.now
        self.hasher.verify(password, stored)
        return self.now - began


OLD_FORMS = [
    "pbkdf2:sha256:260000$salt$hash",
    "pbkdf2:sha256:600000$salt$hash",
    "scrypt:32768:8:1$salt$hash",
    "sha1$salt$hash",  # werkzeug 3 does not know it any more
    "!",
    f"{CHEAP}0$salt$hash",
]


@pytest.mark.parametrize("password", ["right", "wrong", "", "x" * 2000])
@pytest.mark.parametrize("stored", OLD_FORMS)
@pytest.mark.parametrize("warm", [True, False])
def test_old_forms_cost_what_an_unknown_user_costs(
    monkeypatch: pytest.MonkeyPatch, stored: str, password: str, warm: bool
) -> None:
    work = Work(
        monkeypatch,
        {f"{CHEAP}$": 0.24, "scrypt:": 0.09, "pbkdf2:sha256:2": 0.04, "pbkdf2:sha256:6": 0.08},
        step=0.005,
    )
    if warm:
        assert work.of(None) == pytest.approx(0.24)
    work.of(stored, password)  # the first one may have to find out what a check costs
    assert work.of(stored, password) == pytest.approx(work.of(None, password), rel=0.05)


def test_a_form_that_cannot_be_read_does_not_count_as_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: dict[str, float] = {}
    work = Work(monkeypatch, costs, step=0.005)
    costs[work.hasher._scheme.nobody] = 0.24
    for _ in range(20):
        work.of(f"{CHEAP}$salt$hash")
    assert {name: list(seen) for name, seen in work.hasher._work.items()} == {CHEAP: [pytest.approx(0.24)]}


def test_one_slow_check_does_not_make_all_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {f"{CHEAP}$": 0.24, "pbkdf2": 0.04}
    work = Work(monkeypatch, costs, step=0.005)
    for cost in (0.24, 2.0, 0.24):
        costs[f"{CHEAP}$"] = cost
        work.of(None)
    assert work.of("pbkdf2:sha256:260000$salt$hash") == pytest.approx(0.24, rel=0.05)


def test_a_dearer_old_form_makes_all_as_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can make its check shorter; so everybody else's takes as long once it has been met."""
    work = Work(monkeypatch, {f"{CHEAP}$": 0.24, "pbkdf2:": 0.7}, step=0.005)
    for _ in range(2):
        work.of("pbkdf2:sha256:1000000$salt$hash")
    spent = [work.of(form) for form in (None, f"{CHEAP}$salt$hash", "!", "pbkdf2:sha256:1000000$salt$hash")]
    assert spent == [pytest.approx(0.7, rel=0.05)] * 4


def test_methods_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch, {f"{CHEAP}$": 0.24, "pbkdf2:": 0.1}, step=0.005)
    for number in range(100):
        work.of(f"pbkdf2:sha256:{number}$salt$hash")
    assert len(work.hasher._work) == 16
    assert CHEAP in work.hasher._work


def test_the_real_filler_works() -> None:
    hasher._padding_work()


# --- two schemes ---------------------------------------------------------------------------------


def test_argon2id_where_it_is_installed_and_scrypt_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PasswordHasher().scheme == "argon2id"
    assert PasswordHasher(scheme="scrypt").scheme == "scrypt"
    monkeypatch.setitem(sys.modules, "argon2", None)
    assert PasswordHasher().scheme == "scrypt"
    with pytest.raises(MissingDependencyError, match=r"mks-hardening\[argon2\]"):
        PasswordHasher(scheme="argon2id")


@pytest.mark.parametrize(("made_by", "checked_by"), [("scrypt", "argon2id"), ("argon2id", "scrypt")])
def test_forms_of_the_other_scheme_are_checked_and_due_for_another_hash(
    made_by: str, checked_by: str
) -> None:
    stored, other = cheap(made_by).hash("right"), cheap(checked_by)
    assert other.verify("right", stored)
    assert not other.verify("wrong", stored)
    assert other.needs_rehash(stored)
    assert not other.needs_rehash(other.hash("right"))


def test_a_form_that_needs_a_missing_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = cheap("argon2id").hash("right")
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(MissingDependencyError):
        cheap().verify("right", stored)


@pytest.mark.parametrize(
    "stored", ["$argon2id$", "$argon2id$v=19$m=64,t=1,p=1$x$y", "$argon2", "$argon2id$v=19$m=0$a$b"]
)
def test_damaged_forms_of_argon2_are_refused(stored: str) -> None:
    for one in (cheap("argon2id"), cheap()):
        assert not one.verify("-", stored)
        assert one.needs_rehash(stored)


@pytest.mark.parametrize("password", ["", "x" * 1025, "\ud800", None, 12, b"x"])
def test_argon2_refuses_what_cannot_be_a_password(password: Any) -> None:
    one = cheap("argon2id")
    assert not one.verify(password, one.hash("x"))
    assert not one.verify(password, None)
    with pytest.raises(ValueError, match="password must be"):
        one.hash(password)


@pytest.mark.parametrize("costs", [(0.05, 0.02), (0.02, 0.05)])
def test_accounts_of_both_schemes_take_as_long(
    monkeypatch: pytest.MonkeyPatch, costs: tuple[float, float]
) -> None:
    """An account from before argon2 costs what an unknown one costs."""
    one = cheap("argon2id")
    now = [0.0]
    monkeypatch.setattr(hasher, "thread_time", lambda: now[0])
    monkeypatch.setattr(hasher, "_padding_work", lambda: now.__setitem__(0, now[0] + 0.001))

    def costing(cost: float) -> Any:
        def check(self: Any, stored: str, password: str) -> bool:
            now[0] += cost
            return False

        return check

    monkeypatch.setattr(Argon2, "check", costing(costs[0]))
    monkeypatch.setattr(Scrypt, "check", costing(costs[1]))
    spent = []
    one.verify("wrong", None)  # the first may have to find out what checks cost
    for stored in (None, one._scheme.nobody, STORED, "!", None):
        began = now[0]
        one.verify("wrong", stored)
        spent.append(now[0] - began)
    assert spent == [pytest.approx(0.05, rel=0.05)] * 5


# --- a few at a time -----------------------------------------------------------------------------

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("scheme", "budget", "workers", "slots"),
    [
        ("scrypt", 32, 1, 1),
        ("scrypt", 64, 1, 2),
        ("scrypt", 256, 1, 8),
        ("scrypt", 256, 4, 2),
        ("scrypt", 1, 1, 1),  # one at least, or nobody could sign in
        ("argon2id", 256, 1, 5),
        ("argon2id", 256, 2, 2),
        ("scrypt", 100_000, 1, 16),  # no more than cores
    ],
)
def test_slots_follow_from_memory_and_workers(
    monkeypatch: pytest.MonkeyPatch, scheme: Any, budget: int, workers: int, slots: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert PasswordHasher(scheme=scheme, memory_budget=budget * MEBIBYTE, workers=workers).slots == slots


class Held:
    """A hasher whose computations last until they are let go."""

    def __init__(self, slots: int, **options: Any) -> None:
        self.hasher = cheap(**options)
        self.hasher.slots = slots
        self.hasher.reset_after_fork()
        self.go, self.under_way, self.most = threading.Event(), 0, 0
        self.started = threading.Semaphore(0)
        self._lock = threading.Lock()
        self.hasher._scheme = self
        self.hasher._expected = ()

    name, memory, nobody = "held", 1, "$held$nobody"

    def check(self, stored: str, password: str) -> bool:
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.started.release()
        assert self.go.wait(20)
        with self._lock:
            self.under_way -= 1
        return True

    def is_present(self, stored: str) -> bool:
        return True


@pytest.fixture
def scheme_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PasswordHasher, "_scheme_of", lambda self, form: self._scheme)


@pytest.mark.usefixtures("scheme_is_ours")
def test_no_more_than_the_slots_run_at_once_and_all_get_their_turn() -> None:
    held = Held(3, max_wait=20)
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(held.hasher.verify, "x", "stored") for _ in range(12)]
        for _ in range(3):
            assert held.started.acquire(timeout=20)
        assert not held.started.acquire(timeout=0.02)
        held.go.set()
        assert [answer.result(20) for answer in answers] == [True] * 12
    assert held.most == 3


@pytest.mark.usefixtures("scheme_is_ours")
def test_who_waits_too_long_is_told_to_come_again() -> None:
    held = Held(1, max_wait=0)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(held.hasher.verify, "x", "stored")
        assert held.started.acquire(timeout=20)
        calls: dict[str, Any] = {
            "verify": lambda: held.hasher.verify("x", None),
            "hash": lambda: held.hasher.hash("x"),
        }
        for operation, call in calls.items():
            with pytest.raises(BackendUnavailableError) as caught:
                call()
            error = caught.value
            assert (error.backend, error.reason, error.sent) == ("password hashing", "busy", False)
            assert (error.operation, error.retry_after) == (operation, 1.0)
        held.go.set()
        assert first.result(20)
    assert held.hasher.verify("x", "stored")  # the slot is free again


def test_a_computation_that_fails_gives_its_slot_back() -> None:
    one = cheap(max_wait=0)
    one.slots = 1
    one.reset_after_fork()

    def fail(password: str) -> str:
        raise MemoryError

    one._scheme.make = fail  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(MemoryError):
            one.hash("x")
    assert not one.verify("x", None)


@pytest.mark.usefixtures("scheme_is_ours")
def test_the_event_loop_is_never_held_up() -> None:
    held = Held(2, max_wait=20)

    async def play() -> None:
        waiting = [asyncio.create_task(held.hasher.averify("x", "stored")) for _ in range(6)]
        for _ in range(2):
            await asyncio.to_thread(held.started.acquire)
        waiting[0].cancel()  # its computation goes on, and keeps its slot until it ends
        await asyncio.sleep(0.001)
        assert held.under_way == 2
        held.go.set()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [answer for answer in done if answer is True] == [True] * 5
        assert isinstance(done[0], asyncio.CancelledError)
        assert await held.hasher.averify("x", "stored")

    asyncio.run(play())
    assert held.most == 2


@pytest.mark.usefixtures("scheme_is_ours")
def test_a_loop_that_waits_too_long_is_told_too() -> None:
    held = Held(1, max_wait=0)

    async def play() -> None:
        first = asyncio.create_task(held.hasher.averify("x", "stored"))
        await asyncio.to_thread(held.started.acquire)
        with pytest.raises(BackendUnavailableError):
            await held.hasher.averify("x", "stored")
        held.go.set()
        assert await first

    asyncio.run(play())


def test_twins_decide_alike() -> None:
    one = cheap()

    async def play() -> None:
        stored = await one.ahash("足場")
        assert await one.averify("足場", stored)
        assert not await one.averify("足場 ", stored)
        with pytest.raises(ValueError, match="password must be"):
            await one.ahash("")

    asyncio.run(play())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_slots_that_threads_held_at_a_fork_are_free_in_the_child() -> None:
    one = cheap(max_wait=0)
    one.slots = 1
    one.reset_after_fork()
    with one._turn("verify"):
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            os._exit(0 if not one.verify("x", None) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("scheme", "bcrypt"),
        ("memory_budget", 0),
        ("memory_budget", 1.5),
        ("workers", 0),
        ("max_wait", -1),
        ("max_wait", "1s"),
    ],
)
def test_impossible_parameters(parameter: str, value: Any) -> None:
    given: Any = {parameter: value}
    with pytest.raises(ConfigurationError) as caught:
        PasswordHasher(**given)
    assert caught.value.parameter == parameter


def test_what_it_says_of_itself() -> None:
    assert repr(cheap()).startswith("PasswordHasher('scrypt', slots=")
