"""Contract suite for stores of pending sign-ins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mks_hardening.testing.contracts.compare_and_set_contract import CompareAndSetContract
from mks_hardening.testing.contracts.contract_checks import UserStore, require

if TYPE_CHECKING:
    from mks_hardening.security import SignInStore

__all__ = ["SignInStoreContract"]


class SignInStoreContract(CompareAndSetContract):
    """Required behaviour of every ``SignInStore``; derive a test class and implement ``make_store``.

    Each test creates a new, empty store that may be used from several threads.
    """

    _write_options: ClassVar[Mapping[str, Any]] = {"ttl": 60}

    def make_store(self) -> SignInStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Let this many seconds pass for the store."""
        raise NotImplementedError

    def test_an_entry_may_be_empty(self) -> None:
        """Empty data is preserved: it marks a token that was used."""
        store = self.make_store()
        store.replace("k", b"", expected=None, version="a", ttl=60)
        require(store.load("k") == ("a", b""), "an empty entry is read as it was written")

    def test_entries_expire(self) -> None:
        """Each entry expires after its own lifetime."""
        store = self.make_store()
        store.replace("k", b"1", expected=None, version="a", ttl=2)
        store.replace("l", b"1", expected=None, version="a", ttl=60)
        self.pass_time(3)
        require(store.load("k") is None, "an entry expires")
        require(store.load("l") is not None, "another entry remains")
        require(not store.replace("k", b"2", expected="a", version="b", ttl=60), "an expired version is gone")
        require(
            store.replace("k", b"2", expected=None, version="b", ttl=60), "an expired key can be used again"
        )

    async def _use_async_twins(self, store: UserStore) -> None:
        await super()._use_async_twins(store)
        await store.areplace("short", b"1", expected=None, version="a", ttl=2)
        self.pass_time(3)
        require(await store.aload("short") is None, "an entry expires after its own time")
        require(await store.aload("k") is not None, "another entry remains")
