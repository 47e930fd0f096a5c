"""Rate limits for views, blueprints and applications."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from flask import Blueprint, Flask, current_app, request
from werkzeug.exceptions import TooManyRequests

from mks_hardening._core.web.rate_headers import wait_in_seconds
from mks_hardening.contrib._limited_views import (
    TOO_MANY,
    Key,
    ViewLimit,
    check_group,
    groups_of,
    is_exempt,
    mark_exempt,
    mark_groups,
)
from mks_hardening.contrib.flask_app._installed import installed
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.protocols import Limiter
    from mks_hardening.wsgi import GroupChoice, LimitedResponse

__all__ = ["check_limits", "exempt", "limit"]

View = TypeVar("View", bound=Callable[..., Any] | Flask | Blueprint)
_FIX: Final = "Hardening(app, settings, groups={%r: '5 per minute'})"


def limit(
    group: str | GroupChoice,
    *,
    key: Callable[[], Key | None] | None = None,
    cost: int = 1,
    methods: Iterable[str] | None = None,
    exempt: Callable[[], bool] | None = None,
    final_cost: Callable[[LimitedResponse], int | bool] | None = None,
) -> Callable[[View], View]:
    """Limit requests to a view, or to all views of a blueprint or an application; responds with 429 at the limit.

    Responses carry rate-limit header fields, unless the view sets them itself. A refusal raises
    ``werkzeug.exceptions.TooManyRequests``, so ``@app.errorhandler(429)`` can customize the response.

    Args:
        group: group of the limiter, or a ``GroupChoice`` whose function is called during the request. An unknown
            group is rejected when the view is registered.
        key: called during the request; returns the key to count by (a text, a number, a UUID), or ``None`` to not
            count the request. The default, also if it raises an error, is the signed-in user, else the client
            address.
        cost: hits that one request counts as.
        methods: methods that count, ``GET`` including ``HEAD``; by default all except preflights of CORS.
        exempt: called during the request; returns whether it is not counted. If it raises an error, the request is
            counted.
        final_cost: called when the response has ended; returns the number of hits that the request counts as in the
            end, or whether it counts at all: ``lambda response: response.status == 401`` counts failures only. See
            ``RateLimitRule``.

    Raises:
        ConfigurationError: ``group`` is not a name, or another argument is invalid.
    """
    view_limit = ViewLimit(
        lambda _: installed(current_app).limiter,
        group,
        key=key,
        cost=cost,
        methods=methods,
        exempt=exempt,
        final_cost=final_cost,
        is_sync=True,
    )

    def check() -> None:
        refusal = view_limit.count_request(request.environ)
        if refusal is not None:
            raise TooManyRequests(TOO_MANY, retry_after=wait_in_seconds(refusal))

    def decorate(view: View) -> View:
        if isinstance(view, Flask | Blueprint):

            def before() -> None:
                if not _is_exempt(request.endpoint, view):
                    check()

            mark_groups(before, *view_limit.groups)
            view.before_request(before)
            return cast("View", view)

        is_async = iscoroutinefunction(view)

        @wraps(view)
        def limited(*args: Any, **values: Any) -> Any:
            check()
            # Through Flask, as for unwrapped views: this wrapper is a plain function.
            return (current_app.ensure_sync(view) if is_async else view)(*args, **values)

        mark_groups(limited, *view_limit.groups, *groups_of(view))
        return cast("View", limited)

    return decorate


def exempt(view: View) -> View:
    """Exempt a view from the limits of its blueprint and application; limits of the view itself still apply.

    A blueprint is exempted from the limits of the application and of blueprints around it. Rules of
    ``rate_limits`` apply before Flask has found the view: use their ``exempt``.

    Raises:
        ConfigurationError: ``view`` is an application.
    """
    if isinstance(view, Flask):
        raise ConfigurationError(
            "exempt takes a view or a blueprint; an application has no limits around it", parameter="view"
        )
    mark_exempt(view)
    return view


def check_limits(limiter: Limiter, endpoint: str, view: object) -> None:
    """Check that the groups of a view are defined.

    Raises:
        ConfigurationError: a group is unknown.
    """
    for group in groups_of(view):
        check_group(limiter, group, view=f"view {endpoint!r}", fix=_FIX % group)


def _is_exempt(endpoint: str | None, limited: Flask | Blueprint) -> bool:
    """Return whether a request is exempt from a limit of an application or a blueprint."""
    # A page loads a dozen files; if they counted, an ordinary client would be refused because of its style sheets.
    if endpoint is None or endpoint.rpartition(".")[2] == "static":
        return True
    if is_exempt(current_app.view_functions.get(endpoint)):
        return True
    for name in request.blueprints:  # the innermost first
        blueprint = current_app.blueprints[name]
        if blueprint is limited:
            return False
        if is_exempt(blueprint):
            return True
    return False
