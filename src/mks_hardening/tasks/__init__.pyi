# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.tasks.ready.folder import CleanedFolder as CleanedFolder
from mks_hardening.tasks.ready.folder import clean_folder as clean_folder
from mks_hardening.tasks.ready.mail_task import MailTask as MailTask
from mks_hardening.tasks.registry import Task as Task
from mks_hardening.tasks.registry import Tasks as Tasks
from mks_hardening.tasks.run import TaskRun as TaskRun
from mks_hardening.tasks.schedule import Daily as Daily
from mks_hardening.tasks.schedule import Every as Every
from mks_hardening.tasks.schedule import ScheduleRule as ScheduleRule
from mks_hardening.tasks.status import TaskStatus as TaskStatus
from mks_hardening.tasks.status_app import TaskStatusApp as TaskStatusApp
from mks_hardening.tasks.store.table import task_table as task_table
from mks_hardening.tasks.transient import is_transient as is_transient
from mks_hardening.tasks.watch.queue_watch import TaskQueueWatch as TaskQueueWatch
from mks_hardening.tasks.watch.stats import RecentRuns as RecentRuns
from mks_hardening.tasks.watch.stats import TaskStats as TaskStats
from mks_hardening.tasks.worker import TaskWorker as TaskWorker
