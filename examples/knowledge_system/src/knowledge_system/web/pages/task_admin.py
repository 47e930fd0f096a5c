"""Administrator page of the background tasks: state of the queue, operations on a task."""

from __future__ import annotations

from flask import Blueprint, render_template

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
@forms.form(fields.TASK_STEP)
def steering(*, task: str, step: str) -> str:
    """Retry, discard or cancel a task."""
    tasks = current_request.background().tasks
    steps = {"retry": tasks.replay, "discard": tasks.discard, "cancel": tasks.cancel}
    return f"/admin/tasks?done={f'task-{step}' if steps[step](task) else 'nothing-done'}"
