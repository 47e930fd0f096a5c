"""The pending second-factor enrolment of a session, so that its page survives a reload."""

from __future__ import annotations

import json

from knowledge_system.web import current_request
from mks_hardening.exceptions import DecodeError
from mks_hardening.security import Enrolment, SecretBox

_NAME = "enrolment"


def keep(enrolment: Enrolment) -> None:
    """Store the enrolment in the session until it ends or expires, encrypted and bound to its user."""
    serialized = json.dumps([enrolment.secret, enrolment.provisioning_uri, enrolment.expires_at])
    sealed = _box().encrypt(serialized, user_id=str(current_request.actor().id), purpose=_NAME)
    current_request.handle().update_data(**{_NAME: sealed})


def kept() -> Enrolment | None:
    """Return the pending enrolment of this session, if it has not expired."""
    sealed = current_request.handle().data.get(_NAME)
    if not sealed:
        return None
    try:
        serialized = _box().decrypt(str(sealed), user_id=str(current_request.actor().id), purpose=_NAME)
    except DecodeError:
        return None  # its key was removed; the user starts again
    secret, uri, expires_at = json.loads(serialized)
    found = Enrolment(secret=secret, provisioning_uri=uri, expires_at=expires_at)
    return found if expires_at > current_request.now().timestamp() else None


def forget() -> None:
    """Remove the enrolment, after confirmation or cancellation."""
    if current_request.handle().data.get(_NAME):
        current_request.handle().update_data(**{_NAME: ""})


def _box() -> SecretBox:
    return SecretBox(current_request.services().settings.hardening.security.secret_keys)
