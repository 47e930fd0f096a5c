# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.tasks.prebuilt.folder_cleaning import CleanedFolder as CleanedFolder
from mks_hardening.tasks.prebuilt.folder_cleaning import clean_folder as clean_folder
from mks_hardening.tasks.prebuilt.mail_task import MailTask as MailTask
from mks_hardening.tasks.schedule import Daily as Daily
from mks_hardening.tasks.schedule import Every as Every
from mks_hardening.tasks.schedule import ScheduleRule as ScheduleRule
from mks_hardening.tasks.store.schema import task_table as task_table
from mks_hardening.tasks.task_run import TaskRun as TaskRun
from mks_hardening.tasks.task_status import TaskStatus as TaskStatus
from mks_hardening.tasks.task_status_app import TaskStatusApp as TaskStatusApp
from mks_hardening.tasks.task_worker import TaskWorker as TaskWorker
from mks_hardening.tasks.tasks import Task as Task
from mks_hardening.tasks.tasks import TaskCall as TaskCall
from mks_hardening.tasks.tasks import Tasks as Tasks
from mks_hardening.tasks.transient import is_transient as is_transient
from mks_hardening.tasks.watch.queue_watch import TaskQueueWatch as TaskQueueWatch
from mks_hardening.tasks.watch.task_stats import RecentRuns as RecentRuns
from mks_hardening.tasks.watch.task_stats import TaskStats as TaskStats
