"""What the application gets: the session of the request at hand."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mks_hardening._core.operations import arun, run
from mks_hardening.wsgi.session._session_ids import csrf_token_of, new_anonymous_id, new_owner, owner_known
from mks_hardening.wsgi.session._session_rules import decode_data
from mks_hardening.wsgi.session._session_state import SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SessionHandle"]


class SessionHandle(SessionState):
    """The session of one request, at ``environ["mks_hardening.session"]``; made by ``SessionTimeoutMiddleware``.

    Methods that change the session ask the store at once. ``start``, ``rotate``, ``end`` and ``end_others`` raise
    ``BackendUnavailableError`` when that does not confirm the change; if the error leaves the application, the
    client gets a 503 with Retry-After and keeps its cookie. An answer that a framework has turned into a 500
    because of it becomes a 503 too. Each has a twin for asyncio, named with an ``a`` in front.

    Attributes:
        reason: why the session of the request's cookie is over (``idle``, ``absolute``, ``revoked``), on pages
            that are served all the same; else empty.
        was_read: whether the answer may depend on who the visitor is: something of the session was read.
        was_changed: whether a change of the session was asked for, or its cookie was dead on arrival.
        failed: the error of a change that the store did not confirm, or ``None``.
        head_given: whether the application has begun its answer.
        cookie_age: seconds for which browsers keep a cookie that this answer sets, at most until the absolute
            limit; ``None``: until they are closed.
    """

    # --- what it is ---

    @property
    def alive(self) -> bool:
        """Whether the request belongs to a living session of a user."""
        return self.user_id is not None

    @property
    def anonymous(self) -> bool:
        """Whether it belongs to a living session that is nobody's, see ``start_anonymous``."""
        record = self._read()
        return record is not None and owner_known(record.user_id) is None

    @property
    def user_id(self) -> str | None:
        """Whose session it is; ``None`` without one, and where it is nobody's."""
        record = self._read()
        return None if record is None else owner_known(record.user_id)

    @property
    def data(self) -> Mapping[str, Any]:
        """What the application keeps with the session, read-only; changed by ``update_data``."""
        record = self._read()
        return MappingProxyType({} if record is None else decode_data(record.data))

    @property
    def expires_in(self) -> float | None:
        """Seconds until the nearer limit; ``None`` without a living session."""
        return self._left()

    @property
    def reference(self) -> str | None:
        """The key of the session in lists of ``SessionManager``; useless as a cookie."""
        record = self._read()
        return None if record is None else record.key

    @property
    def session_id(self) -> str | None:
        """What the cookie holds, a secret; ``None`` without a living session."""
        return None if self._read() is None else self._id

    @property
    def csrf_token(self) -> str | None:
        """A secret of a user's session for forms; changes with the id, so at sign-in and step-up.

        A session that is nobody's has none: it may begin and end between a page and its form.
        """
        if self.user_id is None or self._id is None:
            return None
        return csrf_token_of(self._id)

    @property
    def last_user_id(self) -> str | None:
        """The user of the session, also of one that this request has ended; for logs.

        Reading it makes no response depend on the cookie.
        """
        record = self._record or self._dropped
        return None if record is None else owner_known(record.user_id)

    @property
    def lives(self) -> bool:
        """Whether there is a living session, of a user or nobody's; asking makes no answer depend on the cookie."""
        return self._record is not None

    @property
    def hands_out_cookie(self) -> bool:
        """Whether this answer sets the cookie."""
        return self._fate == "set"

    # --- what can be done with it ---

    def start(self, user_id: str, *, data: Mapping[str, Any] | None = None) -> None:
        """Sign a user in: a new session with a new id; the one the request came with ends (ASVS 7.2.4).

        Args:
            user_id: whose session it is.
            data: a small mapping of JSON values to keep with it, for example ``{"second_factor": False}`` until
                that is verified too.

        Raises:
            BackendUnavailableError: the store did not confirm it; the client gets no new id.
            RuntimeError: the head of the answer was given already, so no cookie can be set.
            TypeError: the user id is no text, or the data is no mapping of JSON values.
            ValueError: more than 4096 bytes of JSON.
        """
        run(self._start(user_id, data))

    async def astart(self, user_id: str, *, data: Mapping[str, Any] | None = None) -> None:
        """``start`` for asyncio."""
        await arun(self._start(user_id, data))

    def start_anonymous(self, *, data: Mapping[str, Any] | None = None) -> None:
        """Begin a session that is nobody's, for what is kept before sign-in: a basket, a message, the way back.

        ``user_id`` stays ``None`` and ``alive`` false. When it ends by time, its visitor goes on without one and is
        told nothing. ``start`` replaces it.

        Raises:
            BackendUnavailableError: as ``start``; so are the others.
        """
        run(self._begin(new_owner(), new_anonymous_id(), data))

    async def astart_anonymous(self, *, data: Mapping[str, Any] | None = None) -> None:
        """``start_anonymous`` for asyncio."""
        await arun(self._begin(new_owner(), new_anonymous_id(), data))

    def rotate(self, *, data: Mapping[str, Any] | None = None) -> bool:
        """Give the session a new id, at step-up or any change of rights.

        The absolute limit goes on from the sign-in. Requests of the same browser that were under way with the old
        id may still read, with the data from before, for ten seconds while the session lives; they change
        nothing (but that signing out or in ends the session under its new id too), and their answers leave the
        new cookie alone.

        Args:
            data: replaces the data, if given.

        Returns:
            ``False`` when there is no living session any more, or another request has rotated it.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            RuntimeError: the head of the answer was given already.
        """
        return run(self._rotate(data))

    async def arotate(self, *, data: Mapping[str, Any] | None = None) -> bool:
        """``rotate`` for asyncio."""
        return await arun(self._rotate(data))

    def refresh(self) -> float:
        """Count this request as activity, also on a passive path; the absolute limit stays.

        Returns:
            Seconds left until the nearer limit; 0 when there is no living session any more.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        return run(self._refresh())

    async def arefresh(self) -> float:
        """``refresh`` for asyncio."""
        return await arun(self._refresh())

    def update_data(self, **changes: Any) -> bool:
        """Change some of the data; ``None`` removes a name. Changes of other requests are kept.

        Returns:
            ``False`` when there is no living session any more, or another request has rotated it.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            ValueError: more than 4096 bytes of JSON.
        """
        return run(self._merge_data(*_parted(changes)))

    async def aupdate_data(self, **changes: Any) -> bool:
        """``update_data`` for asyncio."""
        return await arun(self._merge_data(*_parted(changes)))

    def merge_data(self, changes: Mapping[str, Any], *, removed: Iterable[str] = ()) -> bool:
        """The same for names of any kind and values that may be ``None``; ``removed`` are the names that go."""
        return run(self._merge_data(changes, frozenset(removed)))

    async def amerge_data(self, changes: Mapping[str, Any], *, removed: Iterable[str] = ()) -> bool:
        """``merge_data`` for asyncio."""
        return await arun(self._merge_data(changes, frozenset(removed)))

    def end(self) -> bool:
        """Sign out: the session is dead on the server, and the answer takes the cookies back (ASVS 7.4.1).

        Returns:
            ``False`` when there was no living session.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        return run(self._end())

    async def aend(self) -> bool:
        """``end`` for asyncio."""
        return await arun(self._end())

    def end_others(self) -> int:
        """End the user's other sessions, for example after a password change (ASVS 7.4.3); tells how many.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        return run(self._end_others())

    async def aend_others(self) -> int:
        """``end_others`` for asyncio."""
        return await arun(self._end_others())

    def __repr__(self) -> str:
        return f"SessionHandle(alive={self._record is not None})"


def _parted(changes: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """What is changed, and the names that ``None`` removes."""
    removed = frozenset(name for name, value in changes.items() if value is None)
    return {name: value for name, value in changes.items() if name not in removed}, removed
