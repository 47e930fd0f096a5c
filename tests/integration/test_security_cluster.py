"""Limits and second factors on a Redis Cluster, and through the loss of a primary."""

from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import RateLimiter, RedisTwoFactorStore, SecretBox, TwoFactorManager, totp_code
from mks_hardening.testing import FrozenClock, LimiterContract, TwoFactorStoreContract
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
    opened = []

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

    run_all(Limiters())
    run_all(Stores())
    for one in opened:
        one.close()


def test_a_used_code_stays_used_through_a_failover(redis_cluster: RedisCluster) -> None:
    clock = FrozenClock(1_700_000_010.0)
    with RedisTwoFactorStore(url_of(redis_cluster), store_budget=1) as store:
        manager = TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(b"k" * 32), clock=clock)
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
