from mks_hardening.db import hardened_engine
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker

tasks = Tasks(hardened_engine("sqlite:///app.db"))  # the database of the application
tasks.create_table()


@tasks.task("greet")
def greet(_run: TaskRun, name: str) -> str:
    return f"hello {name}"


with tasks.begin() as connection:  # the task exists if this transaction commits
    task_id = greet.enqueue(connection, "tanaka")
TaskWorker(tasks).run_pending()  # `with TaskWorker(tasks):` runs tasks in the background
assert tasks.status(task_id).result == "hello tanaka"
