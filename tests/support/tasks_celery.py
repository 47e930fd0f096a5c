"""The tasks of ``tasks_app`` on Celery, for ``celery -A tasks_celery worker``."""

from __future__ import annotations

import json
import os
from typing import Any

import tasks_app
from mks_hardening.contrib.celery_app import celery_app

_options: dict[str, Any] = json.loads(os.environ.get("TASKS_OPTIONS", "{}"))
_settings = {
    "lease": tasks_app.LEASE,
    "ring_again_after": 1.5,
    "stop_timeout": 5.0,
    "kill_grace": 1.0,
    **_options.pop("celery", {}),
}
_late: dict[str, float] = _options.pop("late", {})

tasks = tasks_app.make(os.environ["TASKS_URL"], **_options)
app = celery_app(tasks, broker_url=os.environ["BROKER_URL"], **_settings)
for _name, _timeout in _late.items():
    tasks.task(_name, timeout=_timeout)(lambda run: None)
