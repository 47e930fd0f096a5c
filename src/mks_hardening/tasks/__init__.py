"""Background tasks: one database row per task, enqueued within the application's transaction and never lost."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.tasks.prebuilt.folder_cleaning": ["CleanedFolder", "clean_folder"],
    "mks_hardening.tasks.prebuilt.mail_task": ["MailTask"],
    "mks_hardening.tasks.tasks": ["Task", "TaskCall", "Tasks"],
    "mks_hardening.tasks.task_run": ["TaskRun"],
    "mks_hardening.tasks.schedule": ["Daily", "Every", "ScheduleRule"],
    "mks_hardening.tasks.task_status": ["TaskStatus"],
    "mks_hardening.tasks.task_status_app": ["TaskStatusApp"],
    "mks_hardening.tasks.store.schema": ["task_table"],
    "mks_hardening.tasks.transient": ["is_transient"],
    "mks_hardening.tasks.watch.queue_watch": ["TaskQueueWatch"],
    "mks_hardening.tasks.watch.task_stats": ["RecentRuns", "TaskStats"],
    "mks_hardening.tasks.task_worker": ["TaskWorker"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
