"""The session of the current request, as the application sees it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mks_hardening._core.operations import arun
from mks_hardening._edge.session.session_ids import (
    csrf_token_of,
    new_anonymous_id,
    new_anonymous_owner,
    user_id_of_owner,
)
from mks_hardening._edge.session.session_rules import decode_data
from mks_hardening._edge.session.session_state import SessionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SessionHandle"]


class SessionHandle(SessionState):
    """The session of one request, created by ``SessionTimeoutMiddleware`` as ``environ["mks_hardening.session"]``.

    Methods that change the session write to the store immediately, and raise ``BackendUnavailableError`` if it does
    not confirm the change. If the application does not catch it, the client gets a 503 with ``Retry-After`` and
    keeps its cookie; a 500 into which a framework turns the error becomes a 503 as well. Each of these methods has
    an asyncio version, whose name begins with ``a``.

    Attributes:
        reason: why the session of the request's cookie has ended (``idle``, ``absolute``, ``revoked``), on pages
            that are served nevertheless; otherwise empty.
        was_read: whether something of the session was read, so that the response may depend on the visitor.
        was_changed: whether a change of the session was requested, or its cookie was invalid on arrival.
        failed: the error of a change that the store did not confirm, or ``None``.
        head_given: whether the application has started its response.
        cookie_age: seconds for which browsers keep a cookie set by this response, at most until the absolute limit;
            ``None`` for until the browser is closed.
    """

    # --- state ---

    @property
    def alive(self) -> bool:
        """Whether the request has a living session of a user."""
        return self.user_id is not None

    @property
    def anonymous(self) -> bool:
        """Whether the request has a living anonymous session, see ``start_anonymous``."""
        record = self._read()
        return record is not None and user_id_of_owner(record.user_id) is None

    @property
    def user_id(self) -> str | None:
        """The user of the session; ``None`` without a session or with an anonymous one."""
        record = self._read()
        return None if record is None else user_id_of_owner(record.user_id)

    @property
    def data(self) -> Mapping[str, Any]:
        """The data that the application stores in the session, read-only; use ``update_data`` to change it."""
        record = self._read()
        return MappingProxyType({} if record is None else decode_data(record.data))

    @property
    def expires_in(self) -> float | None:
        """Seconds until the nearer limit; ``None`` without a living session."""
        return self._left()

    @property
    def reference(self) -> str | None:
        """Key of the session in the lists of ``SessionManager``; cannot be used as a cookie."""
        record = self._read()
        return None if record is None else record.key

    @property
    def session_id(self) -> str | None:
        """The secret id in the cookie; ``None`` without a living session."""
        return None if self._read() is None else self._id

    @property
    def csrf_token(self) -> str | None:
        """Secret for the forms of a user's session; changes with the session id, at sign-in and step-up.

        ``None`` for an anonymous session: it may begin and end between a page and its form.
        """
        if self.user_id is None or self._id is None:
            return None
        return csrf_token_of(self._id)

    @property
    def last_user_id(self) -> str | None:
        """The user of the session, also if this request has ended it; for logs.

        Reading it does not mark the response as dependent on the cookie.
        """
        record = self._record or self._dropped
        return None if record is None else user_id_of_owner(record.user_id)

    @property
    def exists(self) -> bool:
        """Whether there is a session, also an anonymous one; reading it does not affect ``was_read``."""
        return self._record is not None

    @property
    def sets_cookie(self) -> bool:
        """Whether this response sets the cookie."""
        return self._fate == "set"

    # --- operations ---

    def start(self, user_id: str, *, data: Mapping[str, Any] | None = None) -> None:
        """Sign a user in: create a session with a new id and end the session of the request (ASVS 7.2.4).

        Args:
            user_id: user of the session.
            data: a small mapping of JSON values to store in it, for example ``{"second_factor": False}`` until the
                second factor is verified.

        Raises:
            BackendUnavailableError: the store did not confirm it; the client gets no new id.
            RuntimeError: the response has started, so no cookie can be set.
            TypeError: ``user_id`` is not a non-empty text, or ``data`` is not a mapping of JSON values.
            ValueError: ``user_id`` begins with the control character U+001F, or ``data`` has more than 4096 bytes
                of JSON or contains NaN or infinity.
        """
        self._run(self._start(user_id, data))

    async def astart(self, user_id: str, *, data: Mapping[str, Any] | None = None) -> None:
        """``start`` for asyncio."""
        await arun(self._start(user_id, data))

    def start_anonymous(self, *, data: Mapping[str, Any] | None = None) -> None:
        """Start an anonymous session, for data before sign-in such as a basket, a message or the page to return to.

        ``user_id`` stays ``None`` and ``alive`` false. When the session expires, the visitor continues without one
        and gets no notice. ``start`` replaces it.

        Raises:
            BackendUnavailableError: as in ``start``, like the other exceptions.
        """
        self._run(self._begin(new_anonymous_owner(), new_anonymous_id(), data))

    async def astart_anonymous(self, *, data: Mapping[str, Any] | None = None) -> None:
        """``start_anonymous`` for asyncio."""
        await arun(self._begin(new_anonymous_owner(), new_anonymous_id(), data))

    def rotate(self, *, data: Mapping[str, Any] | None = None) -> bool:
        """Give the session a new id, at step-up or any change of privileges.

        The absolute limit still counts from the sign-in. Requests of the same browser that are in progress with the
        old id may still read, with the data from before the rotation, for ten seconds while the session is alive.
        They cannot change the session, except that signing out or in ends it under its new id too, and their
        responses do not affect the new cookie.

        Args:
            data: replaces the data, if given.

        Returns:
            ``False`` if the session has ended, or another request has rotated it.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            RuntimeError: the response has started.
        """
        return self._run(self._rotate(data))

    async def arotate(self, *, data: Mapping[str, Any] | None = None) -> bool:
        """``rotate`` for asyncio."""
        return await arun(self._rotate(data))

    def refresh(self) -> float:
        """Count this request as activity, also on a passive path; the absolute limit does not change.

        Returns:
            Seconds until the nearer limit; 0 if the session has ended.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        return self._run(self._refresh())

    async def arefresh(self) -> float:
        """``refresh`` for asyncio."""
        return await arun(self._refresh())

    def update_data(self, **changes: Any) -> bool:
        """Change some of the data; the value ``None`` removes a name. Changes of other requests are kept.

        Returns:
            ``False`` if the session has ended, or another request has rotated it.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            ValueError: more than 4096 bytes of JSON.
        """
        return self._run(self._merge_data(*_split_changes(changes)))

    async def aupdate_data(self, **changes: Any) -> bool:
        """``update_data`` for asyncio."""
        return await arun(self._merge_data(*_split_changes(changes)))

    def merge_data(self, changes: Mapping[str, Any], *, removed: Iterable[str] = ()) -> bool:
        """Change data as ``update_data`` does, but with any names and values; ``removed`` lists names to remove."""
        return self._run(self._merge_data(changes, frozenset(removed)))

    async def amerge_data(self, changes: Mapping[str, Any], *, removed: Iterable[str] = ()) -> bool:
        """``merge_data`` for asyncio."""
        return await arun(self._merge_data(changes, frozenset(removed)))

    def end(self) -> bool:
        """Sign out: end the session in the store and clear the cookies in the response (ASVS 7.4.1).

        Returns:
            ``False`` if there was no active session.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        return self._run(self._end())

    async def aend(self) -> bool:
        """``end`` for asyncio."""
        return await arun(self._end())

    def end_others(self) -> int:
        """End the user's other sessions, for example after a password change (ASVS 7.4.3); returns their number.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        return self._run(self._end_others())

    async def aend_others(self) -> int:
        """``end_others`` for asyncio."""
        return await arun(self._end_others())

    def __repr__(self) -> str:
        return f"SessionHandle(alive={self._record is not None})"


def _split_changes(changes: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Split the changes into new values and names that ``None`` removes."""
    removed = frozenset(name for name, value in changes.items() if value is None)
    return {name: value for name, value in changes.items() if name not in removed}, removed
