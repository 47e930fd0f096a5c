"""Work outside the request, one database row per task: accepted with the transaction, and never lost."""

from __future__ import annotations

from mks_hardening._core.facade import facade

_HOME = {
    "mks_hardening.tasks.ready.folder": ["CleanedFolder", "clean_folder"],
    "mks_hardening.tasks.ready.mail_task": ["MailTask"],
    "mks_hardening.tasks.registry": ["Task", "Tasks"],
    "mks_hardening.tasks.run": ["TaskRun"],
    "mks_hardening.tasks.schedule": ["Daily", "Every", "ScheduleRule"],
    "mks_hardening.tasks.status": ["TaskStatus"],
    "mks_hardening.tasks.status_app": ["TaskStatusApp"],
    "mks_hardening.tasks.store.table": ["task_table"],
    "mks_hardening.tasks.transient": ["is_transient"],
    "mks_hardening.tasks.watch.queue_watch": ["TaskQueueWatch"],
    "mks_hardening.tasks.watch.stats": ["RecentRuns", "TaskStats"],
    "mks_hardening.tasks.worker": ["TaskWorker"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
