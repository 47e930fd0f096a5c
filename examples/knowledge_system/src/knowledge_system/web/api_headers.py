"""What every answer under ``/api/`` says, whoever gave it: where limits stand, and how to authenticate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask import g, request

from knowledge_system.web import current_request
from mks_hardening.security import client_key, rate_limit_headers

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

__all__ = ["HERE", "OPEN_GROUP", "add"]

HERE: Final = "/api/"
OPEN_GROUP: Final = "api_open"
"""What requests count in that match no route, or come from nobody."""


def add(response: Response) -> None:
    """Write the fields; those of limits unless the adapter will.

    What was refused before it was counted is not counted now.
    """
    if not request.path.startswith(HERE):
        return
    if response.status_code == 401:  # RFC 6750, 3
        refused = ', error="invalid_token"' if "Authorization" in request.headers else ""
        response.headers["WWW-Authenticate"] = f'Bearer realm="knowledge"{refused}'
    limiter = current_request.parts().limiter
    if limiter is not None and "counted" not in g:
        decision = g.get("limit") or limiter.test(
            OPEN_GROUP, f"client:{client_key(current_request.address())}"
        )
        if response.status_code != 429 or not decision.allowed:  # or another limit has refused
            response.headers.update(rate_limit_headers(decision))
