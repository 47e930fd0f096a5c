from mks_hardening.db import hardened_engine
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker

tasks = Tasks(hardened_engine("sqlite:///members.db"))
tasks.create_table()


@tasks.task("members.remind")
def remind(run: TaskRun, member: int) -> None:
    """Send the reminder."""


with tasks.begin() as connection:  # all of them or none
    calls = [remind.using(key=f"2026-11-{member}").call(member) for member in range(2500)]
    ids = tasks.enqueue_many(connection, calls)
    again = tasks.enqueue_many(connection, calls)  # the keys exist, so these are the same tasks
assert again == ids

print(len(TaskWorker(tasks).run_pending(most=10_000)), "reminders")
