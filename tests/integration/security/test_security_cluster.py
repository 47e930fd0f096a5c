"""Limits, second factors and sign-ins on a Redis Cluster, and through the loss of a primary."""

import asyncio
import time
from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    ConcurrencyLimiter,
    RateLimiter,
    RedisPasskeyStore,
    RedisSignInStore,
    RedisTwoFactorStore,
    SecretBox,
    SignInClient,
    SignInStep,
    TwoFactorManager,
    totp_code,
)
from mks_hardening.security.sign_in._one_time_tokens import digest_of
from mks_hardening.testing import (
    FrozenClock,
    LimiterContract,
    PasskeyStoreContract,
    SignInStoreContract,
    TwoFactorStoreContract,
)
from sign_in_scenario import HERE, RIGHT, Scenario
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster

pytestmark = [pytest.mark.slow, pytest.mark.redis]


def url_of(cluster: RedisCluster) -> Any:
    return cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")


def run_all(contract: Any) -> None:
    """Every test of a contract on one cluster, which takes seconds to start."""
    names = [name for name in dir(contract) if name.startswith("test_")]
    assert names
    for name in names:
        getattr(contract, name)()


def test_the_contracts_hold_on_a_cluster(redis_cluster: RedisCluster) -> None:
    opened: list[Any] = []

    class Limiters(LimiterContract):
        def make_limiter(self, groups: Any) -> Any:
            opened.append(
                RateLimiter(
                    groups,
                    storage=url_of(redis_cluster),
                    store_budget=5,
                    on_unavailable="closed",
                    namespace=f"n{len(opened)}",
                )
            )
            return opened[-1]

    class Stores(TwoFactorStoreContract):
        def make_store(self) -> Any:
            opened.append(
                RedisTwoFactorStore(url_of(redis_cluster), store_budget=5, namespace=f"n{len(opened)}")
            )
            return opened[-1]

    class Passkeys(PasskeyStoreContract):
        def make_store(self) -> Any:
            opened.append(
                RedisPasskeyStore(url_of(redis_cluster), store_budget=5, namespace=f"n{len(opened)}")
            )
            return opened[-1]

    class SignIns(SignInStoreContract):
        def make_store(self) -> Any:
            opened.append(
                RedisSignInStore(url_of(redis_cluster), store_budget=5, namespace=f"n{len(opened)}")
            )
            return opened[-1]

        def pass_time(self, seconds: float) -> None:
            time.sleep(seconds)

    run_all(Limiters())
    run_all(SignIns())
    run_all(Stores())
    run_all(Passkeys())
    for one in opened:
        one.close()


def test_a_used_code_stays_used_through_a_failover(redis_cluster: RedisCluster) -> None:
    clock = FrozenClock(1_700_000_010.0)
    with RedisTwoFactorStore(url_of(redis_cluster), store_budget=1) as store:
        manager = TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(bytes(range(32))), clock=clock)
        secret = manager.begin_enrolment("u", account_name="taro").secret
        manager.confirm_enrolment("u", totp_code(secret, at=clock.time()))
        clock.advance(30)
        code = totp_code(secret, at=clock.time())
        assert manager.verify("u", code)
        redis_cluster.fail_over(store._key("u"))
        answers = []

        def answered() -> Any:
            try:
                answers.append(manager.verify("u", code))
            except BackendUnavailableError:
                return False
            return True

        wait_until(answered, timeout=30)
        assert answers[0].reason == "replayed"


@pytest.mark.parametrize("by", ["password", "provider"])
def test_a_whole_sign_in_through_a_failover(redis_cluster: RedisCluster, by: str) -> None:
    """Challenges, factors, limits, slots and paces lie on different primaries; one of them is lost on the way."""
    url = url_of(redis_cluster)
    with (
        RedisSignInStore(url, store_budget=1) as store,
        RedisTwoFactorStore(url, store_budget=1) as factors,
        RateLimiter(SIGN_IN_LIMITS | {"mail": "100 per second"}, storage=url, store_budget=1) as limiter,
        ConcurrencyLimiter({"sign-in": 1}, storage=url, store_budget=1) as slots,
    ):
        clock = FrozenClock(1_700_000_010.0)
        manager = TwoFactorManager(factors, issuer="MKS", secret_box=SecretBox(bytes(range(32))), clock=clock)
        secret = manager.begin_enrolment("2", account_name="sato").secret
        codes = list(manager.confirm_enrolment("2", totp_code(secret, at=clock.time())))
        scenario = Scenario(store=store, limiter=limiter, factors=manager)
        if by == "password":
            step = scenario.sign_in.password("sato", RIGHT, client=HERE)
        else:
            step = scenario.sign_in.external_sign_in("2", client=HERE, amr=["fed"])
        assert step.state == "challenged"
        with slots.hold("sign-in", "sato"):
            assert slots.held("sign-in", "sato") == 1
            assert not slots.acquire("sign-in", "sato")
        limiter.pace("mail", "smtp.example.com").wait()
        place = f"{store._prefix}challenge:{digest_of(step.challenge or '')}"
        # Replication is asynchronous: what a master has answered and not sent on yet is lost with it.
        _, written, replicas = redis_cluster.owner(place).command("ROLE")
        wait_until(
            lambda: all(int(at) >= written for *_, at in redis_cluster.owner(place).command("ROLE")[2])
        )
        assert replicas
        redis_cluster.fail_over(place)
        answers: list[Any] = []

        def answered() -> bool:
            try:
                answers.append(scenario.sign_in.second_factor(step.challenge, codes[0], client=HERE))
            except BackendUnavailableError:
                return False
            return True

        wait_until(answered, timeout=30)
        assert answers[0].user_id == "2"
        assert scenario.sign_in.second_factor(step.challenge, codes[1], client=HERE).state == "expired"

        async def guess_until_counted(other: RateLimiter) -> bool:
            """Guesses that fall into what is left of the outage are counted in this process: each is another's."""
            try:
                for number in range(1, 250):
                    name, client = f"nobody{number}", SignInClient(address=f"198.18.{number}.1")
                    place = f"{client.address} {name}"
                    before = other.test("auth_login", place).remaining[0]
                    step: SignInStep = await scenario.sign_in.apassword(name, "guess", client=client)
                    assert step.state == "refused"
                    if other.test("auth_login", place).remaining[0] < before:
                        return True
                    await asyncio.sleep(0.1)
                return False
            finally:
                for part in (store, factors, limiter, slots):
                    await part.aclose()

        with RateLimiter(SIGN_IN_LIMITS, storage=url, store_budget=1) as other:
            assert asyncio.run(guess_until_counted(other))
