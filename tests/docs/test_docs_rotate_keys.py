"""The steps of the guide on key rotation: an old and a new process side by side read what the other writes."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from fakeredis import FakeRedis
from sqlalchemy import Column, Integer, MetaData, NullPool, Table, create_engine, insert, select

from mks_hardening.cache import RedisCache
from mks_hardening.db import InvalidCursorError, keyset_page
from mks_hardening.exceptions import DecodeError
from mks_hardening.security import (
    MemorySignInStore,
    MemoryTwoFactorStore,
    SecretBox,
    SignIn,
    SignInClient,
    TwoFactorManager,
    totp_code,
)
from mks_hardening.testing import FrozenClock
from sign_in_scenario import RIGHT, Passwords, People, SignInAccount

OLD, NEW = (base64.b64encode(bytes(range(start, start + 32))).decode() for start in (1, 50))
STEPS = {"before": [OLD], "step 1": [OLD, NEW], "step 2": [NEW, OLD], "step 3": [NEW]}
SIDE_BY_SIDE = [*itertools.pairwise(STEPS)]

Ring = Callable[[list[str], list[str]], bool]
"""Whether a process with the second keys reads what one with the first keys has written."""


def second_factor(writer: list[str], reader: list[str]) -> bool:
    """An enrolment that is begun in one process and confirmed in the other; its codes and its device in both."""
    store, clock = MemoryTwoFactorStore(), FrozenClock(1_700_000_010.0)
    one, other = (
        TwoFactorManager(store, issuer="MKS", secret_box=SecretBox(keys), clock=clock)
        for keys in (writer, reader)
    )
    secret = one.begin_enrolment("u", account_name="taro").secret
    try:
        codes = list(other.confirm_enrolment("u", totp_code(secret, at=clock.time())))
        device = one.remember_device("u")
        for manager in (one, other):
            clock.advance(30)
            assert manager.verify("u", totp_code(secret, at=clock.time()))
            assert manager.verify("u", codes.pop())
            assert manager.check_device("u", device)
    except DecodeError:
        return False
    return True


def remembered_device(writer: list[str], reader: list[str]) -> bool:
    people = People(SignInAccount(user_id="1", name="taro", password_hash=f"h:{RIGHT}"))
    store = MemorySignInStore()
    one, other = (
        SignIn(
            people,
            store=store,
            limiter=None,
            factors=None,
            end_sessions=None,
            passwords=Passwords(),
            device_keys=keys,
        )
        for keys in (writer, reader)
    )
    step = one.password("taro", RIGHT, client=SignInClient(address="192.0.2.1"), remember=True)
    known = other.password("taro", RIGHT, client=SignInClient(address="192.0.2.1", device=step.device))
    assert known
    return "new_device" not in known.risks


def cache_entry(writer: list[str], reader: list[str]) -> bool:
    server = FakeRedis()
    one, other = (RedisCache(server, store_budget=30, signing_keys=keys) for keys in (writer, reader))
    one.set("k", "value")
    return other.get("k") == "value"


def cursor(writer: list[str], reader: list[str]) -> bool:
    rows = Table("rows", MetaData(), Column("id", Integer, primary_key=True))
    engine = create_engine("sqlite://", poolclass=NullPool)
    with engine.begin() as connection:
        rows.metadata.create_all(connection)
        connection.execute(insert(rows), [{"id": number} for number in range(4)])
        first = keyset_page(select(rows), order_by=[rows.c.id], limit=2, signing_keys=writer)
        after = first.fetch(connection).next_cursor
        try:
            second = keyset_page(
                select(rows), order_by=[rows.c.id], after=after, limit=2, signing_keys=reader
            )
        except InvalidCursorError:
            return False
        return second.fetch(connection).items == [2, 3]


RINGS: dict[str, Ring] = {
    ring.__name__: ring for ring in (second_factor, remembered_device, cache_entry, cursor)
}


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize(("one", "other"), SIDE_BY_SIDE)
def test_each_reads_what_the_other_writes(ring: str, one: str, other: str) -> None:
    assert RINGS[ring](STEPS[one], STEPS[other])
    assert RINGS[ring](STEPS[other], STEPS[one])


@pytest.mark.parametrize("ring", RINGS)
def test_without_the_first_step_they_do_not(ring: str) -> None:
    assert not RINGS[ring](STEPS["step 2"], STEPS["before"])


def test_what_the_old_key_encrypted_is_readable_until_it_is_removed() -> None:
    def read(keys: list[str]) -> Any:
        return SecretBox(keys).decrypt(stored, user_id="u", purpose="p")

    stored = SecretBox(STEPS["before"]).encrypt("value", user_id="u", purpose="p")
    assert read(STEPS["step 1"]) == read(STEPS["step 2"]) == "value"
    with pytest.raises(DecodeError):
        read(STEPS["step 3"])
