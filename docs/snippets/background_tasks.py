from mks_hardening.db import hardened_engine
from mks_hardening.tasks import MailTask, TaskRun, Tasks, TaskWorker

tasks = Tasks(hardened_engine("sqlite:///app.db"))  # the application's own database; one row is one task
tasks.create_table()
mail = MailTask(tasks, "smtp.example.com", from_addr="reports@example.com")


@tasks.task("reports.monthly")
def monthly(run: TaskRun, month: str) -> None:
    with run.commit({"report": f"report-{month}.pdf"}) as connection:  # the end and the mail: both or neither
        mail.enqueue(connection, to="you@example.com", subject=f"Report {month}", text="It is ready.")


with tasks.begin() as connection:  # any transaction of yours: the task exists exactly when it commits
    task_id = monthly.using(key="2026-11").enqueue(connection, "2026-11")
TaskWorker(tasks).run_pending(most=1)  # `with TaskWorker(tasks):` serves in the background
assert tasks.status(task_id).result == {"report": "report-2026-11.pdf"}
