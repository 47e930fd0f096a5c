"""Readers, writers, commits and rollbacks in any order: an old value is never kept."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import Any

from fakeredis import FakeRedis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mks_hardening.cache import BaseCache, MemoryCache, RedisCache

KEYS = st.sampled_from(["a", "b"])


class _Transaction:
    """A transaction of a database with snapshots, in a context of its own."""

    def __init__(self, cache: BaseCache, committed: dict[str, int]) -> None:
        self.context: Context = copy_context()
        self.view = dict(committed)
        self.written: set[str] = set()
        self.declared: set[str] = set()
        self.change = cache.transaction()
        self.context.run(self.change.__enter__)


class TransactionMachine(RuleBasedStateMachine):
    """Each key has a tag of its name. A writer declares what it changes before it commits."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = self.make_cache()
        self.committed = {"a": 0, "b": 0}
        self.next = 1
        self.readers: list[tuple[str, Any, int]] = []
        self.transactions: list[_Transaction] = []
        self.ending: list[_Transaction] = []

    def make_cache(self) -> BaseCache:
        return MemoryCache()

    def _read(self, key: str) -> int:
        return self.cache.get_or_compute(key, lambda: self.committed[key], tags=[key])

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        self._read(key)

    @rule(key=KEYS)
    def begin_to_read(self, key: str) -> None:
        lease = self.cache.begin(key, [key])
        if lease is not None:
            self.readers.append((key, lease, self.committed[key]))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def store_what_was_read(self, data: st.DataObject) -> None:
        key, lease, value = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        self.cache.finish(key, lease, value, ttl=60)

    @precondition(lambda self: len(self.transactions) < 3)
    @rule()
    def begin(self) -> None:
        self.transactions.append(_Transaction(self.cache, self.committed))

    def _one(self, data: st.DataObject) -> _Transaction:
        return self.transactions[data.draw(st.integers(0, len(self.transactions) - 1))]

    @precondition(lambda self: self.transactions)
    @rule(data=st.data(), key=KEYS, before=st.booleans())
    def write(self, data: st.DataObject, key: str, before: bool) -> None:
        one = self._one(data)
        if any(key in other.written for other in self.transactions if other is not one):
            return  # the row is locked
        if before:
            self._declare(one, key)
        one.view[key] = self.next
        one.written.add(key)
        self.next += 1

    def _declare(self, one: _Transaction, key: str) -> None:
        one.context.run(lambda: one.change.invalidate(tags=[key]))
        one.declared.add(key)

    @precondition(lambda self: self.transactions)
    @rule(data=st.data(), key=KEYS)
    def read_inside(self, data: st.DataObject, key: str) -> None:
        one = self._one(data)
        seen = one.context.run(self.cache.get_or_compute, key, lambda: one.view[key], tags=[key])
        if key in one.declared:
            assert seen == one.view[key], "a transaction sees what it has changed"

    @precondition(lambda self: self.transactions)
    @rule(data=st.data(), commits=st.booleans())
    def end(self, data: st.DataObject, commits: bool) -> None:
        one = self._one(data)
        for key in sorted(one.written - one.declared) if commits else ():
            self._declare(one, key)
        self.transactions.remove(one)
        if commits:
            self.committed |= {key: one.view[key] for key in one.written}
        self.ending.append(one)

    @precondition(lambda self: self.ending)
    @rule()
    def invalidate(self) -> None:
        one = self.ending.pop(0)
        one.context.run(one.change.__exit__, None, None, None)

    @invariant()
    def no_old_value_is_kept(self) -> None:
        unsettled = {key for one in self.ending for key in one.written}
        for key, value in self.committed.items():
            assert key in unsettled or self.cache.get(key) in {None, value}


class RedisTransactionMachine(TransactionMachine):
    def make_cache(self) -> BaseCache:
        return RedisCache(FakeRedis(), store_budget=30)

    def teardown(self) -> None:
        self.cache.close()


_few = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestTransactionMachine = TransactionMachine.TestCase
TestTransactionMachine.settings = _few
TestRedisTransactionMachine = RedisTransactionMachine.TestCase
TestRedisTransactionMachine.settings = settings(_few, max_examples=4)
