from datetime import timedelta

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import Daily, TaskQueueWatch, TaskRun, Tasks, TaskWorker, clean_folder

tasks = Tasks(hardened_engine("sqlite:///house.db"))
tasks.create_table()


@tasks.task("cleaning.logs", schedule=Daily(3, 10))  # at 3:10 in Japan, once, however many processes serve
def old_logs(_: TaskRun) -> dict[str, object]:
    done = clean_folder("logs", older_than=timedelta(days=30), pattern="app.log.*", keep=["app.log"])
    return done.result


@tasks.task("cleaning.rows", schedule=Daily(3, 20))
def old_rows(_: TaskRun) -> int:
    return tasks.clean()


with tasks.begin() as connection:  # now as well; a worker enqueues them by their schedules
    old_logs.enqueue(connection)
    old_rows.enqueue(connection)

TaskWorker(tasks).run_pending()
stats = TaskQueueWatch(tasks).look()  # `with TaskQueueWatch(tasks):` looks every 30 s
print(f"due: {stats.due}, dead: {stats.dead}, done: {stats.done}")
