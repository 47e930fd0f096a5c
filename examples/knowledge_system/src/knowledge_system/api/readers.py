"""``/api/readers/{kind}/{subject}``: the groups to which an article, a category or a node is restricted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from knowledge_system.api import schemas
from knowledge_system.api.body import encoded
from knowledge_system.api.preconditions import ANY, entity_tag, matches_entity_tag
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.domain.problems import FieldError, Problem
from knowledge_system.services import readers
from knowledge_system.web import article_changes, current_request

if TYPE_CHECKING:
    from knowledge_system.services.readers import Restriction

_RESTRICTION: Final = schemas.thing(
    {
        **dict.fromkeys(("kind", "subject", "name"), schemas.STRING),
        **dict.fromkeys(("groups", "known_groups"), schemas.items(schemas.STRING)),
    }
)

routes = Routes("/api/readers/{kind}/{subject}")


@routes.add("GET", "", {200: _RESTRICTION}, refusals=(403,))
def reading(asked: ApiRequest) -> ApiResponse:
    """The groups whose members may read it; without a group, everybody may."""
    return ApiResponse(_shown(asked, _found(asked)), versioned=True)


@routes.add("PUT", "", {200: _RESTRICTION}, body=fields.READERS, conditional=True)
def restricting(asked: ApiRequest) -> ApiResponse:
    """Restrict it to the named groups, or to none, which opens it; `If-Match` names the version that was read."""
    found, if_match = _found(asked), asked.if_match or ""
    tag = entity_tag(encoded(_shown(asked, found)))
    refused = asked.if_none_match is not None and matches_entity_tag(asked.if_none_match, tag, weak=True)
    if refused or not matches_entity_tag(if_match, tag):
        raise Problem("precondition-failed")
    ids = {name: group for group, name in found.groups.items()}
    if not ids.keys() >= set(asked.values["groups"]):
        raise Problem("invalid", errors=[FieldError("groups", "choice")])
    chosen = [ids[name] for name in asked.values["groups"]]
    try:
        article_changes.restrict(
            **asked.path, wanted=chosen, seen="" if if_match.strip() == ANY else found.seen
        )
    except Problem as problem:
        if problem.code != "conflict":
            raise
        raise Problem("precondition-failed") from problem
    return ApiResponse(_shown(asked, found._replace(chosen=frozenset(chosen))), versioned=True)


def _found(asked: ApiRequest) -> Restriction:
    with current_request.services().reads() as session:
        return readers.find(session, current_request.actor(), **asked.path)


def _shown(asked: ApiRequest, found: Restriction) -> dict[str, Any]:
    known = list(found.groups.values())
    return {**asked.path, "name": found.name, "groups": found.names(found.chosen), "known_groups": known}
