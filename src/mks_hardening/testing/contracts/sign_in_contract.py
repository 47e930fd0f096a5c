"""Contract suite for stores of pending sign-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening.testing.contracts.contract_checks import DISTINCT_TEXTS, aclosed, at_once, require

if TYPE_CHECKING:
    from mks_hardening.security import SignInStore

__all__ = ["SignInStoreContract"]


class SignInStoreContract:
    """Required behaviour of every ``SignInStore``; derive a test class and implement ``make_store``.

    Each test creates a new, empty store that may be used from several threads.
    """

    def make_store(self) -> SignInStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Let this many seconds pass for the store."""
        raise NotImplementedError

    def test_an_unknown_key_has_no_entry(self) -> None:
        """There is no entry before it is written."""
        require(self.make_store().load("k") is None, "an unknown key has no entry")

    def test_entries_come_back_as_they_were_written(self) -> None:
        """Any bytes are preserved, also an empty entry."""
        store = self.make_store()
        for number, data in enumerate((b"", bytes(range(256)), b"\n", b"x" * 10_000)):
            written = store.replace(f"k:{number}", data, expected=None, version=f"v{number}", ttl=60)
            require(written, "a first write works")
            require(store.load(f"k:{number}") == (f"v{number}", data), "an entry is read as it was written")

    def test_keys_are_compared_exactly(self) -> None:
        """There is no case folding, no whitespace stripping, no Unicode normalisation; each string is a key."""
        store = self.make_store()
        for number, key in enumerate(DISTINCT_TEXTS):
            require(store.load(key) is None, f"{key!a} has not been written yet")
            written = store.replace(key, f"{number}".encode(), expected=None, version=f"v{number}", ttl=60)
            require(written, f"{key!a} is a key of its own")
        for number, key in enumerate(DISTINCT_TEXTS):
            require(store.load(key) == (f"v{number}", f"{number}".encode()), f"{key!a} keeps its entry")

    def test_only_the_expected_version_is_replaced(self) -> None:
        """Writes use compare-and-set."""
        store = self.make_store()
        require(store.replace("k", b"1", expected=None, version="a", ttl=60), "a first write works")
        require(not store.replace("k", b"2", expected=None, version="b", ttl=60), "it does not overwrite")
        require(not store.replace("k", b"2", expected="x", version="b", ttl=60), "nor another version")
        require(
            not store.replace("l", b"2", expected="a", version="b", ttl=60), "a missing entry is not replaced"
        )
        require(
            store.replace("k", b"2", expected="a", version="b", ttl=60), "the expected version is replaced"
        )
        require(not store.replace("k", b"3", expected="a", version="c", ttl=60), "once")
        require(store.load("k") == ("b", b"2"), "the latest entry counts")

    def test_a_repeated_write_is_not_a_conflict(self) -> None:
        """A write whose response was lost may be repeated by the same client."""
        store = self.make_store()
        for _ in range(2):
            require(
                store.replace("k", b"1", expected=None, version="a", ttl=60), "a first write may be repeated"
            )
        for _ in range(2):
            require(store.replace("k", b"", expected="a", version="b", ttl=60), "a later one too")
        require(not store.replace("k", b"", expected="a", version="c", ttl=60), "for others it is a conflict")

    def test_entries_expire(self) -> None:
        """Each entry expires after its own lifetime."""
        store = self.make_store()
        store.replace("k", b"1", expected=None, version="a", ttl=2)
        store.replace("l", b"1", expected=None, version="a", ttl=60)
        self.pass_time(3)
        require(store.load("k") is None, "an entry expires")
        require(store.load("l") is not None, "another stays")
        require(not store.replace("k", b"2", expected="a", version="b", ttl=60), "an expired version is gone")
        require(store.replace("k", b"2", expected=None, version="b", ttl=60), "its place is free")

    def test_one_of_many_writers_wins(self) -> None:
        """Compare-and-set holds with concurrent threads."""
        store = self.make_store()
        store.replace("k", b"1", expected=None, version="a", ttl=60)
        done = at_once(
            lambda number: store.replace("k", b"", expected="a", version=f"b{number}", ttl=60), threads=8
        )
        require(done.count(True) == 1, "one of many changes works")

    def test_the_async_twins_are_the_same_store(self) -> None:
        """For a store with ``aload`` and ``areplace``; other stores are called in a worker thread."""
        import asyncio

        store = self.make_store()
        aload, areplace = getattr(store, "aload", None), getattr(store, "areplace", None)
        if aload is None or areplace is None:
            require((aload, areplace) == (None, None), "a store has all twins or none")
            return

        async def play() -> None:
            require(await aload("k") is None, "an unknown key has no entry")
            require(await areplace("k", b"1", expected=None, version="a", ttl=60), "a first write works")
            require(
                not await areplace("k", b"2", expected=None, version="b", ttl=60), "it does not overwrite"
            )
            require(store.load("k") == ("a", b"1"), "the twins see one store")
            require(not await areplace("k", b"2", expected="x", version="b", ttl=60), "nor another version")
            require(
                await areplace("k", b"2", expected="a", version="b", ttl=2), "the expected one is replaced"
            )
            require(await aload("k") == ("b", b"2"), "the latest entry counts")
            for number, key in enumerate(DISTINCT_TEXTS):
                written = await areplace(key, b"x", expected=None, version=f"v{number}", ttl=60)
                require(written, f"{key!a} is a key of its own")
            self.pass_time(3)
            require(await aload("k") is None, "an entry expires after its own time")
            for number, key in enumerate(DISTINCT_TEXTS):
                require(await aload(key) == (f"v{number}", b"x"), f"{key!a} keeps its entry")
            await aclosed(store)

        asyncio.run(play())

    def test_ping_and_close(self) -> None:
        """A working store responds, and ``close`` is idempotent."""
        store = self.make_store()
        require(store.ping(), "a working store answers")
        store.close()
        store.close()
