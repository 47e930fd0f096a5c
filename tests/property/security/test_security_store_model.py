"""Memory and SQLite against a dictionary: any order of writes, repetitions, conflicts and removals."""

from typing import Any

import sqlalchemy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy.pool import StaticPool

from mks_hardening.security import MemoryTwoFactorStore, SQLAlchemyTwoFactorStore

users = st.sampled_from(["a", "B", "b", "現場", "x" * 255])
contents = st.one_of(st.none(), st.binary(min_size=1, max_size=40))


class Stores(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.engine = sqlalchemy.create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        in_table = SQLAlchemyTwoFactorStore(self.engine)
        in_table.create_table()
        self.stores = [MemoryTwoFactorStore(), in_table]
        self.model = {}
        self.number = 0

    def teardown(self) -> None:
        self.engine.dispose()

    def write(self, user: Any, data: Any, expected: Any, version: Any) -> None:
        """What the protocol says, and what each store says."""
        present = self.model.get(user)
        found = None if present is None else present[0]
        if found == version or (data is None and found is None):
            wanted = True
        elif found == expected:
            wanted = True
            if data is None:
                del self.model[user]
            else:
                self.model[user] = (version, data)
        else:
            wanted = False
        for store in self.stores:
            assert store.replace(user, data, expected=expected, version=version) == wanted

    def new_version(self) -> Any:
        self.number += 1
        return f"v{self.number}"

    @rule(user=users, data=contents)
    def write_as_expected(self, user: Any, data: Any) -> None:
        present = self.model.get(user)
        self.write(user, data, None if present is None else present[0], self.new_version())

    @rule(user=users, data=contents, expected=st.sampled_from([None, "v1", "v2", "other"]))
    def write_blindly(self, user: Any, data: Any, expected: Any) -> None:
        self.write(user, data, expected, self.new_version())

    @rule(user=users, data=contents, times=st.integers(2, 3))
    def write_again_after_a_lost_answer(self, user: Any, data: Any, times: Any) -> None:
        present = self.model.get(user)
        expected, version = (None if present is None else present[0]), self.new_version()
        for _ in range(times):
            self.write(user, data, expected, version)

    @rule(limit=st.integers(1, 4))
    def scan(self, limit: Any) -> None:
        for store in self.stores:
            seen, cursor = store.scan(None, limit=limit)
            while cursor is not None:
                page, cursor = store.scan(cursor, limit=limit)
                seen += page
            assert sorted(seen) == sorted(self.model)

    @invariant()
    def records_agree(self) -> None:
        for store in getattr(self, "stores", []):
            for user in ("a", "B", "b", "現場", "x" * 255, "nobody"):
                assert store.load(user) == self.model.get(user)


Stores.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestStores = Stores.TestCase
