"""The stores of passkeys without a server: contracts over SQLite and fakeredis, what they keep and say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import sqlalchemy
from sqlalchemy import Engine, MetaData

from losing_redis import LosingRedis
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import (
    MemoryPasskeyStore,
    PasskeyAssertion,
    RedisPasskeyStore,
    RelyingParty,
    SQLAlchemyPasskeyStore,
    passkey_tables,
)
from mks_hardening.security.passkeys import _challenges, _response, _webauthn_options
from mks_hardening.testing import FrozenClock, PasskeyStoreContract
from on_loop import TwinsOfStores

NOW = 1_700_000_000.0


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'passkeys.db'}")
    yield made
    made.dispose()


class TestFakeRedis(PasskeyStoreContract):
    def make_store(self) -> Any:
        return RedisPasskeyStore(fakeredis.FakeRedis(), store_budget=30)


class TestSQLite(PasskeyStoreContract):
    @pytest.fixture(autouse=True)
    def _engine(self, engine: Engine) -> None:
        self.engine = engine

    def make_store(self) -> Any:
        store = SQLAlchemyPasskeyStore(self.engine)
        store.create_tables()
        return store


class TestTwins(TwinsOfStores, PasskeyStoreContract):
    def over(self) -> Any:
        return RedisPasskeyStore(fakeredis.FakeRedis(), store_budget=30)


class TestMemoryTwins(TestTwins):
    def over(self) -> Any:
        return MemoryPasskeyStore()


# --- in Redis ------------------------------------------------------------------------------------


def test_what_stands_in_redis() -> None:
    server = LosingRedis()
    with RedisPasskeyStore(server, namespace="ns", store_budget=25, clock=FrozenClock()) as store:
        store.save_challenge("c", b"data", ttl=10_000)
        store.assign_owner("k", "現場")
        assert sorted(server.keys("*")) == [b"ns:passkey:challenge:c", b"ns:passkey:owner:k"]
        assert 9_990_000 < server.pttl("ns:passkey:challenge:c") <= 10_000_000
        assert server.pttl("ns:passkey:owner:k") == -1
        assert server.get("ns:passkey:owner:k") == "現場".encode()
        store.save_challenge("d", b"data", ttl=0.0001)
        assert store._client._lease.budget == 25
        assert "passkeys" in repr(store)
    with pytest.raises(ConfigurationError, match="clear text"):
        RedisPasskeyStore("redis://cache.example.com")
    RedisPasskeyStore("redis://cache.example.com", allow_plaintext=True).close()


def test_which_answers_may_be_lost() -> None:
    server = LosingRedis()
    with RedisPasskeyStore(server, store_budget=30) as store:
        for call, arguments, answer in (
            (store.save_challenge, ("c", b"data"), None),
            (store.assign_owner, ("k", "u"), "u"),
            (store.owner, ("k",), "u"),
        ):
            options = {"ttl": 60} if call == store.save_challenge else {}
            server.script_flush()
            server.lose = True
            assert call(*arguments, **options) == answer
            assert not server.lose
        # Whether it was taken nobody knows, so nobody is told that it has expired.
        server.lose = True
        with pytest.raises(BackendUnavailableError):
            store.consume_challenge("c")
        assert store.consume_challenge("c") is None


# --- in a database -------------------------------------------------------------------------------


def test_the_tables() -> None:
    tables = passkey_tables(MetaData(), prefix="p", schema="s")
    shape = {
        table.fullname: [
            (column.name, str(column.type), column.primary_key, column.nullable, bool(column.index))
            for column in table.columns
        ]
        for table in tables
    }
    assert shape == {
        "s.p_owner": [
            ("credential", "VARCHAR(64)", True, False, False),
            ("user_id", "VARCHAR(255)", False, False, False),
        ],
        "s.p_challenge": [
            ("key", "VARCHAR(64)", True, False, False),
            ("data", "BLOB", False, False, False),
            ("expires_at", "FLOAT", False, False, True),
        ],
    }


def test_expired_challenges_are_swept_out_a_hundred_at_a_time(engine: Engine) -> None:
    clock = FrozenClock(NOW)
    with SQLAlchemyPasskeyStore(engine, clock=clock) as store:
        store.create_tables()
        store.create_tables()
        with engine.begin() as connection:
            connection.execute(
                store.tables.challenges.insert(),
                [
                    {"key": f"old{number:03}", "data": b"", "expires_at": NOW - number}
                    for number in range(150)
                ],
            )
        store.save_challenge("new", b"x", ttl=10)
        with engine.connect() as connection:
            rows = dict(
                connection.execute(sqlalchemy.select(store.tables.challenges.c["key", "expires_at"])).all()
            )
        assert rows.pop("new") == NOW + 10
        assert sorted(rows) == [f"old{number:03}" for number in range(50)]
        clock.advance(10)
        assert store.consume_challenge("new") is None
        assert repr(store) == "SQLAlchemyPasskeyStore(tables=['mks_passkey_owner', 'mks_passkey_challenge'])"


@pytest.mark.parametrize(
    "operation", ["save_challenge", "consume_challenge", "assign_owner", "owner", "release"]
)
def test_a_database_that_fails_is_named_and_tells_no_values(engine: Engine, operation: str) -> None:
    store = SQLAlchemyPasskeyStore(engine)  # whose tables are missing
    arguments = {
        "save_challenge": ("hunter2", b"x"),
        "consume_challenge": ("hunter2",),
        "owner": ("hunter2",),
    }
    with pytest.raises(BackendUnavailableError) as failed:
        getattr(store, operation)(
            *arguments.get(operation, ("hunter2", "u")),
            **({"ttl": 1} if operation == "save_challenge" else {}),
        )
    error = failed.value
    assert (error.backend, error.reason, error.operation) == ("database", "error", operation)
    assert "hunter2" not in str(error)


def test_a_credential_that_is_released_while_it_is_claimed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLAlchemyPasskeyStore(engine)
    store.create_tables()
    assert store.assign_owner("k", "u") == "u"
    assert store.assign_owner("k", "other") == "u"
    monkeypatch.setattr(store, "owner", lambda _: None)
    with pytest.raises(BackendUnavailableError) as busy:
        store.assign_owner("k", "other")
    assert (busy.value.backend, busy.value.reason, busy.value.operation) == (
        "database",
        "busy",
        "assign_owner",
    )


# --- what is asked and answered ------------------------------------------------------------------


def test_what_a_browser_is_asked_is_written_as_webauthn_says() -> None:
    party = RelyingParty("example.com", name="Knowledge", origins=["https://example.com"], challenge_ttl=30)
    issued = _challenges.IssuedChallenge("c", 5.0)
    known = {"id": ("usb", "nfc")}
    descriptor = {"type": "public-key", "id": "id", "transports": ["usb", "nfc"]}
    for verified, wish in ((True, "required"), (False, "preferred")):
        asked = _webauthn_options.request_options(party, issued, known=known, verified=verified)
        assert asked.expires_at == 5.0
        assert asked.public_key == {
            "rpId": "example.com",
            "challenge": "c",
            "timeout": 30_000,
            "allowCredentials": [descriptor],
            "userVerification": wish,
        }
    made = _webauthn_options.creation_options(party, issued, user={"id": "u"}, known=known)
    assert made.expires_at == 5.0
    assert made.public_key == {
        "rp": {"id": "example.com", "name": "Knowledge"},
        "user": {"id": "u"},
        "challenge": "c",
        "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in (-8, -7, -257)],
        "timeout": 30_000,
        "excludeCredentials": [descriptor],
        "authenticatorSelection": {
            "residentKey": "preferred",
            "requireResidentKey": False,
            "userVerification": "preferred",
        },
        "attestation": "none",
    }


@pytest.mark.parametrize("size", [1, 1023])
def test_ids_of_any_allowed_length_are_read(size: int) -> None:
    encoded = _response.base64url(b"x" * size)
    client_data = _response.base64url(b'{"challenge": "Yw"}')
    answer = {
        "id": encoded,
        "rawId": encoded,
        "type": "public-key",
        "response": {"clientDataJSON": client_data},
    }
    read = _response.read_response(answer, body=("clientDataJSON",))
    assert read is not None
    assert (read.credential, read.challenge, read.user_handle, read.transports) == (encoded, b"c", None, ())
    longer = _response.base64url(b"x" * 1024)
    assert (
        _response.read_response({**answer, "id": longer, "rawId": longer}, body=("clientDataJSON",)) is None
    )


@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        ("rp_id", "Example.com", "rp_id must be a domain in lower case, without scheme or port"),
        ("name", " ", "name must be printable and of 1 to 64 characters"),
        ("origins", "https://example.com", "origins must be a list of origins"),
        (
            "origins",
            [],
            "origins must be like https://example.com, without a path, on rp_id or below it",
        ),
        ("challenge_ttl", 29.9, "challenge_ttl must be"),
        ("challenge_ttl", 900.1, "challenge_ttl must be"),
    ],
)
def test_an_impossible_site_is_refused_in_clear_words(parameter: str, value: Any, said: str) -> None:
    given = {"rp_id": "example.com", "name": "n", "origins": ["https://example.com"], parameter: value}
    with pytest.raises(ConfigurationError) as refused:
        RelyingParty(**given)
    assert str(refused.value).startswith(said)
    assert refused.value.parameter == parameter


def test_an_answer_that_is_no_json_is_empty() -> None:
    assert PasskeyAssertion({"a": object()}, session="s") == ""
