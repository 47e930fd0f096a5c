"""Origin of the current request, under WSGI and ASGI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mks_hardening._core.origin.proxy_trust import NO_TRUST
from mks_hardening._core.origin.request_origin import RequestOrigin
from mks_hardening._core.web.environ_keys import ORIGIN_KEY

__all__ = ["request_origin"]


def request_origin(request: Mapping[str, Any]) -> RequestOrigin:
    """Return the origin determined by an outer middleware; without one, that of the connection itself.

    Args:
        request: WSGI environ or ASGI scope.
    """
    found: RequestOrigin | None = request.get(ORIGIN_KEY)
    if found is not None:
        return found
    if "type" in request and "REQUEST_METHOD" not in request:
        # Imported here: only ASGI applications need it.
        from mks_hardening._core.origin.scope_trust import direct_origin

        return direct_origin(request)
    return NO_TRUST.resolve(request)
