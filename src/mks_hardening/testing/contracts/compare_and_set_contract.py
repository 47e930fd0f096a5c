"""Rules that the contract suites of stores with compare-and-set share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from mks_hardening.testing.contracts.contract_checks import (
    DISTINCT_TEXTS,
    UserStore,
    aclosed,
    at_once,
    require,
)

__all__ = ["CompareAndSetContract"]


class CompareAndSetContract:
    """Required behaviour of ``load`` and ``replace``, which change records by their versions."""

    _write_options: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of every ``replace``."""
    _async_methods: ClassVar[tuple[str, ...]] = ("load", "replace")
    _KEYS: ClassVar[tuple[str, ...]] = ("k", "K", "現場 太郎", "a:b{c}d\n*?[x]", "x" * 255, "Ω" * 255)

    def make_store(self) -> UserStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def _write(
        self, store: UserStore, key: str, data: bytes | None, *, expected: str | None = None, version: str
    ) -> bool:
        return bool(store.replace(key, data, expected=expected, version=version, **self._write_options))

    def test_an_unknown_key_has_no_record(self) -> None:
        """There is no record before it is written."""
        require(self.make_store().load("k") is None, "an unknown key has no record")

    def test_records_come_back_as_they_were_written(self) -> None:
        """Any bytes and any key of 255 characters are preserved."""
        store = self.make_store()
        for number, key in enumerate(self._KEYS):
            data = bytes(range(256)) * number + b"\n"
            require(self._write(store, key, data, version=f"v{number}"), "a first write works")
            require(store.load(key) == (f"v{number}", data), "a record is read as it was written")

    def test_keys_are_compared_exactly(self) -> None:
        """There is no case folding, no whitespace stripping, no Unicode normalisation; each string is a key."""
        store = self.make_store()
        for number, key in enumerate(DISTINCT_TEXTS):
            require(store.load(key) is None, f"{key!a} has not been written yet")
            written = self._write(store, key, f"{number}".encode(), version=f"v{number}")
            require(written, f"{key!a} is a separate key")
        for number, key in enumerate(DISTINCT_TEXTS):
            require(store.load(key) == (f"v{number}", f"{number}".encode()), f"{key!a} keeps its record")

    def test_only_the_expected_version_is_replaced(self) -> None:
        """Writes use compare-and-set."""
        store = self.make_store()
        require(self._write(store, "k", b"1", version="a"), "a first write works")
        require(not self._write(store, "k", b"2", version="b"), "a first write does not overwrite")
        require(
            not self._write(store, "k", b"2", expected="x", version="b"), "another version is not replaced"
        )
        require(store.load("k") == ("a", b"1"), "a refused write changes nothing")
        require(self._write(store, "k", b"2", expected="a", version="b"), "the expected version is replaced")
        require(not self._write(store, "k", b"3", expected="a", version="c"), "a version is replaced once")
        require(store.load("k") == ("b", b"2"), "the latest record counts")
        require(
            not self._write(store, "l", b"1", expected="a", version="b"), "a missing record is not replaced"
        )

    def test_a_repeated_write_is_not_a_conflict(self) -> None:
        """A write whose response was lost may be repeated by the same client."""
        store = self.make_store()
        for _ in range(2):
            require(self._write(store, "k", b"1", version="a"), "a first write may be repeated")
        for _ in range(2):
            require(self._write(store, "k", b"2", expected="a", version="b"), "a write may be repeated")
        require(
            not self._write(store, "k", b"2", expected="a", version="c"),
            "another caller's write with the old version is refused",
        )

    def test_one_of_many_writers_wins(self) -> None:
        """Compare-and-set holds with concurrent threads, for a first write and a change."""
        store = self.make_store()
        first = at_once(lambda number: self._write(store, "k", b"1", version=f"a{number}"), threads=8)
        require(first.count(True) == 1, "one of many first writes works")
        version = f"a{first.index(True)}"
        second = at_once(
            lambda number: self._write(store, "k", b"2", expected=version, version=f"b{number}"), threads=8
        )
        require(second.count(True) == 1, "one of many changes works")
        require(store.load("k") == (f"b{second.index(True)}", b"2"), "the winner's record is stored")

    def test_the_async_twins_are_the_same_store(self) -> None:
        """For a store with asynchronous methods; other stores are called in a worker thread."""
        import asyncio

        store = self.make_store()
        missing = [name for name in self._async_methods if not hasattr(store, f"a{name}")]
        if missing:
            require(len(missing) == len(self._async_methods), "a store has all twins or none")
            return

        async def scenario() -> None:
            await self._use_async_twins(store)
            await aclosed(store)

        asyncio.run(scenario())

    async def _use_async_twins(self, store: UserStore) -> None:
        async def write(key: str, data: bytes, expected: str | None, version: str) -> bool:
            options = {"expected": expected, "version": version, **self._write_options}
            return bool(await store.areplace(key, data, **options))

        require(await store.aload("k") is None, "an unknown key has no record")
        require(await write("k", b"1", None, "a"), "a first write works")
        require(not await write("k", b"2", None, "b"), "a first write does not overwrite")
        require(
            await store.aload("k") == store.load("k") == ("a", b"1"), "the async methods use the same store"
        )
        require(not await write("k", b"3", "x", "c"), "another version is not replaced")
        for _ in range(2):
            require(await write("k", b"3", "a", "c"), "the expected version is replaced, also twice")
        require(await store.aload("k") == store.load("k") == ("c", b"3"), "the latest record counts")
        for number, key in enumerate(DISTINCT_TEXTS):
            require(await write(key, b"x", None, f"v{number}"), f"{key!a} is a separate key")
        for number, key in enumerate(DISTINCT_TEXTS):
            require(await store.aload(key) == (f"v{number}", b"x"), f"{key!a} keeps its record")

    def test_ping_and_close(self) -> None:
        """A working store responds, and ``close`` is idempotent."""
        store = self.make_store()
        require(store.ping(), "a working store answers")
        store.close()
        store.close()
