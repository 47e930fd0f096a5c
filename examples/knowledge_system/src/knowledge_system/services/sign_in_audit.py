"""Audit entries for sign-in events, collected from the library's events and written when the request ends.

By then every transaction of the request has ended, so the write cannot deadlock with it, and a rollback is recorded
through its own events. If the database rejects an entry, it is logged as an error: users can sign in while the disk
is full, and the record is not lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.domain.permissions import Actor
from knowledge_system.models import User
from knowledge_system.services import audit
from mks_hardening.events import SignInEvent, TwoFactorEvent, add_observer, remove_observer
from mks_hardening.protocols import Clock

_log = logging.getLogger(__name__)

_SIGN_IN: Final = {
    "signed_in": "sign-in.done",
    "refused": "sign-in.refused",
    "factor_refused": "sign-in.code-refused",
    "confirmation_refused": "sign-in.confirm-refused",
    "locked": "sign-in.locked",
    "lock_passed": "sign-in.lock-passed",
    "unlocked": "account.unlock",
    "password_changed": "account.password",
    "reset_requested": "account.reset-asked",
    "reset_refused": "account.reset-refused",
    "email_change_requested": "account.email-asked",
    "email_changed": "account.email",
    "factor_reset": "factor.reset",
}
_FACTOR: Final = {
    "enrolled": "factor.on",
    "disabled": "factor.off",
    "locked": "factor.locked",
    "recovery_codes_regenerated": "factor.codes",
    "passkey_registered": "factor.passkey-added",
    "passkey_revoked": "factor.passkey-removed",
    "passkey_cloned": "factor.passkey-cloned",
}
_BY_NOBODY_KNOWN: Final = {"refused", "factor_refused", "confirmation_refused", "locked", "reset_requested"}
"""Events by an actor who has not proved an identity, whatever account they concern."""


class _Noted(NamedTuple):
    """A pending entry: account and actor (user id, user name or empty if unknown)."""

    action: str
    owner: str
    actor: str
    detail: Mapping[str, Any]
    at: datetime


class _Collected(NamedTuple):
    trail: SignInAuditLog
    noted: list[_Noted]


_inviting: ContextVar[str] = ContextVar("knowledge_system.inviting", default="")
_request: ContextVar[_Collected | None] = ContextVar("knowledge_system.trail", default=None)


class SignInAuditLog:
    """Collects audit entries during a request; outside one, as in a command, entries are written at once.

    Args:
        sessions: factory of database sessions.
        clock: clock of the application.
    """

    def __init__(self, sessions: sessionmaker[Session], *, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observe the library's events while the context is open."""
        add_observer(self._observe)
        try:
            yield
        finally:
            remove_observer(self._observe)

    def begin(self) -> None:
        """Start collecting for a request."""
        _request.set(_Collected(self, []))

    def end(self, *, client: str) -> None:
        """Write the collected entries at the end of a request; ``client`` is the client's address."""
        found = _request.get()
        _request.set(None)
        if found is not None and found.noted:
            self._write(found.noted, client)

    def note(self, action: str, owner: str, *, actor: str = "", **detail: object) -> None:
        """Add an entry about the account of ``owner``, a user id, by the user ``actor``."""
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        known = {name: value for name, value in detail.items() if value}
        noted, found = _Noted(action, owner, actor, known, now), _request.get()
        if found is None:
            self._write([noted], "")
        elif found.trail is self:
            found.noted.append(noted)

    @contextmanager
    def inviting(self, actor: str) -> Iterator[None]:
        """Record the reset tokens requested in the context as invitations by the user ``actor``."""
        token = _inviting.set(actor)
        try:
            yield
        finally:
            _inviting.reset(token)

    def _observe(self, event: object) -> None:
        if isinstance(event, SignInEvent):
            action, client = _SIGN_IN.get(event.change), event.client
        elif isinstance(event, TwoFactorEvent):
            action, client = _FACTOR.get(event.change), ""
        else:
            return
        if action is None:
            return
        if event.change == "reset_requested" and (inviter := _inviting.get()):
            self.note("account.invite", event.user_id, actor=inviter)
            return
        by = event.actor or ("" if event.change in _BY_NOBODY_KNOWN else event.user_id)
        self.note(action, event.user_id, actor=by, client=client, method=event.method, reason=event.reason)

    def _write(self, noted: list[_Noted], client: str) -> None:
        try:
            with self._sessions.begin() as session:
                people = _people(session, noted)
                for each in noted:
                    actor = people.get(each.actor) or Actor(0, each.actor[:64], "", "")
                    owner = people.get(each.owner)
                    subject = f"user {owner.username}" if owner else "nobody known"
                    detail = {**({"client": client} if client else {}), **each.detail}
                    audit.append(session, actor, audit.Fact(each.action, subject, detail), now=each.at)
        except SQLAlchemyError:
            for each in noted:
                _log.exception(
                    "the audit log did not take %s of user %s by %s at %s (client %s)",
                    each.action,
                    each.owner or "unknown",
                    each.actor or "nobody known",
                    each.at.isoformat(),
                    each.detail.get("client") or client,
                )


def _people(session: Session, noted: list[_Noted]) -> dict[str, Actor]:
    """Return all users mentioned, by id and by user name."""
    named = {name for each in noted for name in (each.owner, each.actor) if name}
    ids = [int(name) for name in named if name.isdecimal()]
    found = session.execute(
        select(User.id, User.username, User.display_name, User.role).where(
            or_(User.id.in_(ids), User.username.in_(named))
        )
    )
    actors = [Actor(*row) for row in found]
    return {key: actor for actor in actors for key in (actor.username, str(actor.id))}
