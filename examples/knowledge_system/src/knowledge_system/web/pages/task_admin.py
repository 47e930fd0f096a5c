"""Administrator page of the background tasks: state of the queue, operations on a task."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from knowledge_system.domain import fields
from knowledge_system.web import current_request, forms

pages = Blueprint("task_admin", __name__, url_prefix="/admin/tasks")

_MOST = 50


@pages.get("")
def overview() -> str:
    """Show the queue statistics and the newest tasks."""
    tasks = current_request.background().tasks
    state = forms.query_values(fields.TASK_LIST)["state"]
    return render_template(
        "tasks.html",
        section="admin",
        stats=tasks.stats(),
        listed=tasks.listed(state=state or None, most=_MOST),
        state=state,
        most=_MOST,
    )


@pages.post("")
def steering() -> Response:
    """Retry, discard or cancel a task."""
    tasks, asked = current_request.background().tasks, forms.read(fields.TASK_STEP)
    steps: dict[str, Callable[[str], bool]] = {
        "retry": tasks.replay,
        "discard": tasks.discard,
        "cancel": tasks.cancel,
    }
    done = f"task-{asked['step']}" if steps[asked["step"]](asked["task"]) else "nothing-done"
    return redirect(f"/admin/tasks?done={done}", 303)
