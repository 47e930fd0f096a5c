"""``/api/reports`` and ``/api/tasks``: request a report (202), follow its status, cancel it."""

from __future__ import annotations

from typing import Any, cast

from flask import Response, current_app, request

from knowledge_system.api import schemas
from knowledge_system.api.route import ApiRequest, ApiResponse, Routes
from knowledge_system.domain import fields
from knowledge_system.domain.problems import Problem
from knowledge_system.web import article_changes, current_request
from mks_hardening.tasks import TaskStatusApp

_TASK = schemas.thing(
    {
        **dict.fromkeys(("id", "state", "stage"), schemas.STRING),
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "result": {},
        "cancel_requested": schemas.FLAG,
    }
)
_ACCEPTED = schemas.thing(dict.fromkeys(("id", "status_url", "page_url"), schemas.STRING))

routes = Routes("/api")


@routes.add("POST", "/reports", {202: _ACCEPTED}, body=fields.REPORT, repeatable=True)
def asking(asked: ApiRequest) -> ApiResponse:
    """Request a report; the response contains the URL of its status."""
    task_id = article_changes.request_report(dict(asked.values))
    headers, body = _status_app().accepted(task_id, status_url=f"/api/tasks/{task_id}")
    return ApiResponse({**body, "page_url": f"/reports/{task_id}"}, 202, dict(headers))


@routes.add("POST", "/reports/generate", {202: _ACCEPTED}, body=fields.REPORT, repeatable=True)
def generating(asked: ApiRequest) -> ApiResponse:
    """Request a report; an alias of ``/api/reports``."""
    return asking(asked)


@routes.add("GET", "/reports/status/{task_id}", {200: _TASK, 202: _TASK}, limit="api_poll")
def following(asked: ApiRequest) -> Response:
    """The status of a report of mine, under the other name of ``/api/tasks``."""
    return status(asked)


@routes.add("GET", "/tasks/{task_id}", {200: _TASK, 202: _TASK}, limit="api_poll")
def status(asked: ApiRequest) -> Response:
    """The status of a task of mine: polling, or server-sent events for those who accept them."""
    environ = {**request.environ, "PATH_INFO": f"/{asked.path['task_id']}"}
    response = cast("Response", Response.from_app(_status_app(), environ))
    if response.status_code == 404:
        raise Problem("not-found")
    return response


@routes.add("DELETE", "/tasks/{task_id}", {204: None})
def cancelling(asked: ApiRequest) -> ApiResponse:
    """Request one of my tasks to stop."""
    tasks = current_request.background().tasks
    task_id = asked.path["task_id"]
    if tasks.status(task_id, user_id=str(current_request.actor().id)) is None:
        raise Problem("not-found")
    tasks.cancel(task_id)
    return ApiResponse({}, 204)


def _status_app() -> TaskStatusApp:
    """Return the task status application, one per application, because it counts its streams."""
    kept: dict[str, Any] = current_app.extensions
    if "task_status" not in kept:
        # Each stream occupies a gunicorn thread: allow only a few, for a short time.
        kept["task_status"] = TaskStatusApp(
            current_request.background().tasks,
            user_of=lambda _: str(current_request.actor().id),
            longest=20,
            streams=2,
        )
    found: TaskStatusApp = kept["task_status"]
    return found
