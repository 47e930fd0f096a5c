"""Limits of failed sign-ins for Django's own login, in the groups of ``SignIn``.

First in ``AUTHENTICATION_BACKENDS``, before the backends that check credentials:

.. code-block:: python

    AUTHENTICATION_BACKENDS = [
        "mks_hardening.contrib.django_app.login_limits.LoginLimitBackend",
        "django.contrib.auth.backends.ModelBackend",
    ]
"""

from __future__ import annotations

import secrets
from contextvars import ContextVar
from math import ceil
from typing import TYPE_CHECKING, Final, cast

from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.origin.network_addresses import client_key
from mks_hardening._core.origin.origin_of_request import request_origin
from mks_hardening.contrib._limited_views import note_decision
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import (
    FromDjango,
    PermissionDenied,
    environ_of,
    in_tests,
    signing,
    username_field,
)
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security.sign_in._attempt_hits import (
    AttemptHits,
    LimitKey,
    account_limit_key,
    client_limit_keys,
    device_limit_key,
)
from mks_hardening.security.sign_in._context import SignInTrace, emit_event, normalize_name

if TYPE_CHECKING:
    from mks_hardening.security import RateLimiter

__all__ = [
    "LoginAttempts",
    "LoginLimitBackend",
    "login_attempts",
    "note_failure",
    "note_success",
    "unlock_login",
]

_KEY: Final = "mks_hardening.login_attempts"
_COOKIE: Final = "mks_login_device"
_SALT: Final = "mks_hardening.contrib.django_app.login_limits"
_REMEMBERED: Final = 90 * 86_400  # seconds, as in SignIn
# Not in the request: a view can check several credentials at the same time, each in a task of its own.
_pending: Final[ContextVar[AttemptHits | None]] = ContextVar("mks_hardening.pending_login", default=None)


class LoginLimitBackend:
    """Authentication backend that limits failed sign-ins and leaves the check of credentials to those after it.

    An attempt is counted before the credentials are checked, so that parallel guesses cannot exceed a limit, and
    given back if they are right. It is counted in the groups of ``SIGN_IN_LIMITS``: by network, by address, by
    address with name, and by name from all clients (ASVS 5.0, 6.3.1). Names that no account has are counted in the
    same way. A browser that has signed in before gets a cookie and from then on a limit of its own, so that
    strangers cannot lock its user out (6.1.1). Change a group with ``MKS_HARDENING = {"groups": ...}``.

    The response to a refused attempt keeps the body that the view gave it and gets the status 429 and
    ``Retry-After``; templates read the seconds from ``request.login_retry_after``. Attempts without a request are
    refused, except in Django's tests. Every attempt emits a ``SignInEvent``.
    """

    def authenticate(self, request: FromDjango = None, **credentials: FromDjango) -> None:
        """Count the attempt; called by ``django.contrib.auth.authenticate``.

        Args:
            request: the request of the attempt.
            credentials: those of the attempt. The name is ``username``, the model's ``USERNAME_FIELD`` or
                ``email``; otherwise the first other text beside a ``password``. Not counted if there is none.

        Raises:
            PermissionDenied: a limit is reached, or no account has such a name. No further backend is asked.
            BackendUnavailableError: the limiter's server does not respond, and its policy is to refuse.
            ConfigurationError: there is no request.
        """
        attempts, name = _of_request(request, credentials)
        if attempts is not None:
            run(attempts.reserve(name, request))

    async def aauthenticate(self, request: FromDjango = None, **credentials: FromDjango) -> None:
        """``authenticate`` for asyncio."""
        attempts, name = _of_request(request, credentials)
        if attempts is not None:
            await arun(attempts.reserve(name, request))

    def get_user(self, user_id: object) -> None:
        """Return no user: this backend signs nobody in."""

    async def aget_user(self, user_id: object) -> None:
        """``get_user`` for asyncio."""


class LoginAttempts:
    """Sign-ins attempted in one request; stored in its environ or scope.

    Args:
        environ: WSGI environ or ASGI scope.
    """

    __slots__ = ("_environ", "_name", "_open", "is_refused", "signed_in_as")

    def __init__(self, environ: dict[str, FromDjango]) -> None:
        self._environ = environ
        self._open: list[AttemptHits] = []
        self._name: str | None = None
        self.is_refused: bool = False
        self.signed_in_as: str | None = None

    def reserve(self, typed: str, request: FromDjango) -> Op[None]:
        """Count an attempt with this name.

        Raises:
            PermissionDenied: a limit is reached, or no account can have the name.
        """
        _pending.set(None)
        self._name = None
        usable, name = normalize_name(typed)
        address = request_origin(self._environ).client_ip
        hits = AttemptHits(_limiter())
        if (yield from hits.reserve(*_limit_keys(address, usable, name, _device_of(request)))):
            _pending.set(hits)
            self._name = usable
            self._open.append(hits)
            if usable is None:  # some databases raise errors for it
                raise PermissionDenied("not the name of an account")
            return
        self.is_refused = True
        emit_event("limited", SignInTrace(client=client_key(address), method="password"))
        if hits.refusal is not None:
            request.login_retry_after = ceil(hits.refusal.retry_after or 0)
            note_decision(self._environ, hits.refused_group, hits.refusal)
        raise PermissionDenied("too many failed sign-ins")

    def fail(self) -> None:
        """Keep the hits of this task's latest attempt counted: its credentials were wrong."""
        hits = _pending.get()
        if hits in self._open:
            self._open.remove(hits)
            # A user who signs in without another attempt, for example after registering, has another name.
            self._name = None
            client = client_key(request_origin(self._environ).client_ip)
            emit_event("refused", SignInTrace(client=client, reason="wrong", method="password"))

    def succeed(self, user: FromDjango) -> None:
        """Note that a user has been signed in, for the cookie of the browser and the audit log."""
        self.signed_in_as = self._name
        self.is_refused = False  # an attempt before it was, for example with another name
        client = client_key(request_origin(self._environ).client_ip)
        emit_event("signed_in", SignInTrace(client=client, user_id=str(user.pk), method="password"))

    def finish(self, request: FromDjango, response: FromDjango) -> None:
        """Give back the hits of right credentials; set status and cookie of the response."""
        try:
            for hits in self._open:
                run(hits.give_back())
        except (
            BackendUnavailableError
        ):  # they stay counted until their window ends, and nobody is refused for it
            pass
        self._open.clear()
        if self.is_refused and response.status_code < 500:
            response.status_code = 429
        if self.signed_in_as is not None and _device_name(request) != self.signed_in_as:
            token = signing.dumps([self.signed_in_as, secrets.token_urlsafe(16)], salt=_SALT)
            secure = bool(request.is_secure())
            response.set_cookie(
                _cookie_name(request),
                token,
                max_age=_REMEMBERED,
                secure=secure,
                httponly=True,
                samesite="Lax",
            )


def login_attempts(request: FromDjango) -> LoginAttempts | None:
    """Return the attempts of a request, or ``None`` if there were none."""
    found: LoginAttempts | None = environ_of(request).get(_KEY)
    return found


def note_failure(request: FromDjango = None, **_: object) -> None:
    """Receive Django's signal ``user_login_failed``."""
    attempts = None if request is None else login_attempts(request)
    if attempts is not None:
        attempts.fail()


def note_success(request: FromDjango = None, user: FromDjango = None, **_: object) -> None:
    """Receive Django's signal ``user_logged_in``."""
    attempts = None if request is None else login_attempts(request)
    if attempts is not None:
        attempts.succeed(user)


def unlock_login(name: str, *, address: str | None = None) -> None:
    """Allow sign-ins with a name again at once.

    A browser that has signed in before has a limit of its own, which stays. Without its cookies it is a stranger.

    Args:
        name: as users type it; case, width and accents do not matter.
        address: also reset the limits of this client address, its network and the name from it.

    Raises:
        BackendUnavailableError: the limiter's server does not respond.
    """
    counted = normalize_name(name)[1]
    clients = () if address is None else client_limit_keys(address, counted)
    for key in (account_limit_key(None, counted), *clients):
        _limiter().reset(*key)


def _of_request(request: FromDjango, credentials: dict[str, FromDjango]) -> tuple[LoginAttempts | None, str]:
    name = _name_in(credentials)
    if name is None or (request is None and in_tests()):
        return None, ""
    if request is None:
        raise ConfigurationError(
            "authenticate() without a request is not limited: authenticate(request, ...)", parameter="request"
        )
    environ = environ_of(request)
    attempts: LoginAttempts = environ.setdefault(_KEY, LoginAttempts(environ))
    # Text: a JSON document may hold a number, which finds the account that has it as its name.
    return attempts, str(name)


def _name_in(credentials: dict[str, FromDjango]) -> FromDjango:
    """Return the name that ``ModelBackend`` looks up; or what other backends do beside a password."""
    for key in ("username", username_field(), "email"):
        if credentials.get(key) is not None:
            return credentials[key]
    others = [value for key, value in credentials.items() if key != "password" and isinstance(value, str)]
    return others[0] if others and "password" in credentials else None


def _limiter() -> RateLimiter:
    return cast("RateLimiter", components().limiter)  # required by the system checks


def _limit_keys(
    address: str, usable: str | None, name: str, device: tuple[str, str] | None
) -> tuple[LimitKey, ...]:
    # The name as it was typed: "Alice" can be another account than "alice", whose owner could otherwise guess the
    # password of the latter with a new cookie for each ten guesses.
    if device is not None and device[0] == usable:
        return (device_limit_key(device[1]),)
    return (*client_limit_keys(address, name), account_limit_key(None, name))


def _cookie_name(request: FromDjango) -> str:
    return f"__Host-{_COOKIE}" if request.is_secure() else _COOKIE


def _device_of(request: FromDjango) -> tuple[str, str] | None:
    """Return name and id that a browser's cookie proves, or ``None``."""
    try:
        name, device = signing.loads(
            request.COOKIES.get(_cookie_name(request), ""), salt=_SALT, max_age=_REMEMBERED
        )
    except (signing.BadSignature, ValueError, TypeError):
        return None
    return str(name), str(device)


def _device_name(request: FromDjango) -> str | None:
    device = _device_of(request)
    return None if device is None else device[0]
