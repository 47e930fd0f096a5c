"""Django session engine (``SESSION_ENGINE``) that stores sessions in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mks_hardening.contrib._framework_session import (
    LoadedSession,
    SessionValues,
    apply_change,
    check_value,
    values_after,
)
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import FromDjango, SessionBase, UpdateError

if TYPE_CHECKING:
    from mks_hardening.wsgi import SessionHandle

__all__ = ["SessionStore"]

USER: Final = "_auth_user_id"
"""Name under which ``django.contrib.auth`` stores the signed-in user."""

_EXPIRY: Final = "_session_expiry"


class SessionStore(SessionBase):
    """A Django session with our idle and absolute limits, ended on the server; it stores JSON values only.

    Signing in and out with ``django.contrib.auth`` starts and ends our session, so the id changes at sign-in.
    Concurrent requests that change different names do not overwrite each other.

    Args:
        session_key: value of the session cookie.
        handle: our session of a request that came through ``hardened``.
    """

    modified: bool

    def __init__(self, session_key: str | None = None, *, handle: SessionHandle | None = None) -> None:
        self._held = handle
        self._key = session_key
        self._loaded = LoadedSession()
        self._cycled = False
        super().__init__(session_key)

    @property
    def handle(self) -> SessionHandle:
        """Our session."""
        if self._held is None:
            sessions = components().sessions
            self._held = sessions.open(None if self._key is None else f"{sessions.cookie_name}={self._key}")
        return self._held

    def _get_session_key(self) -> str | None:
        return self.handle.session_id

    def _set_session_key(self, value: str | None) -> None:
        """Ignore the key that Django sets; our session determines it."""

    session_key: property = property(_get_session_key)
    # Django's base class sets it in its constructor and when it creates a key.
    _session_key: property = property(_get_session_key, _set_session_key)

    def __setitem__(self, key: str, value: object) -> None:
        super().__setitem__(key, value)
        self._loaded.assigned.add(key)

    def update(self, dict_: Mapping[str, object]) -> None:
        """Assign several values."""
        super().update(dict_)
        self._loaded.assigned.update(dict_)

    def setdefault(self, key: str, value: object) -> object:
        """Return the value of a name, assigning it if missing."""
        if key not in self:
            self[key] = value
        return self[key]

    def load(self) -> dict[str, object]:
        """Load the stored values."""
        self._remember(dict(self.handle.data))
        return dict(self.handle.data)

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - signature of Django
        """Store the changes.

        Raises:
            BackendUnavailableError: the store did not confirm it.
            TypeError: JSON cannot represent a value.
            UpdateError: the session has ended in the meantime.
            ValueError: more than 4096 bytes of JSON, NaN or infinity.
        """
        values: dict[str, object] = dict(self._get_session(no_load=must_create))
        for name, value in values.items():
            check_value(value, place="request.session", name=name, accepted="it takes JSON values")
        handle = self.handle
        handle.cookie_age = None if self.get_expire_at_browser_close() else self.get_expiry_age()
        change = self._loaded.decide_change(handle, SessionValues(values, _user(values)))
        # Django also cycles the key at sign-in, where our session already has a new id.
        if self._cycled and handle.exists and change.act in {"merge", "nothing"}:
            handle.rotate()
        if not apply_change(handle, change):
            raise UpdateError
        # set_expiry() changes only the cookie, which would not be sent again otherwise.
        if self._loaded.before.values.get(_EXPIRY) != values.get(_EXPIRY):
            handle.resend_cookie()
        self._cycled = False
        kept = dict(handle.data)
        self._session_cache = values_after(values, kept)
        self._remember(kept)

    def create(self) -> None:
        """Start an empty session."""
        self.handle.start_anonymous()
        self._remember({})
        self._session_cache = {}
        self.modified = True

    def cycle_key(self) -> None:
        """Give the session a new id when it is saved."""
        self._get_session()
        self._cycled = True
        self.modified = True

    def flush(self) -> None:
        """End the session; values assigned afterwards start a new one."""
        self.clear()
        self._loaded.assigned.clear()
        self.handle.end()
        self._remember({})

    def delete(self, session_key: str | None = None) -> None:
        """End this session, or the one with the given key."""
        if session_key is None or session_key == self.session_key:
            self.handle.end()
        else:
            SessionStore(session_key).handle.end()

    def exists(self, session_key: str) -> bool:
        """Return whether a session with this key is alive."""
        return SessionStore(session_key).handle.exists

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: stores expire sessions themselves."""

    def _remember(self, values: dict[str, object]) -> None:
        self._loaded.remember(self.handle, SessionValues(values, _user(values)))


def _user(values: FromDjango) -> str | None:
    found: object = values.get(USER)
    return None if found is None else str(found)
