"""``/api/admin``: cache invalidation and CDN purges for administrators."""

from __future__ import annotations

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.web import article_changes

routes = Routes("/api/admin")


@routes.add(
    "POST", "/cache/invalidate", {200: schemas.thing({"done": schemas.FLAG})}, who="administrators", body={}
)
def invalidate(_asked: ApiRequest) -> ApiResponse:
    """Invalidate every cached article and list; `done` is false if the cache was unavailable.

    During an outage of the cache, the invalidation takes effect as soon as the cache is available again.
    """
    return ApiResponse({"done": article_changes.empty_cache()})


@routes.add(
    "POST",
    "/cdn/purge",
    {200: schemas.thing({"done": schemas.items(schemas.STRING)})},
    who="administrators",
    body=fields.PURGE,
    refusals=(409,),
)
def purge(asked: ApiRequest) -> ApiResponse:
    """Purge addresses, tags or everything from the CDN; 200 only when all of it was done.

    503 with ``Retry-After`` if the CDN is unavailable or busy, 409 if it rejects the request; both list what was
    purged.
    """
    values = asked.values
    return ApiResponse(
        {"done": article_changes.purge_cdn(values["urls"], values["tags"], everything=values["everything"])}
    )
