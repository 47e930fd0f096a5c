"""Every store of passkeys passes the contract, and whole ceremonies work over each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.pool import StaticPool

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, InvalidCodeError
from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    RedisPasskeyStore,
    RedisTwoFactorStore,
    RelyingParty,
    SecretBox,
    SQLAlchemyPasskeyStore,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
    passkey_tables,
)
from mks_hardening.testing import FlakyRedis, FrozenClock, PasskeyStoreContract
from soft_authenticator import Lies, SoftAuthenticator


class TestMemoryStore(PasskeyStoreContract):
    def make_store(self) -> Any:
        return MemoryPasskeyStore()


class TestFakeRedisStore(PasskeyStoreContract):
    def make_store(self) -> Any:
        return RedisPasskeyStore(FlakyRedis(), store_budget=5)


class SQLStores(PasskeyStoreContract):
    url = ""

    @pytest.fixture(autouse=True)
    def _engines(self) -> Iterator[Any]:
        self.opened: list[Any] = []
        yield
        for engine in self.opened:
            engine.dispose()

    def make_store(self) -> Any:
        engine = sqlalchemy.create_engine(self.url)
        self.opened.append(engine)
        store = SQLAlchemyPasskeyStore(engine)
        for table in store.tables:
            table.drop(engine, checkfirst=True)
        store.create_tables()
        return store


class TestSQLiteStore(SQLStores):
    @pytest.fixture(autouse=True)
    def _url(self, tmp_path: Any) -> None:
        self.url = f"sqlite:///{tmp_path}/passkeys.db"


@pytest.mark.postgres
class TestPostgresStore(SQLStores):
    @pytest.fixture(autouse=True)
    def _url(self, postgres_url: str) -> None:
        self.url = postgres_url


@pytest.mark.redis
class TestRedisStore(PasskeyStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> Iterator[Any]:
        self.url = redis_url
        self.opened: list[Any] = []
        yield
        for store in self.opened:
            store.close()

    def make_store(self) -> Any:
        store = RedisPasskeyStore(self.url, store_budget=5, namespace=f"contract{len(self.opened)}")
        self.opened.append(store)
        return store


@pytest.fixture(
    params=[
        "memory",
        "fakeredis",
        "sqlite",
        pytest.param("postgres", marks=pytest.mark.postgres),
        pytest.param("redis", marks=pytest.mark.redis),
    ]
)
def stores(request: Any, tmp_path: Any) -> Iterator[Any]:
    """Records and passkeys in one place."""
    if request.param == "memory":
        yield MemoryTwoFactorStore(), MemoryPasskeyStore()
        return
    if request.param in ("fakeredis", "redis"):
        place: Any = FlakyRedis() if request.param == "fakeredis" else request.getfixturevalue("redis_url")
        records, passkeys = (
            RedisTwoFactorStore(place, store_budget=5),
            RedisPasskeyStore(place, store_budget=5),
        )
        yield records, passkeys
        records.close()
        passkeys.close()
        return
    url = (
        f"sqlite:///{tmp_path}/x.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )
    engine = sqlalchemy.create_engine(url)
    in_table, in_tables = SQLAlchemyTwoFactorStore(engine), SQLAlchemyPasskeyStore(engine)
    in_table.create_table()
    in_tables.create_tables()
    yield in_table, in_tables
    engine.dispose()


def manager_on(stores: Any) -> TwoFactorManager:
    records, passkeys = stores
    return TwoFactorManager(
        records,
        issuer="MKS",
        secret_box=SecretBox(bytes(range(32))),
        relying_party=RelyingParty(
            "example.com", name="MKS", origins=["https://example.com"], passwordless=True
        ),
        passkey_store=passkeys,
    )


def test_the_whole_life_of_a_passkey(stores: Any) -> None:
    manager, device = manager_on(stores), SoftAuthenticator()
    asked = manager.passkeys.begin_registration("現場 太郎", session="s", account_name="太郎")
    # As another process, or after a restart: nothing is kept in the manager.
    made = manager_on(stores).passkeys.finish_registration(
        "現場 太郎", device.create(asked.json), session="s", name="鍵"
    )
    manager = manager_on(stores)
    asked = manager.passkeys.begin_sign_in(session="s")
    answer = device.get(asked.json)
    assert manager_on(stores).passkeys.finish_sign_in(answer, session="s").user_id == "現場 太郎"
    assert not manager_on(stores).passkeys.finish_sign_in(answer, session="s")
    asked = manager.passkeys.begin_verification("現場 太郎", session="s")
    proof = PasskeyAssertion(device.get(asked.json), session="s")
    assert manager.passkeys.revoke("現場 太郎", made.passkey.id, proof=proof)
    assert manager.passkeys.list("現場 太郎") == ()
    asked = manager.passkeys.begin_sign_in(session="s")
    assert not manager.passkeys.finish_sign_in(device.get(asked.json), session="s")


def test_one_of_many_gets_in_with_an_assertion(stores: Any) -> None:
    """Its challenge is taken once; the record decides by compare-and-set."""
    manager, device = manager_on(stores), SoftAuthenticator()
    asked = manager.passkeys.begin_registration("u", session="s", account_name="u")
    manager.passkeys.finish_registration("u", device.create(asked.json), session="s")

    def patient(ask: Any) -> bool:
        while True:
            try:
                return bool(ask())
            except BackendUnavailableError:  # too busy to answer; a challenge that was taken is gone
                continue

    asked = manager.passkeys.begin_verification("u", session="s")
    proof = PasskeyAssertion(device.get(asked.json), session="s")
    asked = manager.passkeys.begin_sign_in(session="s")
    answer = device.get(asked.json)
    with ThreadPoolExecutor(8) as pool:
        verified = list(pool.map(lambda _: patient(lambda: manager.verify("u", proof)), range(16)))
        signed_in = list(
            pool.map(
                lambda _: patient(lambda: manager.passkeys.finish_sign_in(answer, session="s")), range(16)
            )
        )
    assert sum(verified) == 1
    assert sum(signed_in) == 1


def test_one_of_many_registers_with_an_answer_and_one_user_owns_a_key(stores: Any) -> None:
    manager = manager_on(stores)
    answers = []
    for number in range(6):
        asked = manager.passkeys.begin_registration(f"u{number}", session="s", account_name="u")
        answers.append(SoftAuthenticator().create(asked.json, Lies(credential=b"c" * 32)))

    def register(number: int) -> str:
        while True:
            try:
                manager.passkeys.finish_registration(f"u{number % 6}", answers[number % 6], session="s")
            except InvalidCodeError as error:
                return error.reason
            except BackendUnavailableError:
                continue
            return ""

    with ThreadPoolExecutor(6) as pool:
        reasons = list(pool.map(register, range(12)))
    assert reasons.count("") == 1
    assert set(reasons) <= {"", "known", "expired"}
    assert sum(len(manager.passkeys.list(f"u{number}")) for number in range(6)) == 1


def test_a_sweep_takes_what_has_expired_and_nothing_else() -> None:
    clock = FrozenClock()
    engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)
    store = SQLAlchemyPasskeyStore(engine, clock=clock)
    store.create_tables()
    for number in range(250):
        store.save_challenge(f"old{number}", b"x", ttl=10)
    store.save_challenge("lasting", b"x", ttl=1000)
    clock.advance(10)
    assert store.consume_challenge("old0") is None
    left = []
    for number in range(4):
        store.save_challenge(f"new{number}", b"x", ttl=10)
        with engine.connect() as connection:
            left.append(
                connection.scalar(
                    sqlalchemy.select(sqlalchemy.func.count()).select_from(store.tables.challenges)
                )
            )
    assert left == [151, 52, 4, 5]
    assert store.consume_challenge("lasting") == b"x"
    engine.dispose()


def test_challenges_in_memory_are_bounded() -> None:
    clock = FrozenClock()
    store = MemoryPasskeyStore(clock=clock)
    for number in range(10_050):
        store.save_challenge(f"{number}", b"x", ttl=10)
    assert len(store._challenges) == 10_000
    assert store.consume_challenge("49") is None
    assert store.consume_challenge("50") == b"x"
    clock.advance(10)
    store.save_challenge("new", b"x", ttl=10)
    assert len(store._challenges) == 1


def test_the_tables_may_live_in_the_metadata_of_the_application(tmp_path: Any) -> None:
    metadata = sqlalchemy.MetaData()
    tables = passkey_tables(metadata, prefix="keys")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/x.db")
    metadata.create_all(engine)
    store = SQLAlchemyPasskeyStore(engine, tables=tables)
    assert store.assign_owner("c", "u") == "u"
    assert sorted(sqlalchemy.inspect(engine).get_table_names()) == ["keys_challenge", "keys_owner"]
    assert repr(store) == "SQLAlchemyPasskeyStore(tables=['keys_owner', 'keys_challenge'])"
    engine.dispose()


def test_a_database_without_the_tables_is_unavailable_and_its_error_holds_no_values() -> None:
    engine = sqlalchemy.create_engine("sqlite://", poolclass=StaticPool)
    store = SQLAlchemyPasskeyStore(engine)
    for call in (
        lambda: store.save_challenge("secret", b"secret", ttl=1),
        lambda: store.consume_challenge("secret"),
        lambda: store.assign_owner("secret", "secret"),
        lambda: store.owner("secret"),
        lambda: store.release("secret", "secret"),
    ):
        with pytest.raises(BackendUnavailableError) as caught:
            call()
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    engine.dispose()


@pytest.mark.parametrize("namespace", ["", "a b", "a{b", "a\n"])
def test_impossible_namespaces(namespace: Any) -> None:
    with pytest.raises(ConfigurationError):
        RedisPasskeyStore("redis://127.0.0.1:1", namespace=namespace)


@pytest.mark.redis
def test_redis_away_lets_nobody_in_and_uses_nothing_up(make_redis: Any) -> None:
    server = make_redis()
    with RedisPasskeyStore(server.url) as passkeys:
        manager, device = manager_on((MemoryTwoFactorStore(), passkeys)), SoftAuthenticator()
        asked = manager.passkeys.begin_registration("u", session="s", account_name="u")
        server.kill()
        with pytest.raises(BackendUnavailableError) as caught:
            manager.passkeys.finish_registration("u", device.create(asked.json), session="s")
        assert caught.value.backend == "passkeys"
        assert not passkeys.ping()
        assert not manager.status("u").enabled


@pytest.mark.redis
def test_a_lost_reply_never_lets_a_challenge_be_used_twice(fault_proxy: Any, redis_url: str) -> None:
    with RedisPasskeyStore(fault_proxy.through(redis_url), store_budget=5) as passkeys:
        manager, device = manager_on((MemoryTwoFactorStore(), passkeys)), SoftAuthenticator()
        asked = manager.passkeys.begin_registration("u", session="s", account_name="u")
        answer = device.create(asked.json)
        fault_proxy.lose_reply(matching=b"GETDEL")
        with pytest.raises(BackendUnavailableError):
            manager.passkeys.finish_registration("u", answer, session="s")
        with pytest.raises(InvalidCodeError, match="expired"):
            manager.passkeys.finish_registration("u", answer, session="s")
