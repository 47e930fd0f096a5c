"""Every store of sign-ins passes the contract; on a real server two processes cannot both use one challenge."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import MemorySignInStore, RedisSignInStore, SignInStep
from mks_hardening.testing import FrozenClock, SignInStoreContract
from sign_in_model import SignInModel
from sign_in_scenario import HERE, RIGHT, Scenario
from together import run_together


class TestMemoryStore(SignInStoreContract):
    def make_store(self) -> MemorySignInStore:
        self.clock = FrozenClock()
        return MemorySignInStore(clock=self.clock)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def test_expired_entries_do_not_pile_up(self) -> None:
        store = self.make_store()
        for number in range(5000):
            store.replace(f"{number}", b"", expected=None, version="a", ttl=1)
            self.clock.advance(0.01)
        assert int(repr(store).partition("(")[2].split()[0]) <= 1200


@pytest.mark.redis
class TestRedisStore(SignInStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> Iterator[None]:
        self.url = redis_url
        self.opened: list[RedisSignInStore] = []
        yield
        for store in self.opened:
            store.close()

    def make_store(self) -> RedisSignInStore:
        store = RedisSignInStore(self.url, store_budget=5, namespace=f"contract{len(self.opened)}")
        self.opened.append(store)
        return store

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)


USE = """
import secrets, sys
from mks_hardening.security import RedisSignInStore

store = RedisSignInStore(sys.argv[1], store_budget=5)
entries = [store.load(f"challenge:{number}") for number in range(50)]
print("ready", flush=True)
sys.stdin.readline()
for number, entry in enumerate(entries):
    version = secrets.token_hex(8)
    if store.replace(f"challenge:{number}", b"", expected=entry.version, version=version, ttl=60):
        print(number)
store.close()
"""


@pytest.mark.redis
def test_one_of_many_processes_uses_a_challenge(redis_url: str) -> None:
    with RedisSignInStore(redis_url, store_budget=5) as store:
        for number in range(50):
            store.replace(f"challenge:{number}", b"{}", expected=None, version="a", ttl=60)
        won = run_together(USE, redis_url, processes=4)
    assert sorted(int(number) for words in won for number in words) == list(range(50))


@pytest.mark.redis
def test_a_sign_in_over_redis(redis_url: str) -> None:
    with RedisSignInStore(redis_url, store_budget=5) as store:
        scenario = Scenario(store=store)
        session = scenario.browser()
        challenge = scenario.challenge(session=session)
        assert scenario.sign_in.second_factor(challenge, scenario.code(), client=HERE, session=session)
        again = scenario.sign_in.second_factor(challenge, scenario.codes[0], client=HERE, session=session)
        assert again == SignInStep(state="expired")
        assert scenario.changes.request_reset("sato", client=HERE)
        token: Any = scenario.notices[-1].token
        assert scenario.changes.reset_password(token, "an entirely new sentence", client=HERE)
        assert (
            scenario.changes.reset_password(token, "an entirely new sentence", client=HERE).state == "expired"
        )


@pytest.mark.redis
def test_a_store_that_is_away_lets_nobody_in_and_counts_nothing(make_redis: Any) -> None:
    """Nothing is skipped: 503 and not a session without its second factor."""
    server = make_redis()
    with RedisSignInStore(server.url, store_budget=0.2) as store:
        scenario = Scenario(store=store)
        challenge = scenario.challenge()
        server.kill()
        session = scenario.browser()
        for _ in range(12):
            with pytest.raises(BackendUnavailableError):
                scenario.sign_in.password("tanaka", RIGHT, client=HERE, session=session)
            with pytest.raises(BackendUnavailableError):
                scenario.sign_in.second_factor(challenge, scenario.wrong_code(), client=HERE, session=session)
        assert session.user_id is None
        assert scenario.limiter.test("auth_login", "192.0.2.1 tanaka").remaining == (5, 20, 50)
        assert scenario.limiter.test("auth_2fa_verify", "192.0.2.1 1").remaining == (10, 50)
        assert not scenario.factors.status("1").locked


@pytest.mark.redis
def test_a_busy_loop_goes_on_while_the_server_stands_still(make_redis: Any) -> None:
    """The twins do not hold it up; what they could not do is an error, and nobody's wrong password."""
    server = make_redis()

    async def ticking(ticks: list[float]) -> None:
        while True:
            ticks.append(time.monotonic())
            sum(range(20_000))  # others have work to do, too
            await asyncio.sleep(0)

    async def play(scenario: Scenario) -> tuple[list[Any], int]:
        challenge = (await scenario.sign_in.apassword("tanaka", RIGHT, client=HERE)).challenge
        ticks: list[float] = []
        ticker = asyncio.create_task(ticking(ticks))
        server.pause()
        try:
            before = len(ticks)
            attempts: list[Any] = [
                scenario.sign_in.apassword("tanaka", RIGHT, client=scenario.stranger(number))
                for number in range(20)
            ]
            attempts += [
                scenario.sign_in.asecond_factor(challenge, scenario.wrong_code(), client=HERE)
                for _ in range(20)
            ]
            answers = await asyncio.gather(*attempts, return_exceptions=True)
            meanwhile = len(ticks) - before
        finally:
            server.resume()
            ticker.cancel()
        for _ in range(600):  # until the breaker has seen that the server is back
            with suppress(BackendUnavailableError):
                step = await scenario.sign_in.asecond_factor(challenge, scenario.code(), client=HERE)
                break
            await asyncio.sleep(0.05)
        assert step.user_id == "1"
        await scenario.store.aclose()
        return answers, meanwhile

    with RedisSignInStore(server.url, store_budget=0.3) as store:
        scenario = Scenario(store=store)
        answers, meanwhile = asyncio.run(play(scenario))
        assert {type(answer) for answer in answers} == {BackendUnavailableError}
        assert meanwhile > 20
        assert scenario.limiter.test("auth_login_address", "203.0.0.9").remaining == (60, 600)
        assert scenario.limiter.test("auth_login_account", "user 1").remaining == (50, 100)
        assert scenario.limiter.test("auth_2fa_verify", "192.0.2.1 1").remaining == (10, 50)
        assert not scenario.factors.status("1").locked


@pytest.mark.redis
@pytest.mark.slow
def test_the_model_holds_over_a_real_server(redis_url: str) -> None:
    class InRedis(SignInModel):
        def make_store(self) -> RedisSignInStore:
            self.place = RedisSignInStore(redis_url, store_budget=5, namespace=f"model{secrets.token_hex(4)}")
            return self.place

        def teardown(self) -> None:
            self.place.close()

    run_state_machine_as_test(
        InRedis,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
