"""What the application gets: the session of the request at hand."""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from math import ceil, inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi._session_answers import retry_after, send, unavailable
from mks_hardening.wsgi._session_cookie import SessionCookie, sets_cookie
from mks_hardening.wsgi._session_keeper import SessionKeeper, key_of
from mks_hardening.wsgi._session_rules import decode_data, encode_data

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mks_hardening._core.wsgi_iter import ExcInfo, Headers

__all__ = ["ID_LENGTH", "AnswerFields", "SessionHandle"]

_ID_BYTES: Final = 32
ID_LENGTH: Final = 43
_UPDATE_TRIES: Final = 5
_ROUNDING: Final = 0.001


class AnswerFields:
    """What answers say about a session: cookies set and taken back, and from when on the time left."""

    __slots__ = ("also_cleared", "cookie", "warn_before")

    def __init__(self, cookie: SessionCookie, *, also_cleared: tuple[str, ...], warn_before: float) -> None:
        self.cookie: SessionCookie = cookie
        self.also_cleared: tuple[str, ...] = also_cleared
        self.warn_before: float = warn_before

    def clear(self, headers: Headers) -> Headers:
        """Fields that take back the session cookie and the framework's, unless the answer sets them itself."""
        cleared = [self.cookie.clearing()]
        cleared += [
            self.cookie.clearing_of(name) for name in self.also_cleared if not sets_cookie(headers, name)
        ]
        return cleared


class SessionHandle:
    """The session of one request, at ``environ["mks_hardening.session"]``; made by ``SessionTimeoutMiddleware``.

    Methods that change the session ask the store at once. ``start``, ``rotate``, ``end`` and ``end_others`` raise
    ``BackendUnavailableError`` when that does not confirm the change; if the error leaves the application, the
    client gets a 503 with Retry-After and keeps its cookie. An answer that a framework has turned into a 500
    because of it becomes a 503 too.

    Attributes:
        reason: why the session of the request's cookie is over (``idle``, ``absolute``, ``revoked``), on pages
            that are served all the same; else empty.
        failed: the error of a change that the store did not confirm, or ``None``.
        head_given: whether the application has called ``start_response``.
    """

    # Defaults of the class: a request that only reads its session does not set them.
    _fate = ""  # of the cookie in this answer: "set", "cleared", or nothing to say
    _id: str | None = None
    _record: SessionRecord | None = None
    _deadline = inf
    head_given: bool = False
    failed: BackendUnavailableError | None = None
    reason: str = ""

    def __init__(
        self,
        keeper: SessionKeeper,
        fields: AnswerFields,
        start_response: StartResponse,
        found: tuple[str, SessionRecord, float] | None = None,
    ) -> None:
        self._keeper = keeper
        self._fields = fields
        self._start_response = start_response
        if found is not None:
            self._id, self._record, self._deadline = found

    # --- what it is ---

    @property
    def alive(self) -> bool:
        """Whether the request belongs to a living session."""
        return self._record is not None

    @property
    def user_id(self) -> str | None:
        """Whose session it is; ``None`` without one."""
        return None if self._record is None else self._record.user_id

    @property
    def data(self) -> Mapping[str, Any]:
        """What the application keeps with the session, read-only; changed by ``update_data``."""
        return MappingProxyType({} if self._record is None else decode_data(self._record.data))

    @property
    def expires_in(self) -> float | None:
        """Seconds until the nearer limit; ``None`` without a living session."""
        return None if self._record is None else max(0.0, self._deadline - self._keeper.now())

    @property
    def reference(self) -> str | None:
        """The key of the session in lists of ``SessionManager``; useless as a cookie."""
        return None if self._record is None else self._record.key

    @property
    def csrf_token(self) -> str | None:
        """A secret of this session for forms; changes with the id, so at sign-in and step-up."""
        if self._id is None or self._record is None:
            return None
        digest = hmac.digest(self._id.encode(), b"mks_hardening csrf token", "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()

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
        if not isinstance(user_id, str) or not user_id:
            raise TypeError("user_id must be a str that is not empty")
        self._require_head()
        text = encode_data(data or {})
        now = self._keeper.now()
        new_id = _new_id()
        deadline = self._keeper.limits.deadline(now, now)
        record = SessionRecord(key_of(new_id), user_id, now, now, deadline, text)
        with self._recorded():
            self._keeper.create(record, replaces=self.reference)
        self._adopt(new_id, record)

    def rotate(self, *, data: Mapping[str, Any] | None = None) -> bool:
        """Give the session a new id, at step-up or any change of rights; the old id is dead at once.

        The absolute limit goes on from the sign-in.

        Args:
            data: replaces the data, if given.

        Returns:
            ``False`` when there is no living session any more.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            RuntimeError: the head of the answer was given already.
        """
        self._require_head()
        if self._record is None:
            return False
        text = None if data is None else encode_data(data)
        new_id = _new_id()
        with self._recorded():
            moved = self._keeper.rotate(self._record.key, key_of(new_id), data=text)
        if moved is None:
            self._drop()
            return False
        self._adopt(new_id, moved)
        return True

    def refresh(self) -> float:
        """Count this request as activity, also on a passive path; the absolute limit stays.

        Returns:
            Seconds left until the nearer limit; 0 when there is no living session any more.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        if self._record is None:
            return 0.0
        with self._recorded():
            refreshed = self._keeper.refresh(self._record)
        if refreshed is None:
            self._drop()
            return 0.0
        self._record = refreshed
        self._deadline = self._keeper.limits.deadline(refreshed.created_at, refreshed.seen_at)
        return self.expires_in or 0.0

    def update_data(self, **changes: Any) -> bool:
        """Change some of the data; ``None`` removes a name. Changes of other requests are kept.

        Returns:
            ``False`` when there is no living session any more.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            ValueError: more than 4096 bytes of JSON.
        """
        for _ in range(_UPDATE_TRIES):
            record = self._record
            if record is None:
                return False
            merged = {**decode_data(record.data), **changes}
            text = encode_data({name: value for name, value in merged.items() if value is not None})
            with self._recorded():
                updated = self._keeper.update(record, text)
            if updated is None:
                self._drop()
            elif updated.data == text:
                self._record = updated
                return True
            else:
                self._record = updated
        with self._recorded():
            raise BackendUnavailableError("sessions", "busy", operation="update_data", sent=True)

    def end(self) -> bool:
        """Sign out: the session is dead on the server, and the answer takes the cookies back (ASVS 7.4.1).

        Returns:
            ``False`` when there was no living session.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        if self._record is None:
            return False
        with self._recorded():
            ended = self._keeper.end(self._record)
        self._drop()
        return ended

    def end_others(self) -> int:
        """End the user's other sessions, for example after a password change (ASVS 7.4.3); tells how many.

        Raises:
            BackendUnavailableError: the store did not confirm it.
        """
        if self._record is None:
            return 0
        with self._recorded():
            return self._keeper.end_others(self._record)

    def __repr__(self) -> str:
        return f"SessionHandle(alive={self.alive})"

    # --- within ---

    def _adopt(self, session_id: str, record: SessionRecord) -> None:
        self._id, self._record = session_id, record
        self._deadline = self._keeper.limits.deadline(record.created_at, record.seen_at)
        self._fate = "set"

    def _drop(self) -> None:
        self._id = self._record = None
        self._deadline = inf
        self._fate = "cleared"

    def forget(self, reason: str) -> None:
        """The cookie was dead on arrival; the answer takes it back."""
        self.reason = reason
        self._drop()

    def _require_head(self) -> None:
        if self.head_given:
            raise RuntimeError("the session id can only change before start_response is called")

    @contextmanager
    def _recorded(self) -> Generator[None]:
        try:
            yield
        except BackendUnavailableError as error:
            self.failed = error
            raise

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """The ``start_response`` given to the application: adds what the session has to say to the client."""
        self.head_given = True
        left = self._deadline - self._keeper.wall()
        if self._fate or self.failed is not None or left <= self._fields.warn_before:
            status, headers = self._completed(status, headers)
        if exc_info is None:
            return self._start_response(status, headers)
        try:
            return self._start_response(status, headers, exc_info)
        finally:
            exc_info = None  # the traceback holds this very frame

    def unavailable(self, environ: WSGIEnvironment, error: BackendUnavailableError) -> list[bytes]:
        """Answer 503 in place of the application; the client keeps its cookie."""
        return send(environ, self._start_response, unavailable(error), after_error=True)

    def _completed(self, status: str, headers: Headers) -> tuple[str, Headers]:
        if self.failed is not None and status.startswith("500"):
            status, headers = "503 Service Unavailable", [*headers, retry_after(self.failed)]
        if self._fate == "cleared":
            headers = [*headers, *self._fields.clear(headers)]
        elif self._fate == "set" and self._id is not None:
            headers = [*headers, self._fields.cookie.setting(self._id)]
            if not any(name.lower() == "cache-control" for name, _ in headers):
                headers.append(("Cache-Control", "no-store"))
        left = self.expires_in
        if left is not None and left <= self._fields.warn_before > 0:
            headers = [*headers, ("X-Session-Expires-In", str(ceil(max(0.0, left - _ROUNDING))))]
        return status, headers


def _new_id() -> str:
    return secrets.token_urlsafe(_ID_BYTES)
