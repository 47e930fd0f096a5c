"""FastAPI: hardening in one line, and dependencies for the session, rate limits and step-up authentication.

.. code-block:: python

    Hardening(app, HardeningSettings.from_env())


    @app.post("/files", dependencies=[Depends(limit("uploads"))])
    async def upload(user: Annotated[str, Depends(current_user_id)]): ...

The dependencies also work for WebSockets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

from mks_hardening._core.durations import seconds
from mks_hardening._core.lazy_exports import exported
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.web.environ_keys import CSP_NONCE_KEY, CSRF_TOKEN_KEY, SESSION_KEY
from mks_hardening._core.web.rate_headers import rate_limit_headers
from mks_hardening.asgi import SessionHandle
from mks_hardening.contrib._limited_views import TOO_MANY, Key, ViewLimit
from mks_hardening.contrib._openapi_responses import marker_of
from mks_hardening.contrib.asgi_app import Hardening, hardening_of
from mks_hardening.exceptions import ConfigurationError

with optional("fastapi", extra="fastapi"):
    from fastapi import Depends, Security
    from fastapi.openapi.models import APIKey, APIKeyIn
    from fastapi.security.base import SecurityBase
    from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI evaluates the annotations

    from mks_hardening.contrib._starlette_app import ProblemException

if TYPE_CHECKING:
    from mks_hardening.asgi import GroupChoice, LimitedResponse
    from mks_hardening.security import SignIn

__all__ = [
    "Hardening",
    "csp_nonce",
    "csrf_token",
    "current_session",
    "current_user_id",
    "exempt",
    "limit",
    "require_recent_factor",
]

_SHARED = {"mks_hardening.contrib.asgi_app": ["Hardening"]}  # exported here too


class _Scheme(SecurityBase):
    """Security scheme for the OpenAPI document; reads nothing."""

    def __init__(self, name: str, description: str = "") -> None:
        self.model = APIKey.model_validate(
            {"in": APIKeyIn.cookie, "name": "__Host-mks-session", "description": description}
        )
        self.scheme_name = name

    async def __call__(self) -> None: ...


_SessionScheme: TypeAlias = Annotated[
    None, Security(_Scheme("session", "Session cookie; starts at sign-in and ends on the server."))
]
_Responds401: TypeAlias = Annotated[None, Security(_Scheme(marker_of(401)))]
_Responds403: TypeAlias = Annotated[None, Security(_Scheme(marker_of(403)))]
_Responds429: TypeAlias = Annotated[None, Security(_Scheme(marker_of(429)))]


async def current_session(connection: HTTPConnection, _scheme: _SessionScheme = None) -> SessionHandle:
    """Return the session of the request, also if nobody is signed in; for ``Depends``.

    In ``async def`` endpoints, use its methods whose name begins with ``a``.

    Raises:
        ConfigurationError: the application is not hardened.
    """
    hardening_of(connection.scope)
    found: SessionHandle = connection.scope[SESSION_KEY]
    return found


async def current_user_id(
    session: Annotated[SessionHandle, Depends(current_session)], _response: _Responds401 = None
) -> str:
    """Return the id of the signed-in user, or respond with 401 if nobody is; for ``Depends``.

    Raises:
        HTTPException: 401.
    """
    if session.user_id is None:
        raise ProblemException(401, "Sign in first.")
    return session.user_id


async def csrf_token(connection: HTTPConnection) -> str:
    """Return a token for the form field ``csrf_token`` or the header ``X-CSRF-Token``; for ``Depends``.

    Each request for one may set a cookie, so depend on it only where a page has a form.
    """
    return str(connection.scope.get(CSRF_TOKEN_KEY, ""))


async def csp_nonce(connection: HTTPConnection) -> str:
    """Return the nonce for ``<script nonce=...>``; empty if the policy has none; for ``Depends``."""
    return str(connection.scope.get(CSP_NONCE_KEY, ""))


def limit(
    group: str | GroupChoice,
    *,
    key: Callable[[HTTPConnection], Key | None] | None = None,
    cost: int = 1,
    methods: Iterable[str] | None = None,
    exempt: Callable[[HTTPConnection], bool] | None = None,
    final_cost: Callable[[HTTPConnection, LimitedResponse], int | bool] | None = None,
) -> Callable[..., Awaitable[None]]:
    """Return a dependency that limits requests to an endpoint, a router or an application: 429 at the limit.

    Use it as ``Depends(limit("uploads"))``, also in ``dependencies=[...]``. Responses carry rate-limit header
    fields, unless the endpoint sets them itself. A handler of the application for the status 429 can replace the
    problem document.

    Args:
        group: group of the limiter, or a ``GroupChoice`` that takes the request or WebSocket. An unknown group is
            an error at the first request.
        key: takes the request or WebSocket; returns the key to count by (a text, a number, a UUID), or ``None`` to
            not count it. The default, also if it raises an error, is the signed-in user, else the client address.
        cost: hits that one request counts as.
        methods: methods that count, ``GET`` including ``HEAD``; by default all except preflights of CORS. A
            WebSocket counts as a GET.
        exempt: takes the same; returns whether it is not counted. If it raises an error, the request is counted.
        final_cost: takes the same and the ``LimitedResponse`` when the response has ended; returns the number of
            hits that the request counts as in the end, or whether it counts at all: ``lambda request, response:
            response.status == 401`` counts failures only. A WebSocket has the status 101 when it has been accepted.
            See ``RateLimitRule``.

    Raises:
        ConfigurationError: ``group`` is not a name, or another argument is invalid.
    """
    view_limit = ViewLimit(
        lambda scope: hardening_of(scope).limiter,
        group,
        key=key,
        cost=cost,
        methods=methods,
        exempt=exempt,
        final_cost=final_cost,
    )

    async def count(connection: HTTPConnection, _response: _Responds429 = None) -> None:
        scope = cast("dict[str, Any]", connection.scope)
        if _is_exempt(scope, count):
            return
        refusal = await view_limit.acount_request(scope, connection)
        if refusal is not None:
            raise ProblemException(429, TOO_MANY, dict(rate_limit_headers(refusal)))

    return count


async def exempt() -> None:
    """Exempt an endpoint or a router from the limits declared before it: of the application and routers around it.

    Use it as ``Depends(exempt)`` in ``dependencies=[...]``. Limits declared after it still apply. Rules of
    ``rate_limits`` apply before FastAPI has found the endpoint: use their ``exempt``.
    """


def _is_exempt(scope: dict[str, Any], limit: object) -> bool:
    """Return whether the route of a request depends on ``exempt`` after a limit."""
    # A router that is included has further dependencies, which newer versions of FastAPI keep in the scope.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    dependant = getattr(route, "dependant", None)
    calls = [each.call for each in getattr(dependant, "dependencies", ())]
    if exempt not in calls or limit not in calls:
        return False
    return calls.index(limit) < len(calls) - 1 - calls[::-1].index(exempt)


def require_recent_factor(
    *, minutes: float = 5, sign_in: SignIn | None = None
) -> Callable[..., Awaitable[SessionHandle]]:
    """Return a dependency for sensitive changes: the user must have confirmed the sign-in recently.

    Responds with 401 if nobody is signed in, and with 403 if the user has not given a second factor in this session
    within the time. Where an account has no second factor, the password counts (``SignIn.confirmed_within``).
    Confirm it by ``SignIn.aconfirm_factor`` or ``aconfirm_password``. The dependency returns the session.

    Args:
        minutes: how recent it must be.
        sign_in: by default that of ``Hardening(app, sign_in=...)``.

    Raises:
        ConfigurationError: ``minutes`` is not a positive number, or, at the first request, there is no ``SignIn``.
    """
    longest = 60 * seconds(minutes, parameter="minutes", allow_zero=False)

    async def confirmed(
        connection: HTTPConnection,
        session: Annotated[SessionHandle, Depends(current_session)],
        _user: Annotated[str, Depends(current_user_id)],
        _response: _Responds403 = None,
    ) -> SessionHandle:
        chosen = sign_in or hardening_of(connection.scope).sign_in
        if chosen is None:
            raise ConfigurationError(
                "require_recent_factor needs the application's SignIn: Hardening(app, settings, sign_in=...)",
                parameter="sign_in",
            )
        if not await chosen.aconfirmed_within(session, longest):
            raise ProblemException(
                403, "Confirm your sign-in first, with your second factor or your password."
            )
        return session

    return confirmed


exported(
    __name__,
    [csp_nonce, csrf_token, current_session, current_user_id, exempt, limit, require_recent_factor],
)
