"""Contract suite for second-factor stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening.testing.contracts.contract_checks import DISTINCT_TEXTS, aclosed, at_once, require

if TYPE_CHECKING:
    from mks_hardening.protocols import (
        TwoFactorStore,
    )

__all__ = ["TwoFactorStoreContract"]


class TwoFactorStoreContract:
    """Required behaviour of every ``TwoFactorStore``; derive a test class and implement ``make_store``.

    Each test creates a new, empty store that may be used from several threads.
    """

    def make_store(self) -> TwoFactorStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def test_unknown_users_have_no_record(self) -> None:
        """There is no record before it is written."""
        require(self.make_store().load("u") is None, "an unknown user has no record")

    def test_records_come_back_as_they_were_written(self) -> None:
        """Any bytes and any string of 255 characters are preserved."""
        store = self.make_store()
        for number, user_id in enumerate(("u", "U", "現場 太郎", "a:b{c}d\n*?[x]", "x" * 255, "Ω" * 255)):
            data = bytes(range(256)) * number + b"x"
            require(store.replace(user_id, data, expected=None, version=f"v{number}"), "a first write works")
            require(store.load(user_id) == (f"v{number}", data), "a record is read as it was written")

    def test_user_ids_are_compared_exactly(self) -> None:
        """There is no case folding, no whitespace stripping, no Unicode normalisation; each string is a user."""
        store = self.make_store()
        for number, user_id in enumerate(DISTINCT_TEXTS):
            require(store.load(user_id) is None, f"{user_id!a} has not been written yet")
            written = store.replace(user_id, f"{number}".encode(), expected=None, version=f"v{number}")
            require(written, f"{user_id!a} is a user of its own")
        for number, user_id in enumerate(DISTINCT_TEXTS):
            require(
                store.load(user_id) == (f"v{number}", f"{number}".encode()), f"{user_id!a} keeps its record"
            )
        users, cursor = store.scan(None, limit=2 * len(DISTINCT_TEXTS))
        while cursor is not None:
            page, cursor = store.scan(cursor, limit=2 * len(DISTINCT_TEXTS))
            users += page
        require(set(users) == set(DISTINCT_TEXTS), "a scan returns user ids as they were written")

    def test_only_the_expected_version_is_replaced(self) -> None:
        """Writes use compare-and-set."""
        store = self.make_store()
        require(store.replace("u", b"1", expected=None, version="a"), "a first write works")
        require(not store.replace("u", b"2", expected=None, version="b"), "a first write does not overwrite")
        require(not store.replace("u", b"2", expected="x", version="b"), "another version is not replaced")
        require(store.load("u") == ("a", b"1"), "a refused write changes nothing")
        require(store.replace("u", b"2", expected="a", version="b"), "the expected version is replaced")
        require(not store.replace("u", b"3", expected="a", version="c"), "a version is replaced once")
        require(store.load("u") == ("b", b"2"), "the latest record counts")
        require(not store.replace("v", b"1", expected="a", version="b"), "a missing record is not replaced")

    def test_a_repeated_write_is_not_a_conflict(self) -> None:
        """A write whose response was lost may be repeated."""
        store = self.make_store()
        for _ in range(2):
            require(store.replace("u", b"1", expected=None, version="a"), "a first write may be repeated")
        for _ in range(2):
            require(store.replace("u", b"2", expected="a", version="b"), "a write may be repeated")
        for _ in range(2):
            require(store.replace("u", None, expected="b", version="c"), "a removal may be repeated")
        require(store.load("u") is None, "a removed record is gone")

    def test_removal_needs_the_expected_version(self) -> None:
        """A record that has changed in the meantime is kept."""
        store = self.make_store()
        store.replace("u", b"1", expected=None, version="a")
        require(not store.replace("u", None, expected="x", version="b"), "another version is not removed")
        require(
            not store.replace("u", None, expected=None, version="b"), "an unexpected record is not removed"
        )
        require(store.load("u") == ("a", b"1"), "a refused removal changes nothing")

    def test_scan_sees_everybody(self) -> None:
        """A scan is complete with any page size, also while records change."""
        store = self.make_store()
        everybody = {f"user {number}" for number in range(25)}
        for user_id in everybody:
            store.replace(user_id, b"x", expected=None, version="a")
        for limit in (1, 7, 25, 100):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page, cursor = store.scan(cursor, limit=limit)
                for user_id in page:
                    stored = store.load(user_id)
                    if stored is not None:
                        store.replace(user_id, b"y", expected=stored.version, version=f"{limit}")
                seen += page
                if cursor is None:
                    break
            require(set(seen) == everybody, "a scan sees every user")
        require(self.make_store().scan(None, limit=5) == ([], None), "an empty store has nobody")

    def test_one_of_many_writers_wins(self) -> None:
        """Compare-and-set holds with concurrent threads, for a first write, a change and a removal."""
        store = self.make_store()
        first = at_once(
            lambda number: store.replace("u", b"1", expected=None, version=f"a{number}"), threads=8
        )
        require(first.count(True) == 1, "one of many first writes works")
        version = f"a{first.index(True)}"
        second = at_once(
            lambda number: store.replace("u", b"2", expected=version, version=f"b{number}"), threads=8
        )
        require(second.count(True) == 1, "one of many changes works")
        require(store.load("u") == (f"b{second.index(True)}", b"2"), "the winner's record is stored")

    def test_the_async_twins_are_the_same_store(self) -> None:
        """For a store with ``aload``, ``areplace`` and ``ascan``; other stores are called in a worker thread."""
        import asyncio

        store = self.make_store()
        aload, areplace, ascan = (getattr(store, f"a{name}", None) for name in ("load", "replace", "scan"))
        if aload is None or areplace is None or ascan is None:
            require((aload, areplace, ascan) == (None, None, None), "a store has all twins or none")
            return

        async def play() -> None:
            require(await aload("u") is None, "an unknown user has no record")
            require(await areplace("u", b"1", expected=None, version="a"), "a first write works")
            require(not await areplace("u", b"2", expected=None, version="b"), "it does not overwrite")
            require(await aload("u") == ("a", b"1"), "a record is read as it was written")
            require((await ascan(None, limit=10))[0] == ["u"], "a scan sees every user")
            require(store.load("u") == ("a", b"1"), "the twins see one store")
            require(
                not await areplace("u", None, expected="x", version="c"), "another version is not removed"
            )
            require(
                not await areplace("u", b"3", expected="x", version="c"), "another version is not replaced"
            )
            require(await areplace("u", b"3", expected="a", version="c"), "the expected version is replaced")
            require(await areplace("u", b"3", expected="a", version="c"), "a write may be repeated")
            require(store.load("u") == ("c", b"3"), "the latest record counts")
            require(await areplace("u", None, expected="c", version="d"), "the expected version is removed")
            require(await aload("u") is None and store.load("u") is None, "a removed record is gone")
            for number, user_id in enumerate(DISTINCT_TEXTS):
                written = await areplace(user_id, b"x", expected=None, version=f"v{number}")
                require(written, f"{user_id!a} is a user of its own")
            for number, user_id in enumerate(DISTINCT_TEXTS):
                require(await aload(user_id) == (f"v{number}", b"x"), f"{user_id!a} keeps its record")
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page, cursor = await ascan(cursor, limit=3)
                seen += page
                if cursor is None:
                    break
            require(set(seen) == set(DISTINCT_TEXTS), "a scan returns user ids as they were written")
            await aclosed(store)

        asyncio.run(play())

    def test_ping_and_close(self) -> None:
        """A working store responds, and ``close`` is idempotent."""
        store = self.make_store()
        require(store.ping(), "a working store answers")
        store.close()
        store.close()
