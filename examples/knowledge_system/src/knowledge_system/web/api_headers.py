"""Headers of every response below ``/api/``, including errors: rate limits and authentication."""

from __future__ import annotations

from typing import Final

from flask import g, request
from werkzeug.wrappers import Response

from knowledge_system.web import current_request
from mks_hardening.security import client_key, rate_limit_headers

HERE: Final = "/api/"
OPEN_GROUP: Final = "api_open"
"""Group that counts requests that match no route or are not authenticated."""


def add(response: Response) -> None:
    """Add the headers; the rate-limit headers only if the library's Flask adapter does not add them.

    A request that was rejected before it was counted is not counted here.
    """
    if not request.path.startswith(HERE):
        return
    if response.status_code == 401:  # RFC 6750, section 3
        refused = ', error="invalid_token"' if "Authorization" in request.headers else ""
        response.headers["WWW-Authenticate"] = f'Bearer realm="knowledge"{refused}'
    limiter = current_request.services().limiter
    if limiter is not None and "counted" not in g:
        decision = g.get("limit") or limiter.test(
            OPEN_GROUP, f"client:{client_key(current_request.address())}"
        )
        if response.status_code != 429 or not decision.allowed:  # else another limit rejected the request
            response.headers.update(rate_limit_headers(decision))
