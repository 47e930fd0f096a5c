"""``/api/admin``: cache invalidation and CDN purges for administrators."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Route
from knowledge_system.domain import fields
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.web import current_request
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.cache import PurgeResult

__all__ = ["ROUTES"]


def invalidate(asked: ApiRequest) -> ApiResponse:
    """Invalidate every cached article and list; `done` is false if the cache was unavailable.

    During an outage of the cache, the invalidation takes effect as soon as the cache is available again.
    """
    del asked
    return ApiResponse({"done": current_request.services().catalogue.forget_all()})


def purge(asked: ApiRequest) -> ApiResponse:
    """Purge addresses, tags or everything from the CDN; 200 only when all of it was done.

    503 with ``Retry-After`` if the CDN is unavailable or busy, 409 if it rejects the request; both list what was
    purged.
    """
    cdn, values = current_request.services().cdn, asked.values
    if cdn is None:
        raise Problem("no-cdn")
    urls, tags = values["urls"], values["tags"]
    if values["everything"] is bool(urls or tags):
        raise Problem("invalid", errors=[FieldError("everything", "alone")])
    try:
        result = (
            cdn.purge_cache(purge_everything=True)
            if values["everything"]
            else cdn.purge_cache(urls or None, tags=tags or None)
        )
    except ConfigurationError as error:
        field = "tags" if error.parameter == "tags" else "urls"
        raise Problem("invalid", errors=[FieldError(field, "pattern")]) from error
    if not result:
        raise _not_purged(result)
    return ApiResponse({"done": list(result.done)})


def _not_purged(result: PurgeResult) -> Problem:
    """Build the problem; never 502, which a proxy sends on its own and which would not say what was purged."""
    outcome = {"done": list(result.done), "failed": list(result.failed), "reasons": list(result.errors)}
    if result.retry_after is None:
        return Problem("purge-refused", extra=outcome)
    return Problem("not-purged", extra=outcome, headers={"Retry-After": str(ceil(result.retry_after))})


ROUTES = (
    Route(
        "POST",
        "/api/admin/cache/invalidate",
        invalidate,
        {200: schemas.thing({"done": schemas.FLAG})},
        who="administrators",
        limit="admin",
        body={},
    ),
    Route(
        "POST",
        "/api/admin/cdn/purge",
        purge,
        {200: schemas.thing({"done": schemas.items(schemas.STRING)})},
        who="administrators",
        limit="admin",
        body=fields.PURGE,
        refusals=(409,),
    ),
)
