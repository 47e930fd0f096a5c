"""Every store passes the contract, the manager works on each, and two processes cannot both win."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.pool import StaticPool

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import (
    MemoryTwoFactorStore,
    RecoveryCodes,
    RedisTwoFactorStore,
    SecretBox,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
    totp_code,
    two_factor_table,
)
from mks_hardening.testing import FrozenClock, TwoFactorStoreContract
from together import run_together

KEY = bytes(range(32))
START = 1_700_000_010.0


class TestMemoryStore(TwoFactorStoreContract):
    def make_store(self) -> Any:
        return MemoryTwoFactorStore()


class SQLStores(TwoFactorStoreContract):
    url = ""

    @pytest.fixture(autouse=True)
    def _engines(self) -> Iterator[Any]:
        self.opened = []
        yield
        for engine in self.opened:
            engine.dispose()

    def make_store(self) -> Any:
        engine = sqlalchemy.create_engine(self.url)
        self.opened.append(engine)
        store = SQLAlchemyTwoFactorStore(engine)
        store.table.drop(engine, checkfirst=True)
        store.create_table()
        return store


class TestSQLiteStore(SQLStores):
    @pytest.fixture(autouse=True)
    def _url(self, tmp_path: Any) -> None:
        self.url = f"sqlite:///{tmp_path}/two-factor.db"


@pytest.mark.postgres
class TestPostgresStore(SQLStores):
    @pytest.fixture(autouse=True)
    def _url(self, postgres_url: str) -> None:
        self.url = postgres_url


@pytest.mark.redis
class TestRedisStore(TwoFactorStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> Iterator[Any]:
        self.url = redis_url
        self.opened = []
        yield
        for store in self.opened:
            store.close()

    def make_store(self) -> Any:
        store = RedisTwoFactorStore(self.url, store_budget=5, namespace=f"contract{len(self.opened)}")
        self.opened.append(store)
        return store


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("redis", marks=pytest.mark.redis),
    ]
)
def place(request: Any, tmp_path: Any) -> Any:
    """Where a store lives, so that another process can open it too."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/two-factor.db"
    return request.getfixturevalue(f"{request.param}_url")


def open_store(place: Any) -> Any:
    if place.startswith("redis"):
        return RedisTwoFactorStore(place, store_budget=5)
    store = SQLAlchemyTwoFactorStore(sqlalchemy.create_engine(place))
    store.create_table()
    return store


def close_store(store: Any) -> None:
    store.close()
    if isinstance(store, SQLAlchemyTwoFactorStore):
        store._engine.dispose()


@pytest.fixture
def store(place: Any) -> Iterator[Any]:
    opened = open_store(place)
    yield opened
    close_store(opened)


def manager_on(store: Any, clock: FrozenClock) -> Any:
    return TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(KEY), clock=clock)


def enrolled(manager: TwoFactorManager, clock: FrozenClock) -> tuple[str, str, RecoveryCodes]:
    """Turn on the factor of user "u": a right and a wrong code of the next step, and the recovery codes."""
    secret = manager.begin_enrolment("u", account_name="taro").secret
    codes = manager.confirm_enrolment("u", totp_code(secret, at=clock.time()))
    clock.advance(30)
    near = {totp_code(secret, at=clock.time() + 30 * drift) for drift in (-1, 0, 1)}
    wrong = next(code for code in ("000000", "000001", "000002", "000003") if code not in near)
    return totp_code(secret, at=clock.time()), wrong, codes


def test_the_whole_life_of_a_factor(store: Any) -> None:
    clock = FrozenClock(START)
    manager = manager_on(store, clock)
    code, _, codes = enrolled(manager, clock)
    assert manager.verify("u", code)
    assert manager.verify("u", code).reason == "replayed"
    assert manager_on(store, clock).verify("u", code).reason == "replayed"  # also after a restart
    assert manager.verify("u", codes[0])
    assert manager.status("u").recovery_codes_left == 9
    assert manager.check_device("u", manager.remember_device("u"))
    assert manager.reencrypt().examined == 1
    manager.disable("u", proof=codes[1])
    assert not manager.status("u").enabled
    assert store.load("u") is None


def test_threads_cannot_exceed_the_budget_nor_use_a_code_twice(store: Any) -> None:
    clock = FrozenClock(START)
    manager = manager_on(store, clock)
    right, wrong, _ = enrolled(manager, clock)
    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(lambda _: patient(manager, right), range(16)))
        reasons = list(pool.map(lambda _: patient(manager, wrong).reason, range(32)))
    assert sum(map(bool, accepted)) == 1
    assert reasons.count("wrong") == 5
    assert reasons.count("locked") == 27


def patient(manager: Any, code: Any) -> Any:
    """Asks again when the store was too busy to answer; nothing was told then."""
    while True:
        try:
            return manager.verify("u", code)
        except BackendUnavailableError:
            continue


RACE = """
import sys, time
import sqlalchemy
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import RedisTwoFactorStore, SQLAlchemyTwoFactorStore, SecretBox, TwoFactorManager
from mks_hardening.testing import FrozenClock

place, at, right, wrong = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]
if place.startswith("redis"):
    store = RedisTwoFactorStore(place, store_budget=5)
else:
    store = SQLAlchemyTwoFactorStore(sqlalchemy.create_engine(place))
manager = TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(bytes(range(32))), clock=FrozenClock(at))
manager.status("u")
print("ready", flush=True)
sys.stdin.readline()

def ask(code):
    while True:
        try:
            return manager.verify("u", code)
        except BackendUnavailableError:
            continue

print(int(bool(ask(right))), *[ask(wrong).reason for _ in range(10)], flush=True)
"""


def test_two_processes_cannot_both_win(place: Any, store: Any) -> None:
    clock = FrozenClock(START)
    manager = manager_on(store, clock)
    right, wrong, _ = enrolled(manager, clock)
    answers = run_together(RACE, place, str(clock.time()), right, wrong)
    assert sum(int(answer[0]) for answer in answers) == 1
    reasons = [reason for answer in answers for reason in answer[1:]]
    assert reasons.count("wrong") == 5
    assert reasons.count("locked") == 15


# --- outages -------------------------------------------------------------------------------------


@pytest.mark.redis
def test_redis_away_lets_nobody_in_and_comes_back(make_redis: Any) -> None:
    server = make_redis()
    clock = FrozenClock(START)
    store = RedisTwoFactorStore(server.url)
    manager = manager_on(store, clock)
    code, _, _ = enrolled(manager, clock)
    server.kill()
    with pytest.raises(BackendUnavailableError) as caught:
        manager.verify("u", code)
    assert caught.value.backend == "two-factor"
    assert not store.ping()
    store.close()


def test_a_database_without_the_table_is_unavailable_and_its_error_holds_no_values() -> None:
    engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)
    store = SQLAlchemyTwoFactorStore(engine)
    for call in (
        lambda: store.load("u-secret"),
        lambda: store.replace("u-secret", b"data-secret", expected=None, version="a"),
        lambda: store.replace("u-secret", b"data-secret", expected="b", version="a"),
        lambda: store.scan(None, limit=3),
    ):
        with pytest.raises(BackendUnavailableError) as caught:
            call()
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    engine.dispose()


def test_an_exhausted_pool_is_unavailable(tmp_path: Any) -> None:
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path}/x.db", pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    store = SQLAlchemyTwoFactorStore(engine)
    store.create_table()
    with engine.connect(), pytest.raises(BackendUnavailableError) as caught:
        store.load("u")
    assert (caught.value.reason, caught.value.sent) == ("timeout", False)
    assert store.ping()
    engine.dispose()


def test_the_table_may_live_in_the_metadata_of_the_application(tmp_path: Any) -> None:
    metadata = sqlalchemy.MetaData()
    table = two_factor_table(metadata, name="second_factors")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db")
    metadata.create_all(engine)
    store = SQLAlchemyTwoFactorStore(engine, table=table)
    assert store.replace("u", b"x", expected=None, version="a")
    assert sqlalchemy.inspect(engine).get_table_names() == ["second_factors"]
    assert repr(store) == "SQLAlchemyTwoFactorStore(table='second_factors')"
    engine.dispose()


@pytest.mark.parametrize("namespace", ["", "a b", "a{b", "a\n"])
def test_impossible_namespaces(namespace: Any) -> None:
    with pytest.raises(ConfigurationError):
        RedisTwoFactorStore("redis://127.0.0.1:1", namespace=namespace)


@pytest.mark.redis
@pytest.mark.parametrize("cursor", ["x", "1", "1:x", ":"])
def test_impossible_cursors(redis_url: str, cursor: Any) -> None:
    with RedisTwoFactorStore(redis_url) as store, pytest.raises(ConfigurationError):
        store.scan(cursor, limit=1)


@pytest.mark.redis
def test_a_lost_reply_neither_uses_a_code_twice_nor_loses_the_answer(
    fault_proxy: Any, redis_url: str
) -> None:
    """The write was done, its answer got lost, the client sends again and is told what happened the first time."""
    clock = FrozenClock(START)
    with RedisTwoFactorStore(fault_proxy.through(redis_url), store_budget=5) as store:
        manager = manager_on(store, clock)
        code, _, codes = enrolled(manager, clock)
        fault_proxy.lose_reply(matching=b"EVALSHA")
        assert manager.verify("u", code)
        assert manager.verify("u", code).reason == "replayed"
        fault_proxy.lose_reply(matching=b"EVALSHA")
        assert manager.verify("u", codes[0]).recovery_codes_left == 9
        fault_proxy.lose_reply(matching=b"EVALSHA")
        assert manager.verify("u", codes[0]).reason == "replayed"
        fault_proxy.lose_reply(matching=b"EVALSHA")
        manager.disable("u", proof=codes[1])
        assert store.load("u") is None


@pytest.mark.redis
def test_redis_comes_back_after_a_kill(make_redis: Any) -> None:
    server = make_redis()
    with RedisTwoFactorStore(server.url, store_budget=5) as store:
        assert store.replace("u", b"x", expected=None, version="a")
        server.kill()
        for _ in range(3):
            with pytest.raises(BackendUnavailableError):
                store.load("u")
        server.restart()
        deadline = time.monotonic() + 10
        while not store.ping():
            assert time.monotonic() < deadline, "not back within ten seconds"
            time.sleep(0.02)
        assert store.load("u") is None  # this server keeps nothing; a real one must
