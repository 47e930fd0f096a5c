"""Responses to preflights, and the header fields of CORS in other responses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.web.environ_keys import REFUSAL_KEY
from mks_hardening._edge.refusal_response import FixedResponse, RefusalResponse, Refuser
from mks_hardening._edge.request_log.record_fields import readable_path

if TYPE_CHECKING:
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.cors.cors_policy import CORSPolicy
    from mks_hardening._edge.refusals import Refusal

__all__ = ["ORIGIN_FIELDS", "CORSRequest", "add_cors_fields", "preflight_response", "refuse_preflight"]

_logger = logging.getLogger("mks_hardening.cors")
ORIGIN_FIELDS: Final = "access-control-"
"""The prefix of the header fields that the middleware owns."""
_NOT_ALLOWED: Final = RefusalResponse(
    "origin", 403, "This origin is not allowed to use this server.", setting="MKS_CORS_ORIGINS"
)


class CORSRequest(NamedTuple):
    """The header fields of a request that matter for CORS; ``None`` for a missing one."""

    origin: str | None
    requested_headers: str | None
    private_network: str | None


def preflight_response(policy: CORSPolicy, asked: CORSRequest) -> FixedResponse | None:
    """Return the response to a preflight; ``None`` for an origin that is not allowed."""
    fields = policy.preflight_fields(
        asked.origin, asked.requested_headers, private_network=asked.private_network == "true"
    )
    if fields is None:
        return None
    vary = policy.vary(preflight=True)
    headers = [*fields, *([("Vary", ", ".join(vary))] if vary else [])]
    # Without Content-Type and Content-Length: a 204 has no body (RFC 9110, 15.3.5).
    return FixedResponse(204, b"", "text/plain").with_headers(headers)


def refuse_preflight(
    refuser: Refuser, request: dict[str, Any], *, origin: str, path: str, accept: str, client_ip: str
) -> FixedResponse:
    """Return the refusal of a preflight, which is logged here: it does not reach the request log."""
    response = refuser.refuse(
        request, _NOT_ALLOWED, accept=accept, seen=origin, client_ip=client_ip, headers=[("Vary", "Origin")]
    )
    refusal: Refusal = request[REFUSAL_KEY]
    fields = {
        "refused_by": refusal.wrapper,
        "refused_rule": refusal.rule,
        "refused_value": refusal.seen,
        "refused_setting": refusal.setting,
    }
    _logger.info(
        "preflight for %s refused by the cors rule origin (%s); see %s",
        readable_path(path),
        refusal.seen,
        refusal.setting,
        extra=fields,
    )
    return response


def add_cors_fields(policy: CORSPolicy, origin: str | None, headers: Headers) -> None:
    """Add the fields to a response in place; those that the application has set are replaced."""
    if any(name.lower().startswith(ORIGIN_FIELDS) for name, _ in headers):
        headers[:] = [field for field in headers if not field[0].lower().startswith(ORIGIN_FIELDS)]
    headers += policy.response_fields(origin)
    for name in policy.vary(preflight=False):
        _vary(headers, name)


def _vary(headers: Headers, name: str) -> None:
    """Merge a name into ``Vary``, without a duplicate."""
    for position, (field, value) in enumerate(headers):
        if field.lower() == "vary":
            if {"*", name.lower()}.isdisjoint(item.strip().lower() for item in value.split(",")):
                headers[position] = (field, f"{value}, {name}")
            return
    headers.append(("Vary", name))
