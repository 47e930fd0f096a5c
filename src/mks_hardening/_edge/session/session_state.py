"""State of the session of one request, and the operations that change it."""

from __future__ import annotations

from contextlib import contextmanager
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mks_hardening._core.operations import Op, run
from mks_hardening._edge.private_response import vary_by_cookie
from mks_hardening._edge.session.refusal_texts import retry_after
from mks_hardening._edge.session.session_ids import key_of, new_anonymous_id, new_id, user_id_of_owner
from mks_hardening._edge.session.session_rules import ROTATED, decode_data, encode_data
from mks_hardening._edge.session.steady_clock import settle
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.session.response_headers import SessionResponseHeaders
    from mks_hardening._edge.session.session_lookup import SessionLookup

__all__ = ["SessionState"]

# An attempt fails only if another request of the same session succeeded; more attempts would mean that a page sends
# a flood of requests.
_UPDATE_TRIES: Final = 5

T = TypeVar("T")


class SessionState:
    """Base of ``SessionHandle``: state, operations, and the interface for the middleware."""

    # Class-level defaults: a request that only reads its session does not set them.
    _fate = ""  # cookie of this response: "set", "cleared" or unchanged
    _id: str | None = None
    _record: SessionRecord | None = None
    _dropped: SessionRecord | None = None  # the session that this request has ended or lost
    _deadline = inf
    _late = False  # the id was rotated during the request, which may now read but not write
    was_read: bool = False
    _speaks = False  # whether the response carries session headers, apart from the expiry warning
    _signed_out = False
    _begun = False  # started in this request
    was_changed: bool = False
    head_given: bool = False
    failed: BackendUnavailableError | None = None
    reason: str = ""
    cookie_age: float | None = None

    def __init__(
        self,
        keeper: SessionLookup,
        fields: SessionResponseHeaders,
        session_id: str | None = None,
        record: SessionRecord | None = None,
        deadline: float = inf,
        *,
        late: bool = False,
    ) -> None:
        self._lookup = keeper
        self._fields = fields
        if record is not None:
            self._id, self._record, self._deadline = session_id, record, deadline
        if late:
            self._late = True

    # --- operations ---

    def _run(self, operation: Op[T]) -> T:
        if self._lookup.is_async:
            _require_no_event_loop()
        return run(operation)

    def _start(self, user_id: str, data: Mapping[str, Any] | None) -> Op[None]:
        if not isinstance(user_id, str) or not user_id:
            raise TypeError("user_id must be a str that is not empty")
        if user_id_of_owner(user_id) is None:
            raise ValueError("user_id must not begin with a control character")
        yield from self._begin(user_id, new_id(), data)

    def _begin(self, owner: str, fresh: str, data: Mapping[str, Any] | None) -> Op[None]:
        self.was_changed = True
        self._require_head()
        text = encode_data(data or {})
        with self._recorded():
            yield from settle(self._lookup.store)
        now = self._lookup.now()
        record = SessionRecord(key_of(fresh), owner, now, now, self._lookup.limits.deadline(now, now), text)
        with self._recorded():
            yield from self._lookup.create(record, replaces=self._record)
        self._adopt(fresh, record)
        self._begun = True

    def _rotate(self, data: Mapping[str, Any] | None) -> Op[bool]:
        self.was_changed = True
        self._require_head()
        if self._record is None or self._late:
            return False
        text = None if data is None else encode_data(data)
        fresh = new_id() if user_id_of_owner(self._record.user_id) is not None else new_anonymous_id()
        with self._recorded():
            moved = yield from self._lookup.rotate(self._record.key, key_of(fresh), data=text)
            if moved is None:
                yield from self._lose(self._record)
                return False
        self._adopt(fresh, moved)
        return True

    def _refresh(self) -> Op[float]:
        self.was_changed = True
        if self._record is None or self._late:
            return self._left() or 0.0
        with self._recorded():
            refreshed = yield from self._lookup.refresh(self._record)
            if refreshed is None:
                yield from self._lose(self._record)
                return self._left() or 0.0
        self._record = refreshed
        self._deadline = self._lookup.limits.deadline(refreshed.created_at, refreshed.seen_at)
        return self._left() or 0.0

    def _merge_data(self, changes: Mapping[str, Any], removed: Collection[str]) -> Op[bool]:
        self.was_changed = True
        for _ in range(_UPDATE_TRIES):
            record = self._record
            if record is None or self._late:
                return False
            merged = {**decode_data(record.data), **changes}
            text = encode_data({name: value for name, value in merged.items() if name not in removed})
            with self._recorded():
                updated = yield from self._lookup.update(record, text)
                if updated is None:
                    yield from self._lose(record)
                    return False
            self._record = updated
            if updated.data == text:
                return True
        with self._recorded():
            raise BackendUnavailableError("sessions", "busy", operation="merge_data", sent=True)

    def _end(self) -> Op[bool]:
        self.was_changed = True
        if self._record is None:
            return False
        try:
            with self._recorded():
                ended = yield from self._lookup.end(self._record)
        except BackendUnavailableError:
            if self._begun:  # the client does not have the id yet, and must not get it
                self._drop("")
            raise
        self._signed_out = user_id_of_owner(self._record.user_id) is not None
        self._drop("cleared")
        return ended

    def _end_others(self) -> Op[int]:
        self.was_changed = True
        if self._record is None:
            return 0
        with self._recorded():
            return (yield from self._lookup.end_others(self._record))

    def _lose(self, record: SessionRecord) -> Op[None]:
        """Update the state when the session had ended before it could be changed."""
        current = yield from self._lookup.lost(record)
        if current is not None and current.ended == ROTATED:
            self._late = True
        else:
            self._drop("" if self._lookup.keeps_cookie(current) else "cleared")

    # --- helpers ---

    def _read(self) -> SessionRecord | None:
        self.was_read = self._speaks = True
        return self._record

    def _left(self) -> float | None:
        return None if self._read() is None else max(0.0, self._deadline - self._lookup.now())

    def _adopt(self, session_id: str, record: SessionRecord) -> None:
        self._id, self._record = session_id, record
        self._deadline = self._lookup.limits.deadline(record.created_at, record.seen_at)
        self._fate = "set"
        self._speaks = True
        self._late = False

    def _drop(self, fate: str) -> None:
        self._dropped = self._record or self._dropped
        self._id = self._record = None
        self._deadline = inf
        self._fate = fate
        self._speaks = True

    def discard(self, reason: str, *, cleared: bool) -> None:
        """Discard the session of an invalid cookie; the response clears the cookie if ``cleared``."""
        self.reason = reason
        self.was_changed = True
        self._drop("cleared" if cleared else "")

    def resend_cookie(self) -> None:
        """Send the cookie again with the same id, because ``cookie_age`` has changed."""
        if self._record is not None and not self._late:
            self._require_head()
            self._fate = "set"
            self._speaks = self.was_changed = True

    def _require_head(self) -> None:
        if self.head_given:
            raise RuntimeError(
                "the session id can only change before the response has begun (start_response)"
            )

    @contextmanager
    def _recorded(self) -> Generator[None]:
        try:
            yield
        except BackendUnavailableError as error:
            self.failed = error
            self._speaks = True
            raise

    # --- for the code that sends the response ---

    def has_fields(self) -> bool:
        """Note that the response begins; return whether ``step`` has something to add to it."""
        self.head_given = True
        # Most responses have no session headers, and should not pay for those that do.
        return self._speaks or self._deadline - self._lookup.wall() <= self._fields.warn_before

    def step(self, status: str, headers: Headers) -> str:
        """Add the session's header fields to the response, in place; returns the status."""
        self.head_given = True
        if self._speaks or self._deadline - self._lookup.wall() <= self._fields.warn_before:
            return self._completed(status, headers)
        return status

    def _completed(self, status: str, headers: Headers) -> str:
        if self.failed is not None and status.startswith("500"):
            status = "503 Service Unavailable"
            headers.append(retry_after(self.failed))
        if self.was_read:
            vary_by_cookie(headers)
        if self._fate == "cleared":
            self._fields.clear(headers)
        elif self._fate == "set" and self._id is not None:
            self._fields.set(headers, self._id, max_age=self._max_age())
        if self._record is not None and user_id_of_owner(self._record.user_id) is not None:
            self._fields.warn(headers, self._deadline - self._lookup.now())
        elif self._signed_out:
            self._fields.sign_out(headers)
        return status

    def _max_age(self) -> int | None:
        if self.cookie_age is None or self._record is None:
            return None
        left = self._record.created_at + self._lookup.limits.absolute - self._lookup.now()
        return ceil(max(0.0, min(self.cookie_age, left)))


def _require_no_event_loop() -> None:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "this method would block the event loop while it waits for the session store: await the method of the same "
        "name that begins with a, for example astart instead of start"
    )
