"""``/api/auth``: sign-in and sign-out, the current user, session, passwords, second factor."""

from __future__ import annotations

from typing import Any, Final

from knowledge_system.api import schemas
from knowledge_system.api.bearer import TokenSession
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.services.identity.api_tokens import ACCESS_SECONDS, TokenPair
from knowledge_system.web import article_changes, current_request
from knowledge_system.web.sign_in import credentials, factors, sign_in_steps

_CSRF: Final = {"csrf_token": schemas.STRING}
_TOKENS: Final = {
    **dict.fromkeys(("access_token", "refresh_token"), schemas.STRING),
    **dict.fromkeys(("expires_in", "refresh_expires_in"), schemas.NUMBER),
    "token_type": {"const": "Bearer"},
}
_NEXT = {"second_factor_required": {"const": True}, "challenge": schemas.STRING}
_COMPLETE = {"second_factor_required": {"const": False}, **_TOKENS}
_LOGIN = {
    "anyOf": [*map(schemas.thing, ({"second_factor_required": schemas.FLAG, **_CSRF}, _NEXT, _COMPLETE))]
}
_VERIFIED = {"method": schemas.STRING, "recovery_codes_left": schemas.nullable(schemas.NUMBER)}
_VERIFY = {"anyOf": [schemas.thing({**_VERIFIED, **_CSRF}), schemas.thing({**_VERIFIED, **_TOKENS})]}
_ADDED = {**dict.fromkeys(("username", "role"), schemas.STRING), "id": schemas.NUMBER}
_ME = {**_ADDED, "display_name": schemas.STRING, "second_factor": schemas.FLAG, **_CSRF}
_ENROLMENT = {
    **dict.fromkeys(("secret", "provisioning_uri"), schemas.STRING),
    "qr_code": schemas.nullable(schemas.STRING),
    "expires_at": schemas.NUMBER,
}
_LEFT = schemas.thing(dict.fromkeys(("expires_in", "ends_in"), schemas.nullable(schemas.NUMBER)))

routes = Routes("/api/auth")
_OPEN: Final = {"who": "anybody", "refusals": (401,)}


def _done(name: str, members: dict[str, schemas.Schema], *, value: bool = True) -> schemas.Schema:
    return schemas.thing({name: {"const": value}, **members})


@routes.add("POST", "/login", {200: _LOGIN}, body=fields.SIGN_IN_API, **_OPEN)
def login(asked: ApiRequest) -> ApiResponse:
    """Name and password, for a session of a browser, or with `tokens` for a program.

    ``second_factor_required`` says whether a code must follow; a program sends ``challenge`` along with the code.
    """
    values = asked.values
    if values["tokens"]:
        session = TokenSession(current_request.services().tokens)
        challenge = sign_in_steps.begin_without_cookies(
            session, values["username"], values["password"], recovery_code=values["recovery_code"]
        )
        if session.issued is None:
            return ApiResponse({"second_factor_required": True, "challenge": challenge})
        return ApiResponse({"second_factor_required": False, **_pair(session.issued)})
    complete = sign_in_steps.begin(
        values["username"], values["password"], recovery_code=values["recovery_code"]
    )
    return ApiResponse({"second_factor_required": not complete, "csrf_token": current_request.csrf_token()})


@routes.add("POST", "/2fa/verify", {200: _VERIFY}, body=fields.CODE_API, **_OPEN)
def verify(asked: ApiRequest) -> ApiResponse:
    """The code that follows the password."""
    if challenge := asked.values["challenge"]:
        session = TokenSession(current_request.services().tokens)
        result = sign_in_steps.finish_without_cookies(session, challenge, asked.values["code"])
        tokens = _pair(session.issued) if session.issued else {}
        return ApiResponse(
            {"method": result.method, "recovery_codes_left": result.recovery_codes_left, **tokens}
        )
    result = sign_in_steps.finish(asked.values["code"])
    return ApiResponse(
        {
            "method": result.method,
            "recovery_codes_left": result.recovery_codes_left,
            "csrf_token": current_request.csrf_token(),
        }
    )


@routes.add("POST", "/token/refresh", {200: schemas.thing(_TOKENS)}, body=fields.REFRESH, **_OPEN)
def renew(asked: ApiRequest) -> ApiResponse:
    """New tokens for a refresh token, which works once; a second use ends the whole family."""
    return ApiResponse(_pair(current_request.services().tokens.renew(asked.values["refresh_token"])))


@routes.add("POST", "/logout", {200: _done("signed_out", {})}, who="anybody", body={})
def logout(_asked: ApiRequest) -> ApiResponse:
    """End the session, or the family of tokens."""
    sign_in_steps.sign_out()
    return ApiResponse({"signed_out": True})


@routes.add(
    "POST",
    "/register",
    {201: schemas.thing(_ADDED)},
    who="administrators",
    limit="auth_register",
    body=fields.ACCOUNT,
    refusals=(409,),
    repeatable=True,
)
def register(asked: ApiRequest) -> ApiResponse:
    """Add an employee; for administrators only."""
    added = article_changes.register(dict(asked.values))
    return ApiResponse({"id": added.id, "username": added.username, "role": added.role}, 201)


@routes.add("GET", "/me", {200: schemas.thing(_ME)})
def me(_asked: ApiRequest) -> ApiResponse:
    """The signed-in user."""
    actor, factor = current_request.actor(), factors.status()
    return ApiResponse(
        {
            "id": actor.id,
            "username": actor.username,
            "display_name": actor.display_name,
            "role": actor.role,
            "second_factor": bool(factor and factor.enabled),
            "csrf_token": current_request.csrf_token(),
        }
    )


@routes.add("GET", "/session", {200: _LEFT}, limit="api_poll")
def session(_asked: ApiRequest) -> ApiResponse:
    """Seconds left of the session, or of the access token; asking does not count as activity.

    `ends_in` counts to the absolute limit of the session, or of all tokens of the sign-in, which nothing extends.
    """
    return _left()


@routes.add("POST", "/session/refresh", {200: _LEFT}, limit="api_poll", body={})
def refresh(_asked: ApiRequest) -> ApiResponse:
    """Keep the session alive, as far as the absolute limit allows."""
    current_request.handle().refresh()
    return _left()


@routes.add("POST", "/confirm", {200: _done("confirmed", _CSRF)}, body=fields.CONFIRMATION)
def confirm(asked: ApiRequest) -> ApiResponse:
    """Prove again who one is: a code where a second factor is on, else the password."""
    sign_in_steps.confirm(asked.values["proof"])
    return ApiResponse({"confirmed": True, "csrf_token": current_request.csrf_token()})


@routes.add("POST", "/password", {200: _done("changed", _CSRF)}, body=fields.PASSWORD)
def change_password(asked: ApiRequest) -> ApiResponse:
    """Replace one's own password; other sessions and all other tokens end."""
    credentials.change_password(asked.values["password"], asked.values["new_password"])
    return ApiResponse({"changed": True, "csrf_token": current_request.csrf_token()})


@routes.add("POST", "/password-reset", {202: _done("requested", {})}, who="anybody", body=fields.RESET)
def request_reset(asked: ApiRequest) -> ApiResponse:
    """Mail a token to the user with this name; the response is the same for unknown names."""
    credentials.request_reset(asked.values["username"])
    return ApiResponse({"requested": True}, 202)


@routes.add("POST", "/password-reset/confirm", {200: _done("changed", {})}, body=fields.NEW_PASSWORD, **_OPEN)
def reset_password(asked: ApiRequest) -> ApiResponse:
    """Set a new password with a mailed token; every session and every token ends, and nobody is signed in."""
    credentials.reset_password(**asked.values, refused="token-refused")
    return ApiResponse({"changed": True})


@routes.add("POST", "/2fa/setup", {200: schemas.thing(_ENROLMENT)}, body={}, refusals=(409,))
def setup(_asked: ApiRequest) -> ApiResponse:
    """Begin an enrolment; the answer is shown once."""
    enrolment = factors.enrol()
    return ApiResponse(
        {
            "secret": enrolment.secret,
            "provisioning_uri": enrolment.provisioning_uri,
            "qr_code": enrolment.qr_code,
            "expires_at": int(enrolment.expires_at),
        }
    )


@routes.add(
    "POST",
    "/2fa/enable",
    {200: schemas.thing({"recovery_codes": schemas.items(schemas.STRING), **_CSRF})},
    body=fields.CODE,
    refusals=(409,),
)
def enable(asked: ApiRequest) -> ApiResponse:
    """Confirm the enrolment with its first code; the response contains the recovery codes, once."""
    codes = factors.confirm_enrolment(asked.values["code"])
    return ApiResponse({"recovery_codes": list(codes), "csrf_token": current_request.csrf_token()})


@routes.add(
    "POST",
    "/2fa/disable",
    {200: _done("second_factor", _CSRF, value=False)},
    body=fields.CODE,
    refusals=(409,),
)
def disable(asked: ApiRequest) -> ApiResponse:
    """Turn the second factor off, given a code."""
    factors.disable(asked.values["code"])
    return ApiResponse({"second_factor": False, "csrf_token": current_request.csrf_token()})


def _left() -> ApiResponse:
    left = current_request.handle().expires_in
    return ApiResponse({"expires_in": None if left is None else int(left), "ends_in": _ends_in()})


def _ends_in() -> int | None:
    """Return the seconds until the limit that no activity extends; ``None`` without a session."""
    services, actor = current_request.services(), current_request.actor_or_none()
    if actor is None:
        return None
    reference, manager = current_request.handle().reference, services.session_manager
    for session in manager.sessions(str(actor.id)) if manager else ():
        if session.key == reference:
            ends = session.created_at + services.settings.hardening.wsgi.session_absolute_timeout
            return max(0, int(ends - services.session_clock.time()))
    for family in services.tokens.families(str(actor.id)):
        if family.id == reference:
            return max(0, int(family.expires_at.timestamp() - services.clock.time()))
    return None


def _pair(tokens: TokenPair) -> dict[str, Any]:
    return {
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": ACCESS_SECONDS,
        "refresh_token": tokens.refresh,
        "refresh_expires_in": tokens.refresh_seconds,
    }
