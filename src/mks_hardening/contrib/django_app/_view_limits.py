"""Limits for single views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import TypeVar, cast

from mks_hardening._core.web.rate_headers import rate_limit_headers
from mks_hardening.contrib._limited_views import (
    TOO_MANY,
    Key,
    check_group,
    check_limit,
    count,
    groups_of,
    key_text,
    mark,
    user_or_client,
)
from mks_hardening.contrib.django_app._components import parts
from mks_hardening.contrib.django_app._django import FromDjango, get_resolver
from mks_hardening.contrib.django_app._middleware import problem_response
from mks_hardening.exceptions import ConfigurationError

__all__ = ["limit", "unknown_groups"]

View = TypeVar("View", bound=Callable[..., FromDjango])


def limit(
    group: str,
    *,
    key: Callable[[FromDjango], Key | None] | None = None,
    cost: int = 1,
    methods: Iterable[str] | None = None,
    exempt: Callable[[FromDjango], bool] | None = None,
) -> Callable[[View], View]:
    """Count requests to a view and answer 429 beyond the limits; ``method_decorator`` puts it on a class.

    Answers say where the client stands, unless the view sets such fields itself.

    Args:
        group: of the limiter; the system checks and ``hardened`` refuse an unknown one.
        key: given the request, tells whom it counts for (a text, a number, a UUID); ``None`` from it: it does not
            count. By default the signed-in user, else the client's address.
        cost: hits that one request takes.
        methods: those that count; all if left out.
        exempt: given the request, tells that it does not count.

    Raises:
        ConfigurationError: ``group`` is no name, or another argument is none of its kind.
    """
    if not isinstance(group, str) or not group:
        raise ConfigurationError('group must be the name of a group: @limit("auth_login")', parameter="group")
    counted = check_limit(key=key, cost=cost, methods=methods, exempt=exempt)

    def decorate(view: View) -> View:
        @wraps(view)
        def limited(request: FromDjango, *args: object, **values: object) -> FromDjango:
            if (counted is None or request.method in counted) and not (
                exempt is not None and exempt(request)
            ):
                whom = user_or_client(request.META) if key is None else key(request)
                if whom is not None:
                    decision = count(parts().limiter, request.META, group, key_text(whom), cost=cost)
                    if not decision.allowed:
                        return problem_response(429, TOO_MANY, rate_limit_headers(decision))
            return view(request, *args, **values)

        # The groups of an inner limit stay known: views may be limited twice.
        mark(limited, group, *groups_of(view))
        return cast("View", limited)

    return decorate


def unknown_groups() -> Iterator[str]:
    """What is wrong with the groups that the views of the project ask for."""
    for name, view in _views(get_resolver()):
        for group in groups_of(view):
            try:
                mend = f"MKS_HARDENING = {{'groups': {{{group!r}: '5 per minute'}}}}"
                check_group(parts().limiter, group, view=f"view {name}", mend=mend)
            except ConfigurationError as error:
                yield str(error)


def _views(resolver: FromDjango) -> Iterator[tuple[str, object]]:
    """Every view with the route to it; loads the modules they are in."""
    for pattern in resolver.url_patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _views(pattern)
        else:
            yield str(pattern.pattern), pattern.callback
