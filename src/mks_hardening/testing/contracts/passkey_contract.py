"""Contract suite for passkey stores."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mks_hardening.testing.contracts.contract_checks import DISTINCT_TEXTS, aclosed, at_once, require

if TYPE_CHECKING:
    from mks_hardening.protocols import PasskeyStore

__all__ = ["PasskeyStoreContract"]

_KEY = "0123456789abcdef" * 4


class PasskeyStoreContract:
    """Required behaviour of every ``PasskeyStore``; derive a test class and implement ``make_store``.

    Each test creates a new, empty store that may be used from several threads.
    """

    def make_store(self) -> PasskeyStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def test_a_challenge_is_taken_once(self) -> None:
        """The data is returned unchanged, and only once."""
        store = self.make_store()
        require(store.consume_challenge(_KEY) is None, "an unknown challenge returns None")
        data = bytes(range(256))
        store.save_challenge(_KEY, data, ttl=60)
        store.save_challenge("other", b"2", ttl=60)
        require(store.consume_challenge(_KEY) == data, "a challenge is returned unchanged")
        require(store.consume_challenge(_KEY) is None, "a challenge can be consumed once")
        require(store.consume_challenge("other") == b"2", "challenges are independent")

    def test_a_challenge_expires(self) -> None:
        """A challenge with a very short lifetime is gone."""
        store = self.make_store()
        store.save_challenge(_KEY, b"x", ttl=0.001)
        store.save_challenge("other", b"x", ttl=60)
        threading.Event().wait(0.01)  # the store may use the clock of a server
        require(store.consume_challenge(_KEY) is None, "an expired challenge returns None")
        require(store.consume_challenge("other") == b"x", "another challenge does not expire")

    def test_one_of_many_takes_a_challenge(self) -> None:
        """A challenge can be used only once, also with concurrent threads."""
        store = self.make_store()
        store.save_challenge(_KEY, b"x", ttl=60)
        taken = at_once(lambda _: store.consume_challenge(_KEY), threads=8)
        require(taken.count(b"x") == 1, "one of several concurrent callers gets the challenge")

    def test_the_first_owner_stays(self) -> None:
        """A credential belongs to one user, and only that user can release it."""
        store = self.make_store()
        require(store.owner(_KEY) is None, "an unknown credential has no owner")
        first = "現場 太郎" + "x" * 240
        require(store.assign_owner(_KEY, first) == first, "a credential without an owner is assigned")
        require(store.assign_owner(_KEY, first) == first, "an assignment can be repeated")
        require(store.assign_owner(_KEY, "b") == first, "a credential that has an owner keeps it")
        require(store.owner(_KEY) == first, "owner returns the owner")
        require(not store.release(_KEY, "b"), "another user cannot release the credential")
        require(store.owner(_KEY) == first, "a refused release changes nothing")
        require(store.release(_KEY, first), "the owner can release the credential")
        require(not store.release(_KEY, first), "releasing a credential without an owner returns false")
        require(store.assign_owner(_KEY, "b") == "b", "a released credential has no owner")

    def test_names_are_compared_exactly(self) -> None:
        """Keys, credentials and user ids are not case-folded, stripped or normalised."""
        store = self.make_store()
        for key in ("aBc-_9", "abc-_9", "ABC-_9"):
            store.save_challenge(key, key.encode(), ttl=60)
            require(
                store.assign_owner(key, f"user of {key}") == f"user of {key}",
                "case distinguishes credentials",
            )
        for key in ("aBc-_9", "abc-_9", "ABC-_9"):
            require(store.consume_challenge(key) == key.encode(), "case distinguishes challenges")
        for number, user_id in enumerate(DISTINCT_TEXTS):
            require(
                store.assign_owner(f"c{number}", user_id) == user_id, f"{user_id!a} is returned unchanged"
            )
        for number, user_id in enumerate(DISTINCT_TEXTS):
            require(store.owner(f"c{number}") == user_id, f"{user_id!a} is the owner")
            other = DISTINCT_TEXTS[number - 1]
            require(not store.release(f"c{number}", other), f"{other!a} is another user")

    def test_one_of_many_claims_wins(self) -> None:
        """Among concurrent threads, one claim wins and all get the same owner."""
        store = self.make_store()
        owners = at_once(lambda number: store.assign_owner(_KEY, f"u{number}"), threads=8)
        require(len(set(owners)) == 1, "one of several concurrent assignments wins")
        require(store.owner(_KEY) == owners[0], "the winner is the owner")

    def test_the_async_twins_are_the_same_store(self) -> None:
        """For a store with asynchronous methods; other stores are called in a worker thread."""
        import asyncio

        store = self.make_store()
        names = ("save_challenge", "consume_challenge", "assign_owner", "owner", "release")
        keep, take, assign, owner, release = (getattr(store, f"a{name}", None) for name in names)
        if keep is None or take is None or assign is None or owner is None or release is None:
            require(
                (keep, take, assign, owner, release) == (None,) * len(names),
                "a store has all async methods or none",
            )
            return

        async def play() -> None:
            await keep(_KEY, b"x", ttl=60)
            require(await take(_KEY) == b"x", "a challenge is returned unchanged")
            require(await take(_KEY) is None, "a challenge can be consumed once")
            require(await assign("c", "u") == "u", "a credential without an owner is assigned")
            require(await owner("c") == store.owner("c") == "u", "the async methods use the same store")
            require(await assign("c", "v") == "u", "a credential that has an owner keeps it")
            require(not await release("c", "v"), "another user cannot release the credential")
            require(not await release("c", "U"), "user ids are compared exactly")
            require(await release("c", "u"), "the owner can release the credential")
            require(await owner("c") is None, "a released credential has no owner")
            await keep("short", b"x", ttl=0.001)
            await asyncio.sleep(0.01)  # the store may use the clock of a server
            require(await take("short") is None, "an expired challenge returns None")
            await aclosed(store)

        asyncio.run(play())

    def test_ping_and_close(self) -> None:
        """A working store responds, and ``close`` is idempotent."""
        store = self.make_store()
        require(store.ping(), "a working store answers")
        store.close()
        store.close()
