"""Every cache against a dictionary and a clock: whatever is done, in whatever order, they agree."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mks_hardening.cache import MemoryCache, TieredCache
from mks_hardening.testing import FrozenClock

KEYS = st.sampled_from(["a", "b", "ab", "a:1", "a:2", "*"])
VALUES = st.sampled_from([None, 0, False, "", "x", [1, [2]], {"k": (1, b"\x00")}])
TTLS = st.sampled_from([0, 1, 5, 60])
TAGS = st.lists(st.sampled_from(["t", "u", "v"]), max_size=2, unique=True)
ABSENT = "absent"


class CacheMachine(RuleBasedStateMachine):
    """``model`` maps keys to value, end, and tags; nothing here knows how a cache works."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock()
        self.cache = self.make()
        self.model: dict[str, tuple[Any, float, frozenset[str]]] = {}

    def make(self) -> Any:
        return MemoryCache(clock=self.clock, jitter=0)

    def _lives(self, key: str) -> bool:
        return key in self.model and self.clock.monotonic() < self.model[key][1]

    def _expected(self, key: str) -> Any:
        return self.model[key][0] if self._lives(key) else ABSENT

    def _put(self, key: str, value: Any, ttl: float, tags: list[str]) -> None:
        self.model.pop(key, None)
        if ttl:
            self.model[key] = (value, self.clock.monotonic() + ttl, frozenset(tags))

    @rule(key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def set(self, key: str, value: Any, ttl: float, tags: list[str]) -> None:
        assert self.cache.set(key, value, ttl=ttl, tags=tags)
        self._put(key, value, ttl, tags)

    @rule(values=st.dictionaries(KEYS, VALUES, max_size=3), ttl=TTLS, tags=TAGS)
    def set_many(self, values: dict[str, Any], ttl: float, tags: list[str]) -> None:
        self.cache.set_many(values, ttl=ttl, tags=tags)
        for key, value in values.items():
            self._put(key, value, ttl, tags)

    @rule(key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def get_or_compute(self, key: str, value: Any, ttl: float, tags: list[str]) -> None:
        expected = self._expected(key)
        assert self.cache.get_or_compute(key, lambda: value, ttl=ttl, tags=tags) == (
            value if expected is ABSENT else expected
        )
        if expected is ABSENT and ttl:
            self._put(key, value, ttl, tags)

    @rule(
        key=KEYS, value=VALUES, tags=TAGS, void=st.sampled_from(["delete", "tag", "pattern", "clear", "set"])
    )
    def compute_while_it_is_invalidated(self, key: str, value: Any, tags: list[str], void: str) -> None:
        expected = self._expected(key)

        def compute() -> Any:
            if void == "delete":
                self.delete(key)
            elif void == "tag":
                self.invalidate(["t"])
            elif void == "pattern":
                self.delete_pattern("a*")
            elif void == "clear":
                self.clear()
            else:
                self.set(key, "newer", 60, [])
            return value

        got = self.cache.get_or_compute(key, compute, ttl=60, tags=tags)
        assert got == (value if expected is ABSENT else expected)
        touched = {
            "delete": True,
            "tag": "t" in tags,
            "pattern": key.startswith("a"),
            "clear": True,
            "set": True,
        }
        if expected is ABSENT and not touched[void]:
            self._put(key, value, 60, tags)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.cache.delete(key) == int(self._lives(key))
        self.model.pop(key, None)

    @rule(pattern=st.sampled_from(["a*", "a:?", "*", "\\*", "[ab]", "nothing*"]))
    def delete_pattern(self, pattern: str) -> None:
        matching = {
            "a*": lambda key: key.startswith("a"),
            "a:?": lambda key: key in {"a:1", "a:2"},
            "*": lambda _key: True,
            "\\*": lambda key: key == "*",
            "[ab]": lambda key: key in {"a", "b"},
            "nothing*": lambda _key: False,
        }[pattern]
        expected = sum(1 for key in self.model if self._lives(key) and matching(key))
        assert self.cache.delete_pattern(pattern) == expected
        self.model = {key: row for key, row in self.model.items() if not matching(key)}

    @rule(tags=TAGS)
    def invalidate(self, tags: list[str]) -> None:
        assert self.cache.invalidate_tags(*tags)
        self.model = {key: row for key, row in self.model.items() if not row[2] & set(tags)}

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule(seconds=st.sampled_from([0.5, 1, 4, 30]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(key=KEYS)
    def spoil_what_was_handed_out(self, key: str) -> None:
        value = self.cache.get(key)
        if isinstance(value, (list, dict)):
            value.clear()

    @invariant()
    def they_agree(self) -> None:
        living = {key: self._expected(key) for key in self.model if self._lives(key)}
        assert self.cache.get_many(["a", "b", "ab", "a:1", "a:2", "*"]) == living
        assert all(self.cache.exists(key) == self._lives(key) for key in ("a", "b"))


class TieredMachine(CacheMachine):
    """Two tiers behave as one as long as nobody else writes to the far one."""

    def make(self) -> Any:
        far = MemoryCache(clock=self.clock, jitter=0)
        return TieredCache(MemoryCache(clock=self.clock, jitter=0), far, l1_ttl=3)


TestCacheMachine = CacheMachine.TestCase
TestTieredMachine = TieredMachine.TestCase
TestCacheMachine.settings = TestTieredMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
