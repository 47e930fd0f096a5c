"""``/api/auth``: signing in and out, who am I, the session, the second factor."""

from __future__ import annotations

from flask import Blueprint, Response

from knowledge_system import fields
from knowledge_system.api.body import answer, read
from knowledge_system.web import here, signing, writing

__all__ = ["endpoints"]

endpoints = Blueprint("api_auth", __name__, url_prefix="/api/auth")


@endpoints.post("/login")
def login() -> Response:
    """Name and password; ``second_factor_required`` tells whether a code has to follow."""
    values = read(fields.SIGN_IN)
    complete = signing.begin(values["username"], values["password"])
    return answer({"second_factor_required": not complete, "csrf_token": here.csrf_token()})


@endpoints.post("/2fa/verify")
def verify() -> Response:
    """The code that follows the password."""
    result = signing.finish(read(fields.CODE)["code"])
    return answer(
        {
            "method": result.method,
            "recovery_codes_left": result.recovery_codes_left,
            "csrf_token": here.csrf_token(),
        }
    )


@endpoints.post("/logout")
def logout() -> Response:
    """End the session."""
    read({})
    signing.sign_out()
    return answer({"signed_out": True})


@endpoints.post("/register")
@here.administrators_only
def register() -> Response:
    """Add a member of staff; for administrators, since nobody joins a company by a form."""
    here.check_limit("admin")
    added = writing.register(read(fields.ACCOUNT))
    return answer({"id": added.id, "username": added.username, "role": added.role}, 201)


@endpoints.get("/me")
def me() -> Response:
    """Who is signed in."""
    actor = here.actor()
    factor = signing.status()
    return answer(
        {
            "id": actor.id,
            "username": actor.username,
            "display_name": actor.display_name,
            "role": actor.role,
            "second_factor": bool(factor and factor.enabled),
            "csrf_token": here.csrf_token(),
        }
    )


@endpoints.get("/session")
def session() -> Response:
    """Seconds left of the session; asking does not count as activity."""
    here.actor()
    return answer({"expires_in": int(here.handle().expires_in)})


@endpoints.post("/session/refresh")
def refresh() -> Response:
    """Keep the session alive, as far as the absolute limit allows."""
    here.actor()
    read({})
    here.handle().refresh()
    return answer({"expires_in": int(here.handle().expires_in)})


@endpoints.post("/2fa/setup")
def setup() -> Response:
    """Begin an enrolment; the answer is shown once."""
    read({})
    enrolment = signing.enrol()
    return answer(
        {
            "secret": enrolment.secret,
            "provisioning_uri": enrolment.provisioning_uri,
            "qr_code": enrolment.qr_code,
            "expires_at": int(enrolment.expires_at),
        }
    )


@endpoints.post("/2fa/enable")
def enable() -> Response:
    """Confirm the enrolment with its first code; the recovery codes are told once."""
    here.actor()
    codes = signing.confirm_enrolment(read(fields.CODE)["code"])
    return answer({"recovery_codes": list(codes), "csrf_token": here.csrf_token()})


@endpoints.post("/2fa/disable")
def disable() -> Response:
    """Turn the second factor off, given a code."""
    here.actor()
    signing.disable(read(fields.CODE)["code"])
    return answer({"second_factor": False, "csrf_token": here.csrf_token()})
