"""The life of one account in memory and over a fake Redis: any order of events, against the model."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    RedisPasskeyStore,
    RedisTwoFactorStore,
)
from mks_hardening.testing import FlakyRedis
from second_factor_machine import Account


class InMemory(Account):
    def open_stores(self) -> Any:
        return MemoryTwoFactorStore(), MemoryPasskeyStore(clock=self.clock)


class InFakeRedis(Account):
    def open_stores(self) -> Any:
        fake = FlakyRedis()
        return RedisTwoFactorStore(fake, store_budget=5), RedisPasskeyStore(fake, store_budget=5)


def test_in_memory() -> None:
    run_state_machine_as_test(InMemory, settings=settings(max_examples=120, stateful_step_count=60))


def test_over_a_fake_redis() -> None:
    run_state_machine_as_test(InFakeRedis, settings=settings(max_examples=15, stateful_step_count=40))


@pytest.mark.slow
def test_in_memory_for_long() -> None:
    run_state_machine_as_test(InMemory, settings=settings(max_examples=600, stateful_step_count=120))
