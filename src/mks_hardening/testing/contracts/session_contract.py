"""Contract suite for session stores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from mks_hardening.protocols import SessionRecord
from mks_hardening.testing.contracts.contract_checks import (
    DISTINCT_TEXTS,
    aclosed,
    at_once,
    call_nth,
    require,
)

if TYPE_CHECKING:
    from mks_hardening.protocols import AsyncSessionStore, SessionStore

__all__ = ["SessionStoreContract"]


class SessionStoreContract:
    """Required behaviour of every ``SessionStore``; derive a test class and implement ``make_store``.

    Each test creates a new, empty store that may be used from several threads.
    """

    now: float = 1_700_000_000.0

    def make_store(self) -> SessionStore:
        """Return a new, empty store."""
        raise NotImplementedError

    def test_unknown_sessions(self) -> None:
        """No operation has an effect on a session that was never created."""
        store = self.make_store()
        require(store.load("k") is None, "an unknown session has no record")
        require(store.rotate("k", "n", now=self.now) is None, "an unknown session is not rotated")
        require(
            not store.touch("k", seen_at=self.now, expires_at=self.now + 9),
            "touch does nothing for an unknown session",
        )
        require(not store.update("k", version=0, data="{}"), "update does nothing for an unknown session")
        require(not store.end("k", reason="idle"), "end does nothing for an unknown session")
        require(
            store.load("k") is None and store.load("n") is None,
            "calls for an unknown session do not create one",
        )
        require(list(store.sessions("u", now=self.now)) == [], "an unknown user has no sessions")
        require(store.end_user("u", now=self.now) == 0, "end_user ends nothing for an unknown user")

    def test_records_come_back_as_they_were_made(self) -> None:
        """Any user name, any JSON text, and fractions of seconds are preserved."""
        store = self.make_store()
        for number, user_id in enumerate(("u", "現場 太郎", "a:b{c}d\n*?[x]", "x" * 255, "Ω")):
            record = self._record(f"k{number}", user_id)._replace(
                seen_at=self.now + 0.123456, data='{"名":"\\"\\n","n":[1.5,null,true,{}]}'
            )
            require(list(store.create(record, now=self.now)) == [], "a first session ends no other")
            require(store.load(record.key) == record, "a record is read as it was made")
            require(
                list(store.sessions(user_id, now=self.now)) == [record], "a session is listed for its user"
            )

    def test_large_data_comes_back_whole(self) -> None:
        """More data than fits into a cookie or a short text column, in multi-byte characters."""
        store = self.make_store()
        for number, length in enumerate((4_097, 20_000, 70_000)):
            data = '{"v":"' + "\u6280" * length + '"}'
            key = f"k{number}"
            store.create(self._record(key)._replace(data=data), now=self.now)
            require(self._data(store, key) == data, "large data is created whole")
            changed = data.replace("\u6280", "\u8853")
            require(store.update(key, version=0, data=changed), "large data is replaced")
            require(self._data(store, key) == changed, "large data is read unchanged")
            moved = store.rotate(key, f"new {key}", now=self.now)
            require(moved is not None and moved.data == changed, "large data survives a rotation")

    def test_user_ids_are_compared_exactly(self) -> None:
        """There is no case folding, no whitespace stripping, no Unicode normalisation."""
        store = self.make_store()
        for number, user_id in enumerate(DISTINCT_TEXTS):
            ended = store.create(self._record(f"k{number}", user_id), now=self.now, max_sessions=1)
            require(list(ended) == [], f"{user_id!a} has no other session")
        for number, user_id in enumerate(DISTINCT_TEXTS):
            listed = [one.key for one in store.sessions(user_id, now=self.now)]
            require(listed == [f"k{number}"], f"{user_id!a} has one session")
        require(store.end_user(DISTINCT_TEXTS[0], now=self.now) == 1, "one user's session ends")
        require(self._ended(store, "k1") == "", f"{DISTINCT_TEXTS[1]!a} is another user")

    def test_of_two_equal_updates_one_is_made(self) -> None:
        """Two requests that read the same version and write the same value must not both succeed."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        require(store.update("k", version=0, data='{"n":1}'), "the first update is made")
        require(
            not store.update("k", version=0, data='{"n":1}'), "a second update of the same version is refused"
        )
        record = store.load("k")
        require(record is not None and record.version == 1, "the version increases by one")

    def test_a_repeated_creation_changes_nothing(self) -> None:
        """A creation whose response was lost may be repeated."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        store.update("k", version=0, data='{"a":1}')
        ended = store.create(self._record("k"), now=self.now, max_sessions=1)
        require(list(ended) == [], "a repeated creation ends nothing")
        record = store.load("k")
        require(record is not None and record.data == '{"a":1}', "a repeated creation changes nothing")
        store.end("k", reason="revoked")
        store.create(self._record("k"), now=self.now)
        require(self._ended(store, "k") == "revoked", "a repeated creation revives nothing")

    def test_a_replaced_session_is_dead(self) -> None:
        """A replaced session ends, whichever user it belongs to."""
        store = self.make_store()
        store.create(self._record("old", "u")._replace(data='{"a":1}'), now=self.now)
        store.create(self._record("new", "v"), now=self.now + 5, replaces="old")
        require(self._ended(store, "old") == "replaced", "the replaced session has ended")
        old = store.load("old")
        require(old is not None and old.seen_at == self.now + 5, "an ended session records when it ended")
        require(old is not None and old.expires_at == self.now + 5, "an ended session expires when it ends")
        require(old is not None and old.data == "{}", "the data of a replaced session is deleted")
        require(self._ended(store, "new") == "", "the new session is active")
        store.create(self._record("other"), now=self.now, replaces="unknown")
        require(self._ended(store, "other") == "", "a session may replace one that is gone")

    def test_the_oldest_ends_beyond_the_limit(self) -> None:
        """Only active sessions of this user are counted."""
        store = self.make_store()
        store.create(self._record("other", "v"), now=self.now)
        store.create(self._record("expired", life=10.0), now=self.now)
        now = self.now + 20
        for number in range(4):
            key = f"k{number}"
            ended = store.create(self._record(key, at=now + number), now=now + number, max_sessions=2)
            require(list(ended) == ([f"k{number - 2}"] if number >= 2 else []), "the oldest session ends")
        living = [record.key for record in store.sessions("u", now=now + 4)]
        require(living == ["k2", "k3"], "the newest stay, oldest first")
        require(self._ended(store, "k0") == "revoked", "a session that ended for the limit is dead")
        require(self._ended(store, "other") == "", "sessions of other users are not affected")

    def test_rotation_moves_a_session(self) -> None:
        """User, time and data move; the old key ends; a repetition returns the first result."""
        store = self.make_store()
        store.create(self._record("old")._replace(data='{"a":1}'), now=self.now)
        moved = store.rotate("old", "new", now=self.now + 5)
        require(moved == self._record("new")._replace(data='{"a":1}'), "a rotation moves the whole record")
        require(store.rotate("old", "new", now=self.now) == moved, "a repetition gets the first answer")
        require(self._ended(store, "old") == "rotated", "the old key has ended")
        old = store.load("old")
        require(old is not None and old.seen_at == self.now + 5, "an ended session records when it ended")
        require(old is not None and old.expires_at == self.now + 5, "an ended session expires when it ends")
        require(old is not None and old.data == '{"a":1}', "requests in flight can read the data")
        require(store.rotate("old", "third", now=self.now) is None, "a dead session is not rotated")
        require(store.load("third") is None, "a refused rotation creates no session")
        changed = store.rotate("new", "newer", now=self.now, data='{"b":2}')
        require(changed is not None and changed.data == '{"b":2}', "data can be replaced on the way")
        require(changed is not None and changed.version == 1, "changed data gets a new version")
        require([one.key for one in store.sessions("u", now=self.now)] == ["newer"], "one session is listed")

    def test_activity_moves_forward_only(self) -> None:
        """A slow request does not revert what a faster one recorded."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        require(store.touch("k", seen_at=self.now + 50, expires_at=self.now + 150), "activity is recorded")
        require(
            store.touch("k", seen_at=self.now + 20, expires_at=self.now + 120), "late activity is no error"
        )
        record = store.load("k")
        require(record is not None and record.seen_at == self.now + 50, "activity moves forward only")
        require(record is not None and record.expires_at == self.now + 150, "the deadline only moves forward")

    def test_data_is_compared_and_set(self) -> None:
        """An update succeeds only if the version is still the one that was read."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        require(store.update("k", version=0, data='{"a":1}'), "the version that was read is replaced")
        require(not store.update("k", version=0, data='{"a":2}'), "an update of an older version is refused")
        require(not store.update("k", version=2, data='{"a":2}'), "an update of a future version is refused")
        record = store.load("k")
        require(
            record is not None and (record.version, record.data) == (1, '{"a":1}'), "the first one counts"
        )

    def test_a_session_ends_once_and_for_all(self) -> None:
        """The first reason is kept, the data is deleted, and nothing reactivates the session."""
        store = self.make_store()
        store.create(self._record("k")._replace(data='{"a":1}'), now=self.now)
        require(store.end("k", reason="idle"), "an active session can be ended")
        require(not store.end("k", reason="revoked"), "an ended session cannot be ended again")
        require(
            not store.touch("k", seen_at=self.now + 5, expires_at=self.now + 500),
            "touch does nothing for an ended session",
        )
        require(not store.update("k", version=0, data="{}"), "update does nothing for an ended session")
        require(store.rotate("k", "n", now=self.now) is None, "rotate does nothing for an ended session")
        record = store.load("k")
        require(record is not None and record.ended == "idle", "the first reason stays")
        require(record is not None and record.data == "{}", "the data is gone")
        require(list(store.sessions("u", now=self.now)) == [], "an ended session is not listed")

    def test_all_sessions_of_a_user_end_but_one(self) -> None:
        """Sessions of other users are not affected."""
        store = self.make_store()
        for key, user in (("a", "u"), ("b", "u"), ("c", "u"), ("d", "v")):
            store.create(self._record(key, user), now=self.now)
        require(store.end_user("u", now=self.now, keep="b") == 2, "the other sessions end")
        require(store.end_user("u", now=self.now, keep="b") == 0, "once")
        require([one.key for one in store.sessions("u", now=self.now)] == ["b"], "the other session remains")
        require(store.end_user("u", now=self.now) == 1, "end_user ends all sessions")
        require(self._ended(store, "d") == "", "sessions of other users are not affected")

    def test_ending_all_sessions_ends_expired_ones_too(self) -> None:
        """A web server may have unwritten activity, and would otherwise continue such a session."""
        store = self.make_store()
        store.create(self._record("k", life=10.0), now=self.now)
        store.create(self._record("kept", life=10.0), now=self.now)
        now = self.now + 20
        require(store.end_user("u", now=now, keep="kept") == 0, "expired sessions are not counted")
        require(
            not store.touch("k", seen_at=now, expires_at=now + 100), "touch does not revive expired sessions"
        )
        require(store.rotate("k", "new", now=now) is None, "expired sessions cannot be rotated")
        require([one.key for one in store.sessions("u", now=now)] == [], "expired sessions are not listed")
        require(store.touch("kept", seen_at=now, expires_at=now + 100), "the kept session stays active")

    def test_expired_sessions_are_not_listed(self) -> None:
        """An expired session is not listed, even if it was never ended."""
        store = self.make_store()
        store.create(self._record("k", life=10.0), now=self.now)
        require(len(store.sessions("u", now=self.now + 9)) == 1, "listed before its time")
        require(len(store.sessions("u", now=self.now + 10)) == 0, "an expired session is not listed")

    def test_threads_do_not_get_past_the_limit(self) -> None:
        """The limit holds for any number of concurrent sign-ins."""
        store = self.make_store()

        def sign_in(number: int) -> None:
            for again in range(4):
                at = self.now + number / 100
                store.create(self._record(f"k{number}-{again}", at=at), now=at, max_sessions=3)

        at_once(sign_in, threads=8)
        require(len(store.sessions("u", now=self.now + 1)) == 3, "the limit holds")

    def test_threads_do_not_revive(self) -> None:
        """No concurrent operation reactivates a session that ends."""
        store = self.make_store()
        for turn in range(20):
            key = f"k{turn}"
            store.create(self._record(key), now=self.now)
            work: list[Callable[[], object]] = [
                partial(store.end, key, reason="revoked"),
                partial(store.touch, key, seen_at=self.now + 1, expires_at=self.now + 500),
                partial(store.update, key, version=0, data='{"a":1}'),
                partial(store.create, self._record(key), now=self.now),
            ]
            at_once(partial(call_nth, work), threads=len(work))
            require(self._ended(store, key) == "revoked", "an ended session cannot be revived")
        require(list(store.sessions("u", now=self.now)) == [], "no session is listed after its end")

    def test_no_update_of_many_threads_is_lost(self) -> None:
        """Each thread increments by read and compare-and-set until it succeeds."""
        store = self.make_store()
        store.create(self._record("k")._replace(data="0"), now=self.now)

        def add(_: int) -> None:
            for _ in range(5):
                while True:
                    record = store.load("k")
                    require(record is not None, "the session is active")
                    if record is None or store.update(
                        "k", version=record.version, data=str(int(record.data) + 1)
                    ):
                        break

        at_once(add, threads=4)
        record = store.load("k")
        require(record is not None and (record.version, record.data) == (20, "20"), "no update is lost")

    def test_one_of_many_rotations_wins(self) -> None:
        """The other rotations find an ended session."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        moved = at_once(lambda number: store.rotate("k", f"n{number}", now=self.now), threads=8)
        require(sum(record is not None for record in moved) == 1, "one rotation wins")
        require(len(store.sessions("u", now=self.now)) == 1, "one session is active")

    def test_ping_and_close(self) -> None:
        """A working store responds, and ``close`` is idempotent."""
        store = self.make_store()
        require(store.ping(), "a working store answers")
        store.close()
        store.close()

    def test_the_async_twins_are_the_same_store(self) -> None:
        """For a store with asynchronous methods (``AsyncSessionStore``)."""
        import asyncio

        store = self.make_store()
        if getattr(store, "aload", None) is None:
            return

        async def play(twin: AsyncSessionStore) -> None:
            old, new = self._record("old"), self._record("new", at=self.now + 1)
            require(list(await twin.acreate(old, now=self.now)) == [], "a first session ends no other")
            require(store.load("old") == await twin.aload("old") == old, "one store, read in two ways")
            ended = await twin.acreate(new, now=self.now + 1, max_sessions=1)
            require(list(ended) == ["old"], "the oldest ends beyond the limit")
            require(
                await twin.atouch("new", seen_at=self.now + 5, expires_at=self.now + 105), "activity counts"
            )
            require(await twin.aupdate("new", version=0, data='{"a":1}'), "data is replaced")
            require(not await twin.aupdate("new", version=0, data="{}"), "the async update compares versions")
            moved = await twin.arotate("new", "newer", now=self.now + 6)
            require(
                moved is not None and (moved.version, moved.seen_at) == (1, self.now + 5),
                "the async rotation moves the session",
            )
            require(
                [*await twin.asessions("u", now=self.now + 6)] == [moved], "the rotated session is listed"
            )
            changed = await twin.arotate("newer", "newest", now=self.now + 6, data='{"b":2}')
            require(changed is not None and changed.data == '{"b":2}', "data can be replaced on the way")
            require(changed is not None and changed.version == 2, "changed data gets a new version")
            require(
                not await twin.atouch("newer", seen_at=self.now, expires_at=self.now), "the old id is dead"
            )
            await twin.acreate(
                self._record("successor", at=self.now + 7), now=self.now + 7, replaces="newest"
            )
            require(self._ended(store, "newest") == "replaced", "the replaced session has ended")
            require(await twin.aend("successor", reason="idle"), "the async end ends the session")
            require(not await twin.aend("successor", reason="idle"), "once")
            await twin.acreate(self._record("last"), now=self.now)
            await twin.acreate(self._record("kept"), now=self.now)
            require(await twin.aend_user("u", now=self.now, keep="kept") == 1, "the other sessions end")
            require(
                [one.key for one in await twin.asessions("u", now=self.now)] == ["kept"],
                "the other session remains",
            )
            require(await twin.aend_user("u", now=self.now) == 1, "end_user ends all sessions")
            await aclosed(store)

        asyncio.run(play(cast("AsyncSessionStore", store)))

    def _record(
        self, key: str, user_id: str = "u", *, at: float | None = None, life: float = 100.0
    ) -> SessionRecord:
        start = self.now if at is None else at
        return SessionRecord(key, user_id, start, start, start + life)

    @staticmethod
    def _data(store: SessionStore, key: str) -> str | None:
        record = store.load(key)
        return None if record is None else record.data

    @staticmethod
    def _ended(store: SessionStore, key: str) -> str | None:
        record = store.load(key)
        return None if record is None else record.ended
