"""Signing in as a state machine, over a store in memory and over one in a Redis that is played."""

from __future__ import annotations

from typing import Any

import fakeredis
from hypothesis import settings

from mks_hardening.security import MemorySignInStore, RedisSignInStore
from sign_in_model import SignInModel


class InMemory(SignInModel):
    def make_store(self) -> Any:
        return MemorySignInStore()


class InFakeRedis(SignInModel):
    def make_store(self) -> Any:
        return RedisSignInStore(fakeredis.FakeRedis(), store_budget=30)


InMemory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
InFakeRedis.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestInMemory = InMemory.TestCase
TestInFakeRedis = InFakeRedis.TestCase
