from __future__ import annotations

import inspect

import pytest

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord
from mks_hardening.testing import SessionStoreContract
from mks_hardening.wsgi import RedisSessionStore
from testbed.polling import wait_until
from testbed.redis_groups import RedisCluster

pytestmark = [pytest.mark.redis, pytest.mark.slow]
NOW = 1_700_000_000.0


@pytest.fixture
def cluster_url(redis_cluster: RedisCluster) -> str:
    return redis_cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0")


def test_the_contract_holds_in_a_cluster(cluster_url: str) -> None:
    stores: list[RedisSessionStore] = []

    class Contract(SessionStoreContract):
        def make_store(self) -> RedisSessionStore:
            stores.append(RedisSessionStore(cluster_url, namespace=f"n{len(stores)}", store_budget=5.0))
            return stores[-1]

    contract = Contract()
    rules = [rule for name, rule in inspect.getmembers(contract, callable) if name.startswith("test_")]
    assert len(rules) > 10
    try:
        for rule in rules:
            rule()
    finally:
        for store in stores:
            store.close()


def test_sessions_survive_a_fail_over(redis_cluster: RedisCluster, cluster_url: str) -> None:
    with RedisSessionStore(cluster_url, store_budget=0.5) as store:
        store.create(_record(), now=NOW)
        # A replica that was asked to keep up has what was written before.
        redis_cluster.owner("{mks:sessions}:s:k").command("WAIT", 1, 5000)
        redis_cluster.fail_over("{mks:sessions}:s:k")
        wait_until(lambda: _load(store) == _record(), what="the session at the new primary")
        assert store.end("k", reason="revoked")


def _record() -> SessionRecord:
    return SessionRecord("k", "alice", NOW, NOW, NOW + 1000)


def _load(store: RedisSessionStore) -> SessionRecord | None:
    try:
        return store.load("k")
    except BackendUnavailableError:
        return None
