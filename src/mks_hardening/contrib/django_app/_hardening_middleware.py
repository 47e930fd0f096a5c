"""The Django middleware, which connects Django to the WSGI middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mks_hardening._core.request_hits import costs_of_request
from mks_hardening._core.web.environ_keys import (
    CSP_NONCE_KEY,
    CSRF_TOKEN_KEY,
    DEADLINE_KEY,
    ORIGIN_KEY,
    REQUEST_ID_KEY,
    ROUTE_KEY,
    SESSION_KEY,
)
from mks_hardening._core.web.problem_details import PROBLEM_TYPE, problem_document
from mks_hardening._core.web.rate_headers import rate_limit_headers
from mks_hardening.contrib._limited_views import (
    OUTAGES_AND_LIMITS,
    TOO_MANY,
    is_exempt,
    limit_fields,
    problem_of,
)
from mks_hardening.contrib.django_app._cached_pages import current_request
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import (
    FromDjango,
    HttpResponse,
    SessionInterrupted,
    SessionMiddleware,
    UpdateError,
    environ_of,
    in_tests,
    project,
)
from mks_hardening.contrib.django_app.login_limits import login_attempts
from mks_hardening.contrib.django_app.sessions import SessionStore
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HardeningMiddleware", "problem_response"]

_DECISIONS: Final = (ORIGIN_KEY, REQUEST_ID_KEY, CSP_NONCE_KEY, CSRF_TOKEN_KEY, DEADLINE_KEY)
"""What the middleware outside Django has decided, apart from the session."""


class HardeningMiddleware(SessionMiddleware):
    """Replacement of Django's ``SessionMiddleware``: sets session, origin, id and route of each request.

    ``request.session`` is stored in our session. ``request.origin`` is the ``RequestOrigin`` and
    ``request.request_id`` the id of a request that came through ``hardened``; otherwise both are ``None``.
    ``request.login_retry_after`` is the time in seconds after which a sign-in that ``LoginLimitBackend`` refused
    may be tried again, otherwise ``None``.

    A request that the application makes to itself while it handles one (a page preview, Django's test client) need
    not pass through ``hardened`` again: the decisions about the outer request apply to it, and ``view_limits`` do
    not count it. With the same Cookie field it has the session of the outer request, which saves it; otherwise the
    session of its own field. ``request.outer_request`` is the outer request, otherwise ``None``.

    Args:
        get_response: the next middleware or the view.

    Raises:
        ConfigurationError: ``SESSION_ENGINE`` is a different one.
    """

    def __init__(self, get_response: Callable[..., FromDjango]) -> None:
        super().__init__(get_response)
        if not issubclass(self.SessionStore, SessionStore):
            raise ConfigurationError(
                "two sessions at once: HardeningMiddleware needs SESSION_ENGINE = "
                "'mks_hardening.contrib.django_app.sessions'",
                parameter="SESSION_ENGINE",
            )

    def process_request(self, request: FromDjango) -> None:
        """Set up the request; called by Django before URL resolution.

        Raises:
            ConfigurationError: the application is not wrapped with ``hardened``.
        """
        request.outer_request = outer = _outer_request(request)
        environ = environ_of(request)
        handle = environ.get(SESSION_KEY)
        request.origin = environ.get(ORIGIN_KEY)
        request.request_id = environ.get(REQUEST_ID_KEY)
        request.login_retry_after = None
        if outer is not None and handle is environ_of(outer)[SESSION_KEY]:
            request.session = outer.session
        elif handle is not None:
            request.session = self.SessionStore(handle=handle)
        elif in_tests():  # Django's test client and live server bypass the middleware
            super().process_request(request)
        else:
            raise ConfigurationError(
                "this request did not pass through the middleware: in wsgi.py write "
                "application = hardened(get_wsgi_application()), or in asgi.py hardened(get_asgi_application())",
                parameter="WSGI_APPLICATION",
            )
        current_request.set(request)

    def process_view(self, request: FromDjango, view: object = None, *_: object) -> FromDjango:
        """Store the route for the request log, and count the limits of all views.

        Called by Django after URL resolution.
        """
        # The pattern, not the path: metrics and log records must not contain a separate name for every id.
        environ_of(request)[ROUTE_KEY] = (
            f"{request.META.get('SCRIPT_NAME', '')}/{request.resolver_match.route}"
        )
        limits = components().view_limits
        if (
            limits
            and request.outer_request is None
            and not is_exempt(view)
            and not _in_exempt_namespace(request.resolver_match.namespaces)
        ):
            for limit in limits:
                refusal = limit.count_request(environ_of(request), request)
                if refusal is not None:
                    return problem_response(429, TOO_MANY, rate_limit_headers(refusal))
        return None

    def process_exception(self, request: FromDjango, exception: Exception) -> FromDjango:
        """Respond to outages and limits; called by Django when a view has raised."""
        if isinstance(exception, OUTAGES_AND_LIMITS):
            return problem_response(*problem_of(environ_of(request), exception))
        return None

    def process_response(self, request: FromDjango, response: FromDjango) -> FromDjango:
        """Add rate-limit fields and save the session; called by Django with the response.

        Raises:
            SessionInterrupted: the session ended while the request was in progress.
        """
        outer, environ = request.outer_request, environ_of(request)
        current_request.set(outer)
        attempts = login_attempts(request)
        if attempts is not None:
            attempts.finish(request, response)
        costs = costs_of_request(environ)
        # Nothing outside Django sees the response to Django's test client, or to the application itself.
        if costs is not None and (
            SESSION_KEY not in environ if outer is None else costs is not costs_of_request(environ_of(outer))
        ):
            costs.status = response.status_code
            costs.body_bytes = 0 if response.streaming else len(response.content)
            costs.finalize(complete=True)
        for name, value in limit_fields(environ, response.status_code, response.headers.items()):
            response.headers[name] = value
        session = getattr(request, "session", None)
        if outer is not None and session is outer.session:
            return response
        if not isinstance(session, SessionStore) or SESSION_KEY not in environ:
            return super().process_response(request, response)
        # As in Django's own middleware: session changes of a failed request are not saved.
        if response.status_code < 500 and (
            session.modified or session.handle.sets_cookie or project().SESSION_SAVE_EVERY_REQUEST
        ):
            try:
                session.save()
            except UpdateError:
                # Django turns it into a 400: saving again would revive a session that was just ended.
                raise SessionInterrupted("The session ended during this request.") from None
            except BackendUnavailableError as error:
                instead = problem_response(*problem_of(environ, error))
                # Closed with the new response; closing them here would end the request twice for Django.
                instead._resource_closers += response._resource_closers  # noqa: SLF001
                return instead
        return response


def problem_response(status: int, detail: str, fields: list[tuple[str, str]]) -> FromDjango:
    """Build a problem document response (RFC 9457)."""
    headers = {"Cache-Control": "no-store", **dict(fields)}
    return HttpResponse(problem_document(status, detail), PROBLEM_TYPE, status, headers=headers)


def _outer_request(request: FromDjango) -> FromDjango:
    """Return the request in which the application makes this one to itself, or ``None``.

    A request that did not come through ``hardened`` gets the decisions about the outer one. They are found by the
    context that handles it, never by anything that a client sends.
    """
    environ, outer = environ_of(request), current_request.get()
    if outer is None:
        return None
    decisions = environ_of(outer)
    handle = decisions.get(SESSION_KEY)
    if handle is None or environ.get(SESSION_KEY, handle) is not handle:
        return None
    if SESSION_KEY not in environ:
        environ.update({key: decisions[key] for key in _DECISIONS if key in decisions})
        cookies = request.META.get("HTTP_COOKIE")
        # Without cookies it has no session, even if the user has just signed in: nobody said whose request it is.
        is_same = cookies is not None and cookies == outer.META.get("HTTP_COOKIE")
        environ[SESSION_KEY] = handle if is_same else components().sessions.open(cookies)
    return outer


def _in_exempt_namespace(namespaces: list[str]) -> bool:
    exempt = components().exempt_namespaces
    return any(":".join(namespaces[: depth + 1]) in exempt for depth in range(len(namespaces)))
