"""A write whose answer was lost, and which another has built upon before it is sent again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
import redis

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord
from mks_hardening.security import RedisTwoFactorStore
from mks_hardening.wsgi import RedisSessionStore


class Meddler:
    """A client that loses the answer to one write, and lets somebody else write before the next try."""

    def __init__(self) -> None:
        self.client = fakeredis.FakeRedis()
        self.meanwhile: Callable[[], object] | None = None
        self.tries: list[Any] = []

    def execute_command(self, *command: Any, **options: Any) -> Any:
        answer = self.client.execute_command(*command, **options)
        if command[0] in ("EVALSHA", "EVAL") and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
            raise ConnectionResetError("the answer was lost")
        return answer


@pytest.fixture
def client() -> Meddler:
    return Meddler()


def test_a_used_code_is_known_to_whoever_used_it(client: Meddler) -> None:
    store = RedisTwoFactorStore(client, store_budget=5)
    assert store.replace("u", b"0", expected=None, version="a")
    client.meanwhile = lambda: store.replace("u", b"2", expected="b", version="c")
    assert store.replace("u", b"1", expected="a", version="b")
    assert store.load("u") == ("c", b"2")
    assert not store.replace("u", b"3", expected="b", version="d")


def test_the_data_of_a_session_are_known_to_whoever_wrote_them(client: Meddler) -> None:
    store = RedisSessionStore(client, store_budget=5)
    store.create(SessionRecord("k", "u", 1.0, 1.0, 100.0), now=1.0)
    client.meanwhile = lambda: store.update("k", version=1, data='{"by":"another"}')
    assert store.update("k", version=0, data='{"by":"us"}')
    record = store.load("k")
    assert record is not None
    assert (record.version, record.data) == (2, '{"by":"another"}')


@pytest.mark.parametrize("restarted", [False, True], ids=["dead", "dead, and back without its scripts"])
def test_what_was_done_before_the_server_died_is_not_said_to_be_undone(restarted: bool) -> None:
    """The write is made, its answer lost, the next try refused: ``sent`` is false for what certainly was not."""

    class Dying(Meddler):
        def execute_command(self, *command: Any, **options: Any) -> Any:
            if self.meanwhile is None:
                return self.client.execute_command(*command, **options)
            self.tries.append(command[0])
            if len(self.tries) == 1:
                self.client.execute_command(*command, **options)
                raise ConnectionResetError("the answer was lost")
            if restarted and command[0] == "EVALSHA":
                raise redis.exceptions.NoScriptError("NOSCRIPT No matching script.")
            raise ConnectionRefusedError("nobody listens")

    client = Dying()
    store = RedisTwoFactorStore(client, store_budget=0.3)
    assert store.replace("u", b"0", expected=None, version="a")
    client.meanwhile = print
    with pytest.raises(BackendUnavailableError) as caught:
        store.replace("u", b"1", expected="a", version="b")
    assert caught.value.sent
    assert client.tries[:2] == ["EVALSHA", "EVALSHA"]
    assert RedisTwoFactorStore(client.client, store_budget=30).load("u") == ("b", b"1")
