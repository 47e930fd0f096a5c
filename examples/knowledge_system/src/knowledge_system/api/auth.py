"""``/api/auth``: sign-in and sign-out, the current user, session, passwords, second factor."""

from __future__ import annotations

from typing import Any, Final

from knowledge_system.api import schemas
from knowledge_system.api.bearer import TokenSession
from knowledge_system.api.route import ApiRequest, ApiResponse, Route
from knowledge_system.domain import fields
from knowledge_system.services.identity.api_tokens import ACCESS_SECONDS, TokenPair
from knowledge_system.web import article_changes, current_request
from knowledge_system.web.sign_in import credentials, factors, sign_in_steps

_CSRF: Final = {"csrf_token": schemas.STRING}
_TOKENS: Final = {
    "access_token": schemas.STRING,
    "token_type": {"const": "Bearer"},
    "expires_in": schemas.NUMBER,
    "refresh_token": schemas.STRING,
    "refresh_expires_in": schemas.NUMBER,
}


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


def renew(asked: ApiRequest) -> ApiResponse:
    """New tokens for a refresh token, which works once; a second use ends the whole family."""
    return ApiResponse(_pair(current_request.services().tokens.renew(asked.values["refresh_token"])))


def logout(_asked: ApiRequest) -> ApiResponse:
    """End the session, or the family of tokens."""
    sign_in_steps.sign_out()
    return ApiResponse({"signed_out": True})


def register(asked: ApiRequest) -> ApiResponse:
    """Add an employee; for administrators only."""
    added = article_changes.register(dict(asked.values))
    return ApiResponse({"id": added.id, "username": added.username, "role": added.role}, 201)


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


def session(_asked: ApiRequest) -> ApiResponse:
    """Seconds left of the session, or of the access token; asking does not count as activity.

    `ends_in` counts to the absolute limit of the session, or of all tokens of the sign-in, which nothing extends.
    """
    return _left()


def refresh(_asked: ApiRequest) -> ApiResponse:
    """Keep the session alive, as far as the absolute limit allows."""
    current_request.handle().refresh()
    return _left()


def confirm(asked: ApiRequest) -> ApiResponse:
    """Prove again who one is: a code where a second factor is on, else the password."""
    sign_in_steps.confirm(asked.values["proof"])
    return ApiResponse({"confirmed": True, "csrf_token": current_request.csrf_token()})


def change_password(asked: ApiRequest) -> ApiResponse:
    """Replace one's own password; other sessions and all other tokens end."""
    credentials.change_password(asked.values["password"], asked.values["new_password"])
    return ApiResponse({"changed": True, "csrf_token": current_request.csrf_token()})


def request_reset(asked: ApiRequest) -> ApiResponse:
    """Mail a token to the user with this name; the response is the same for unknown names."""
    credentials.request_reset(asked.values["username"])
    return ApiResponse({"requested": True}, 202)


def reset_password(asked: ApiRequest) -> ApiResponse:
    """Set a new password with a mailed token; every session and every token ends, and nobody is signed in."""
    credentials.reset_password(**asked.values, refused="token-refused")
    return ApiResponse({"changed": True})


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


def enable(asked: ApiRequest) -> ApiResponse:
    """Confirm the enrolment with its first code; the response contains the recovery codes, once."""
    codes = factors.confirm_enrolment(asked.values["code"])
    return ApiResponse({"recovery_codes": list(codes), "csrf_token": current_request.csrf_token()})


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


def _done(name: str) -> schemas.Schema:
    return schemas.thing({name: {"const": True}, **_CSRF})


_CHALLENGE = {"second_factor_required": {"const": True}}
_COMPLETE = {"second_factor_required": {"const": False}}
_VERIFIED = {"method": schemas.STRING, "recovery_codes_left": schemas.nullable(schemas.NUMBER)}
_LOGIN_ANSWER = {
    "anyOf": [
        schemas.thing({"second_factor_required": schemas.FLAG, **_CSRF}),
        schemas.thing({**_CHALLENGE, "challenge": schemas.STRING}),
        schemas.thing({**_COMPLETE, **_TOKENS}),
    ]
}
_VERIFY_ANSWER = {"anyOf": [schemas.thing({**_VERIFIED, **_CSRF}), schemas.thing({**_VERIFIED, **_TOKENS})]}
_ME = {
    "id": schemas.NUMBER,
    "username": schemas.STRING,
    "display_name": schemas.STRING,
    "role": schemas.STRING,
    "second_factor": schemas.FLAG,
    **_CSRF,
}
_ADDED = {"id": schemas.NUMBER, "username": schemas.STRING, "role": schemas.STRING}
_ENROLMENT = {
    "secret": schemas.STRING,
    "provisioning_uri": schemas.STRING,
    "qr_code": schemas.nullable(schemas.STRING),
    "expires_at": schemas.NUMBER,
}
_LEFT = schemas.thing(dict.fromkeys(("expires_in", "ends_in"), schemas.nullable(schemas.NUMBER)))

_A = "/api/auth"
ROUTES = (
    Route(
        "POST",
        f"{_A}/login",
        login,
        {200: _LOGIN_ANSWER},
        who="anybody",
        body=fields.SIGN_IN_API,
        refusals=(401,),
    ),
    Route(
        "POST",
        f"{_A}/2fa/verify",
        verify,
        {200: _VERIFY_ANSWER},
        who="anybody",
        body=fields.CODE_API,
        refusals=(401,),
    ),
    Route(
        "POST",
        f"{_A}/token/refresh",
        renew,
        {200: schemas.thing(_TOKENS)},
        who="anybody",
        body=fields.REFRESH,
        refusals=(401,),
    ),
    Route(
        "POST",
        f"{_A}/logout",
        logout,
        {200: schemas.thing({"signed_out": {"const": True}})},
        who="anybody",
        body={},
    ),
    Route(
        "POST",
        f"{_A}/password-reset",
        request_reset,
        {202: schemas.thing({"requested": {"const": True}})},
        who="anybody",
        body=fields.RESET,
    ),
    Route(
        "POST",
        f"{_A}/password-reset/confirm",
        reset_password,
        {200: schemas.thing({"changed": {"const": True}})},
        who="anybody",
        body=fields.NEW_PASSWORD,
        refusals=(401,),
    ),
    Route(
        "POST",
        f"{_A}/register",
        register,
        {201: schemas.thing(_ADDED)},
        who="administrators",
        limit="auth_register",
        body=fields.ACCOUNT,
        refusals=(409,),
        repeatable=True,
    ),
    Route("GET", f"{_A}/me", me, {200: schemas.thing(_ME)}),
    Route("GET", f"{_A}/session", session, {200: _LEFT}, limit="api_poll"),
    Route("POST", f"{_A}/session/refresh", refresh, {200: _LEFT}, limit="api_poll", body={}),
    Route("POST", f"{_A}/confirm", confirm, {200: _done("confirmed")}, body=fields.CONFIRMATION),
    Route("POST", f"{_A}/password", change_password, {200: _done("changed")}, body=fields.PASSWORD),
    Route("POST", f"{_A}/2fa/setup", setup, {200: schemas.thing(_ENROLMENT)}, body={}, refusals=(409,)),
    Route(
        "POST",
        f"{_A}/2fa/enable",
        enable,
        {200: schemas.thing({"recovery_codes": schemas.items(schemas.STRING), **_CSRF})},
        body=fields.CODE,
        refusals=(409,),
    ),
    Route(
        "POST",
        f"{_A}/2fa/disable",
        disable,
        {200: schemas.thing({"second_factor": {"const": False}, **_CSRF})},
        body=fields.CODE,
        refusals=(409,),
    ),
)
