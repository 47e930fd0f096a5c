"""``flask.session`` stored in our session: one cookie, one store, a new id at sign-in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from flask import request
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionInterface, SessionMixin

from mks_hardening._core.web.environ_keys import SESSION_KEY
from mks_hardening._core.web.problem_details import PROBLEM_TYPE, problem_document
from mks_hardening._core.web.session_data import json_text
from mks_hardening.contrib._framework_session import (
    PLAIN,
    LoadedSession,
    SessionValues,
    apply_change,
    check_value,
)
from mks_hardening.contrib._limited_views import retry_after_outage
from mks_hardening.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from flask import Flask, Request, Response

    from mks_hardening.wsgi import SessionHandle

__all__ = ["HardenedSession", "HardenedSessionInterface"]

_TAGS: Final = TaggedJSONSerializer()
_ACCEPTED: Final = (
    "a session takes None, bool, int, float, str, bytes, list, tuple, dict, datetime, UUID, Markup"
)
# Prefixes of fields that describe the replaced response; others, such as those for CORS, are kept.
_OF_THE_ANSWER: Final = (
    "content-",
    "etag",
    "last-modified",
    "expires",
    "location",
    "accept-ranges",
    "refresh",
)
_logger: Final = logging.getLogger("mks_hardening.session")


class HardenedSession(SessionMixin):
    """The object behind ``flask.session``: a mapping from text to data, stored in our session.

    Values may have the types that Flask's own session supports; assigning another one raises immediately. Changes
    inside a value are detected without ``session.modified``, and concurrent requests that change different names do
    not overwrite each other.

    ``session.permanent`` keeps the cookie after the browser is closed; the lifetime of the session still depends on
    the idle and absolute limits. ``session.clear()`` ends the session and so signs the user out.

    Attributes:
        saved: whether the session was saved; later changes are lost, as in Flask, but logged with a warning.
    """

    def __init__(
        self, open_handle: Callable[[], SessionHandle], *, user_keys: Sequence[str], outside: bool
    ) -> None:
        self.saved: bool = False
        self.modified: bool = False
        self.accessed: bool = False
        self._open = open_handle
        self._handle: SessionHandle | None = None
        self._new = False
        self._user_keys = user_keys
        self._outside = outside
        self._values: dict[str, Any] | None = None
        self._loaded = LoadedSession()
        self._was_permanent = False
        self._can_change_inside = False
        if not outside:
            self._look_up()

    @property
    def handle(self) -> SessionHandle:
        """Our session; outside a request through the middleware it is looked up on first use."""
        return self._look_up() if self._handle is None else self._handle

    @property
    def new(self) -> bool:
        """Whether there was no active session."""
        _ = self.handle
        return self._new

    @new.setter
    def new(self, value: bool) -> None:
        self._new = value

    def _look_up(self) -> SessionHandle:
        self._handle = self._open()
        self._new = not self._handle.exists
        return self._handle

    # --- mapping ---

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"keys of the session must be strings, not {type(name).__name__}")
        # Raise at the assignment: an error while the response is sent would not show the responsible line.
        _encoded(name, value)
        self._all()[name] = value
        self._loaded.assigned.add(name)
        self._note()

    def __delitem__(self, name: str) -> None:
        del self._all()[name]
        self._note()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def clear(self) -> None:
        """End the session; values assigned afterwards start a new one."""
        self._all().clear()
        self._loaded.assigned.clear()
        self._loaded.cleared = True
        self._note()

    def __repr__(self) -> str:
        return f"<HardenedSession of {sorted(self._all())}>"

    # --- loading and saving ---

    def _all(self) -> dict[str, Any]:
        if self._values is None:
            self.accessed = True
            encoded = dict(self.handle.data)
            self._values = {name: _decoded(value) for name, value in encoded.items()}
            self._loaded.remember(self.handle, SessionValues(encoded, self._user()))
            # Only these have to be compared at the end, which requires encoding each as JSON.
            self._can_change_inside = any(isinstance(value, dict | list) for value in encoded.values())
            self._was_permanent = self.permanent
        return self._values

    def _note(self) -> None:
        self.modified = True
        if self.saved:
            _logger.warning(
                "flask.session was changed after the response had begun; the change is lost: change it in the view"
            )

    def _user(self) -> str | None:
        values = self._values or {}
        return next((str(values[key]) for key in self._user_keys if values.get(key) is not None), None)

    def save(self, response: Response) -> None:
        """Store the changes, once, before the response starts.

        Raises:
            TypeError: an unsupported value was put inside another value.
            ValueError: more than 4096 bytes of JSON.
        """
        if self.saved:
            return
        self.saved = True
        # A session that was never accessed is not loaded just to be saved.
        if self._handle is not None and (
            self.modified or self._can_change_inside or self._handle.sets_cookie
        ):
            values = self._all()
            self.handle.cookie_age = inf if self.permanent else None
            now = SessionValues({name: _encoded(name, value) for name, value in values.items()}, self._user())
            change = self._loaded.decide_change(self.handle, now)
            try:
                apply_change(self.handle, change)
            except BackendUnavailableError as error:
                if response.status_code < 500:  # otherwise the view has already reported the error
                    _unavailable(response, error)
            except ValueError as error:
                sizes = sorted(
                    ((len(json_text(value)), name) for name, value in now.values.items()), reverse=True
                )
                largest = f"; session[{sizes[0][1]!r}] takes {sizes[0][0]} of them" if sizes else ""
                raise ValueError(f"{error}{largest}") from None
            if self.permanent is not self._was_permanent:
                self.handle.resend_cookie()
        # Without the middleware, as in test_request_context(), the cookie has to be set here.
        if self._outside and self._handle is not None:
            fields: list[tuple[str, str]] = []
            self.handle.step(response.status, fields)
            response.headers.extend(fields)


class HardenedSessionInterface(SessionInterface):
    """Session interface that opens and saves ``flask.session``.

    Args:
        open_handle: opens the session of a Cookie header, for requests that bypass the middleware, as in tests.
        user_keys: names under which the application stores the signed-in user.
        cookie_name: name of our session cookie.
    """

    def __init__(
        self,
        open_handle: Callable[[str | None], SessionHandle],
        *,
        user_keys: Sequence[str],
        cookie_name: str,
    ) -> None:
        self._open = open_handle
        self._user_keys = user_keys
        self._cookie_name = cookie_name

    def get_cookie_name(self, app: Flask) -> str:  # noqa: ARG002 - signature of Flask
        """Return the name of our session cookie."""
        return self._cookie_name

    def open_session(self, app: Flask, request: Request) -> HardenedSession:  # noqa: ARG002 - signature of Flask
        """Return the session of a request; its values are loaded on first access."""
        handle: SessionHandle | None = request.environ.get(SESSION_KEY)
        cookies = request.environ.get("HTTP_COOKIE")
        return HardenedSession(
            lambda: self._open(cookies) if handle is None else handle,
            user_keys=self._user_keys,
            outside=handle is None,
        )

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:  # noqa: ARG002
        """Store the changes."""
        cast("HardenedSession", session).save(response)


def _encoded(name: str, value: object) -> object:
    if type(value) in PLAIN:
        return value
    encoded: object = _TAGS.tag(value)
    check_value(encoded, place="session", name=name, accepted=_ACCEPTED)
    return encoded


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        known = cast("dict[str, Any]", value)
        return _TAGS.untag({name: _decoded(inner) for name, inner in known.items()})
    if isinstance(value, list):
        return [_decoded(inner) for inner in cast("Iterable[Any]", value)]
    return value


def _unavailable(response: Response, error: BackendUnavailableError) -> None:
    """Turn a response into a 503: it may claim something that was not stored."""
    close = getattr(response.response, "close", None)
    if close is not None:
        close()
    for name in set(response.headers.keys()):
        if name.lower().startswith(_OF_THE_ANSWER):
            response.headers.remove(name)
    # set_data() would raise for a file that is passed through.
    response.direct_passthrough = False
    response.status_code = 503
    response.content_type = PROBLEM_TYPE
    response.headers["Cache-Control"] = "no-store"
    response.set_data(problem_document(503, "Your changes cannot be saved at the moment. Please try again."))
    response.headers["Retry-After"] = str(retry_after_outage(request.environ, error))
