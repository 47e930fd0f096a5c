"""``/api/auth/sessions``: list the sessions of the current user, browsers and programs, and end one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain.problems import Problem
from knowledge_system.web import current_request

_SESSION = schemas.thing(
    {
        **dict.fromkeys(("id", "device"), schemas.STRING),
        "kind": {"enum": ["browser", "program"]},
        "started_at": schemas.MOMENT,
        "current": schemas.FLAG,
    }
)

routes = Routes("/api/auth/sessions")


@routes.add("GET", "", {200: schemas.thing({"items": schemas.items(_SESSION)})})
def listing(_asked: ApiRequest) -> ApiResponse:
    """The user's sessions; `current` is the one of this request."""
    return ApiResponse({"items": list(_mine())})


@routes.add("DELETE", "/{session_id}", {204: None})
def ending(asked: ApiRequest) -> ApiResponse:
    """Sign one of them out, at once; a program with all of its tokens."""
    wanted, services, owner = (
        asked.path["session_id"],
        current_request.services(),
        str(current_request.actor().id),
    )
    found = next((each for each in _mine() if each["id"] == wanted), None)
    if found is None:
        raise Problem("not-found")
    if found["kind"] == "program":
        services.tokens.end(wanted)
    elif services.session_manager is not None:
        services.session_manager.end(wanted)
        services.trail.note("session.end", owner, actor=owner, which="one")
    return ApiResponse({}, 204)


def _mine() -> Iterator[dict[str, Any]]:
    services, owner, current = (
        current_request.services(),
        str(current_request.actor().id),
        current_request.handle().reference,
    )
    manager = services.session_manager
    for session in manager.sessions(owner) if manager else ():
        yield {
            "id": session.key,
            "kind": "browser",
            "device": str(json.loads(session.data).get("device", "")),
            "started_at": _iso_time(session.created_at),
            "current": session.key == current,
        }
    for family in services.tokens.families(owner):
        yield {
            "id": family.id,
            "kind": "program",
            "device": str(json.loads(family.facts).get("device", "")),
            "started_at": family.created_at.isoformat(),
            "current": family.id == current,
        }


def _iso_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
