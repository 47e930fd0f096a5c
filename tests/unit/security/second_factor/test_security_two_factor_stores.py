"""The stores of second factors without a server: contracts over SQLite and fakeredis, and what they keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine, MetaData

from losing_redis import LosingRedis
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import (
    MemoryTwoFactorStore,
    RedisTwoFactorStore,
    SQLAlchemyTwoFactorStore,
    two_factor_table,
)
from mks_hardening.security.second_factor.failure_budget import client_digest
from mks_hardening.testing import FrozenClock, TwoFactorStoreContract
from on_loop import TwinsOfStores


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'two-factor.db'}")
    yield made
    made.dispose()


class TestMemory(TwoFactorStoreContract):
    def make_store(self) -> Any:
        return MemoryTwoFactorStore()


class TestFakeRedis(TwoFactorStoreContract):
    def make_store(self) -> Any:
        return RedisTwoFactorStore(LosingRedis(), store_budget=30)


class TestSQLite(TwoFactorStoreContract):
    @pytest.fixture(autouse=True)
    def _engine(self, engine: Engine) -> None:
        self.engine = engine

    def make_store(self) -> Any:
        store = SQLAlchemyTwoFactorStore(self.engine)
        store.table.drop(self.engine, checkfirst=True)
        store.create_table()
        return store


class TestTwins(TwinsOfStores, TwoFactorStoreContract):
    def over(self) -> Any:
        return RedisTwoFactorStore(LosingRedis(), store_budget=30)


class TestMemoryTwins(TestTwins):
    def over(self) -> Any:
        return MemoryTwoFactorStore()


def test_what_stands_in_redis() -> None:
    server = LosingRedis()
    with RedisTwoFactorStore(server, namespace="ns", store_budget=25, clock=FrozenClock()) as store:
        assert store.replace("現場", b"a\nb", expected=None, version="v1")
        (key,) = server.keys("ns:*")
        assert key == b"ns:two-factor:{04}"
        (token,) = set(server.keys("*")) - {key}
        assert token.startswith(b"{04}:once:")
        assert len(token) == len("{04}:once:") + 32
        assert server.hgetall(key) == {"現場".encode(): b"v1\na\nb"}
        assert store._client._lease.budget == 25
        assert "two-factor" in repr(store)
        for number in range(300):
            assert store.replace(f"u{number}", b"x", expected=None, version="v")
        assert len(server.keys("ns:*")) == 64
        assert store.count() == 301
        seen: list[str] = []
        cursor: str | None = None
        pages = 0
        while pages == 0 or cursor is not None:
            page, cursor = store.scan(cursor, limit=40)
            seen += page
            pages += 1
        assert sorted(seen) == sorted(["現場", *(f"u{number}" for number in range(300))])
        assert 3 < pages < 12
    with pytest.raises(ConfigurationError, match="clear text"):
        RedisTwoFactorStore("redis://cache.example.com")
    RedisTwoFactorStore("redis://cache.example.com", allow_plaintext=True).close()


@pytest.mark.parametrize("cursor", ["", "1", "x:0", "0:x", "-1:0", "0:0:0"])
def test_a_cursor_of_somebody_else_is_refused(cursor: str) -> None:
    with (
        RedisTwoFactorStore(LosingRedis(), store_budget=30) as store,
        pytest.raises(ConfigurationError) as refused,
    ):
        store.scan(cursor, limit=1)
    assert str(refused.value) == "cursor must be one that scan returned"
    assert refused.value.parameter == "cursor"


def test_which_answers_may_be_lost() -> None:
    server = LosingRedis()
    with RedisTwoFactorStore(server, store_budget=30) as store:

        def lost(call: Any, *arguments: Any, **options: Any) -> Any:
            server.script_flush()
            server.lose = True
            answer = call(*arguments, **options)
            assert not server.lose
            return answer

        assert lost(store.replace, "u", b"x", expected=None, version="v")
        assert lost(store.replace, "u", b"y", expected="v", version="w")
        assert not lost(store.replace, "u", b"z", expected="v", version="x")
        found = lost(store.load, "u")
        assert (found.version, found.data) == ("w", b"y")
        assert lost(store.scan, None, limit=5) == (["u"], None)
        assert lost(store.count) == 1
        assert lost(store.replace, "u", None, expected="w", version="x")
        assert store.load("u") is None


def test_the_table(engine: Engine) -> None:
    table = two_factor_table(MetaData(), name="t", schema="s")
    assert table.fullname == "s.t"
    assert [
        (column.name, str(column.type), column.primary_key, column.nullable) for column in table.columns
    ] == [
        ("user_id", "VARCHAR(255)", True, False),
        ("version", "VARCHAR(32)", False, False),
        ("data", "BLOB", False, False),
    ]
    own = two_factor_table(MetaData(), name="own")
    with SQLAlchemyTwoFactorStore(engine, table=own) as store:
        assert store.table is own
        store.create_table()
        store.create_table()
        assert repr(store) == "SQLAlchemyTwoFactorStore(table='own')"
        assert store.ping()
    assert SQLAlchemyTwoFactorStore(engine).table.name == "mks_two_factor"
    with pytest.raises(ConfigurationError) as refused:
        SQLAlchemyTwoFactorStore(engine, table=7)  # type: ignore[arg-type]
    assert refused.value.parameter == "table"


def test_a_change_needs_the_version_it_was_made_on(engine: Engine) -> None:
    with SQLAlchemyTwoFactorStore(engine) as store:
        store.create_table()
        assert not store.replace("u", b"x", expected="v", version="w")
        assert store.replace("u", None, expected=None, version="w")
        assert store.replace("u", b"x", expected=None, version="v")
        assert not store.replace("u", b"y", expected=None, version="w")
        assert store.replace("u", b"x", expected=None, version="v")  # sent again
        assert not store.replace("u", b"y", expected="other", version="w")
        assert store.replace("u", b"y", expected="v", version="w")
        assert store.load("u") == ("w", b"y")
        assert not store.replace("u", None, expected="v", version="x")
        assert store.replace("u", None, expected="w", version="x")
        assert (store.load("u"), store.count()) == (None, 0)


def test_pages_of_a_table_end_with_its_last_row(engine: Engine) -> None:
    with SQLAlchemyTwoFactorStore(engine) as store:
        store.create_table()
        for name in "dbac":
            store.replace(name, b"x", expected=None, version="v")
        assert store.scan(None, limit=3) == (["a", "b", "c"], "c")
        assert store.scan("c", limit=3) == (["d"], None)
        assert store.scan(None, limit=4) == (["a", "b", "c", "d"], "d")
        assert store.scan("d", limit=4) == ([], None)
        assert store.count() == 4


@pytest.mark.parametrize("operation", ["load", "replace", "scan", "count"])
def test_a_database_that_fails_is_named_and_tells_no_values(engine: Engine, operation: str) -> None:
    store = SQLAlchemyTwoFactorStore(engine)  # whose table is missing
    calls: dict[str, Any] = {
        "load": lambda: store.load("hunter2"),
        "replace": lambda: store.replace("hunter2", b"x", expected=None, version="v"),
        "scan": lambda: store.scan("hunter2", limit=1),
        "count": store.count,
    }
    with pytest.raises(BackendUnavailableError) as failed:
        calls[operation]()
    error = failed.value
    assert (error.backend, error.reason, error.operation) == ("database", "error", operation)
    assert "hunter2" not in str(error)


def test_a_client_stands_in_records_as_sixteen_digits_of_a_digest_with_its_user() -> None:
    assert client_digest("u", "host") == hashlib.sha256(b"u\0host").hexdigest()[:16]
    assert client_digest("v", "host") != client_digest("u", "host")
    assert (client_digest("u", None), client_digest("u", "")) == ("", "")
