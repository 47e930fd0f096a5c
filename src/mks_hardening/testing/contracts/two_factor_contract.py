"""Contract suite for second-factor stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening.testing.contracts.compare_and_set_contract import CompareAndSetContract
from mks_hardening.testing.contracts.contract_checks import DISTINCT_TEXTS, UserStore, require

if TYPE_CHECKING:
    from mks_hardening.protocols import TwoFactorStore

__all__ = ["TwoFactorStoreContract"]


class TwoFactorStoreContract(CompareAndSetContract):
    """Required behaviour of every ``TwoFactorStore``; derive a test class and implement ``make_store``.

    Each test creates a new, empty store that may be used from several threads.
    """

    _async_methods = ("load", "replace", "scan")

    def make_store(self) -> TwoFactorStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def test_removal_needs_the_expected_version(self) -> None:
        """A record that has changed in the meantime is kept, and a removal may be repeated."""
        store = self.make_store()
        store.replace("u", b"1", expected=None, version="a")
        require(not store.replace("u", None, expected="x", version="b"), "another version is not removed")
        require(
            not store.replace("u", None, expected=None, version="b"), "an unexpected record is not removed"
        )
        require(store.load("u") == ("a", b"1"), "a refused removal changes nothing")
        for _ in range(2):
            require(store.replace("u", None, expected="a", version="c"), "a removal may be repeated")
        require(store.load("u") is None, "a removed record is gone")

    def test_scan_sees_everybody(self) -> None:
        """A scan is complete with any page size, also while records change."""
        store = self.make_store()
        everybody = {f"user {number}" for number in range(25)} | set(DISTINCT_TEXTS)
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
            require(set(seen) == everybody, "a scan returns every user id as it was written")
        require(self.make_store().scan(None, limit=5) == ([], None), "an empty store has nobody")

    async def _use_async_twins(self, store: UserStore) -> None:
        await super()._use_async_twins(store)
        require(
            not await store.areplace("k", None, expected="x", version="d"), "another version is not removed"
        )
        require(await store.areplace("k", None, expected="c", version="d"), "the expected version is removed")
        require(await store.aload("k") is None and store.load("k") is None, "a removed record is gone")
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = await store.ascan(cursor, limit=3)
            seen += page
            if cursor is None:
                break
        require(set(seen) == set(DISTINCT_TEXTS), "a scan returns user ids as they were written")
