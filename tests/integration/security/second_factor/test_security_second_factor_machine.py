"""The life of one account over real servers: the same machine and model as in memory."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import sqlalchemy
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from mks_hardening.security import (
    RedisPasskeyStore,
    RedisTwoFactorStore,
    SQLAlchemyPasskeyStore,
    SQLAlchemyTwoFactorStore,
)
from second_factor_machine import Account

FEW = settings(max_examples=12, stateful_step_count=40, deadline=None)
numbers = count()


def over(open_stores: Any) -> Any:
    """The machine on these stores."""
    return type("Served", (Account,), {"open_stores": lambda self: open_stores()})


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request: Any, tmp_path: Any) -> Iterator[Any]:
    url = (
        f"sqlite:///{tmp_path}/x.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )
    engine = sqlalchemy.create_engine(url)
    yield engine
    engine.dispose()


def test_in_a_database(engine: Any) -> None:
    records, passkeys = SQLAlchemyTwoFactorStore(engine), SQLAlchemyPasskeyStore(engine)
    records.create_table()
    passkeys.create_tables()

    def emptied() -> Any:
        with engine.begin() as connection:
            for table in (records.table, *passkeys.tables):
                connection.execute(table.delete())
        return records, passkeys

    run_state_machine_as_test(over(emptied), settings=FEW)


@pytest.mark.redis
def test_in_redis(redis_url: str) -> None:
    opened: list[Any] = []

    def fresh() -> Any:
        name = f"machine{next(numbers)}"
        opened.append(RedisTwoFactorStore(redis_url, store_budget=5, namespace=name))
        opened.append(RedisPasskeyStore(redis_url, store_budget=5, namespace=name))
        return opened[-2], opened[-1]

    run_state_machine_as_test(over(fresh), settings=FEW)
    for store in opened:
        store.close()
