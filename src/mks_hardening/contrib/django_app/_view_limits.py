"""Rate limits for views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, TypeVar, cast

from mks_hardening._core.web.rate_headers import rate_limit_headers
from mks_hardening.contrib._limited_views import (
    TOO_MANY,
    Key,
    ViewLimit,
    check_group,
    groups_of,
    mark_exempt,
    mark_groups,
)
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app._django import FromDjango, environ_of, get_resolver
from mks_hardening.contrib.django_app._hardening_middleware import problem_response
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.wsgi import GroupChoice, LimitedResponse

__all__ = ["exempt", "limit", "unknown_groups"]

View = TypeVar("View", bound=Callable[..., FromDjango])


def limit(
    group: str | GroupChoice,
    *,
    key: Callable[[FromDjango], Key | None] | None = None,
    cost: int = 1,
    methods: Iterable[str] | None = None,
    exempt: Callable[[FromDjango], bool] | None = None,
    final_cost: Callable[[FromDjango, LimitedResponse], int | bool] | None = None,
) -> Callable[[View], View]:
    """Limit requests to a view; responds with 429 at the limit. Use ``method_decorator`` for class-based views.

    Responses carry rate-limit header fields, unless the view sets them itself.

    Args:
        group: group of the limiter, or a ``GroupChoice`` that takes the request. The system checks and ``hardened``
            reject an unknown group.
        key: takes the request; returns the key to count by (a text, a number, a UUID), or ``None`` to not count the
            request. The default, also if it raises an error, is the signed-in user, else the client address.
        cost: hits that one request counts as.
        methods: methods that count, ``GET`` including ``HEAD``; by default all except preflights of CORS.
        exempt: takes the request; returns whether it is not counted. If it raises an error, the request is counted.
        final_cost: takes the request and a ``LimitedResponse`` when the response has ended; returns the number of
            hits that the request counts as in the end, or whether it counts at all: ``lambda request, response:
            response.status == 401`` counts failures only. See ``RateLimitRule``.

    Raises:
        ConfigurationError: ``group`` is not a name, or another argument is invalid; the view is not asynchronous,
            but the ``GroupChoice`` is.
    """
    view_limit = ViewLimit(
        lambda _: components().limiter,
        group,
        key=key,
        cost=cost,
        methods=methods,
        exempt=exempt,
        final_cost=final_cost,
    )

    def decorate(view: View) -> View:
        limited: Callable[..., FromDjango]

        if iscoroutinefunction(view):

            @wraps(view)
            async def alimited(request: FromDjango, *args: object, **values: object) -> FromDjango:
                refusal = await view_limit.acount_request(environ_of(request), request)
                if refusal is not None:
                    return problem_response(429, TOO_MANY, rate_limit_headers(refusal))
                return await view(request, *args, **values)

            limited = alimited
        else:
            view_limit.check_sync()

            @wraps(view)
            def plain_limited(request: FromDjango, *args: object, **values: object) -> FromDjango:
                refusal = view_limit.count_request(environ_of(request), request)
                if refusal is not None:
                    return problem_response(429, TOO_MANY, rate_limit_headers(refusal))
                return view(request, *args, **values)

            limited = plain_limited
        # Keeps the groups of an inner limit: views may have several limits.
        mark_groups(limited, *view_limit.groups, *groups_of(view))
        return cast("View", limited)

    return decorate


def exempt(view: View) -> View:
    """Exempt a view from the ``view_limits`` of the project; limits of the view itself still apply.

    Use ``method_decorator(exempt, name="dispatch")`` for class-based views, and ``exempt_namespaces`` of
    ``MKS_HARDENING`` for all views of a namespace. Rules of ``rate_limits`` apply before Django has found the view:
    use their ``exempt``.
    """
    mark_exempt(view)
    return view


def unknown_groups() -> Iterator[str]:
    """Yield an error message for each unknown group that the project or one of its views uses."""
    project_groups = {group for each in components().view_limits for group in each.groups}
    used = [("view_limits", group) for group in sorted(project_groups)]
    used += [(f"view {name}", group) for name, view in _views(get_resolver()) for group in groups_of(view)]
    for place, group in used:
        try:
            fix = f"MKS_HARDENING = {{'groups': {{{group!r}: '5 per minute'}}}}"
            check_group(components().limiter, group, view=place, fix=fix)
        except ConfigurationError as error:
            yield str(error)


def _views(resolver: FromDjango) -> Iterator[tuple[str, object]]:
    """Yield every view with its route; imports the modules of the views."""
    for pattern in resolver.url_patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _views(pattern)
        else:
            yield str(pattern.pattern), pattern.callback
