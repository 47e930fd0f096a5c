"""The status of tasks over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import TaskRun, Tasks, TaskStatusApp, TaskWorker
from mks_hardening.testing import FrozenClock, call_wsgi


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(1_000_000.0)


@pytest.fixture
def tasks(tmp_path: Path, clock: FrozenClock) -> Iterator[Tasks]:
    engine = hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}")
    made = Tasks(engine, clock=clock)
    made.create_table()
    yield made
    engine.dispose()


@pytest.fixture
def worker(tasks: Tasks, clock: FrozenClock) -> TaskWorker:
    return TaskWorker(tasks, clock=clock, schedule=False)


def enqueue(tasks: Tasks, work: Any, user_id: str = "7") -> str:
    with tasks.begin() as connection:
        task_id: str = tasks.task("work")(work).using(user_id=user_id).enqueue(connection)
        return task_id


def app_of(tasks: Tasks, **options: Any) -> TaskStatusApp:
    return TaskStatusApp(tasks, user_of=lambda environ: environ.get("HTTP_X_USER"), **options)


def get(
    app: TaskStatusApp, path: str, *, user: str | None = "7", method: str = "GET", accept: str = ""
) -> Any:
    headers = {"X-User": user, "Accept": accept}
    return call_wsgi(
        app, path, method=method, headers={name: value for name, value in headers.items() if value}
    )


def test_polling_says_when_to_come_again_until_the_end(tasks: Tasks, worker: TaskWorker) -> None:
    task_id = enqueue(tasks, lambda run: {"pages": 3})
    app = app_of(tasks, poll=2)
    waiting = get(app, f"/{task_id}")
    assert (waiting.status, waiting.header("Retry-After")) == (202, "2")
    assert waiting.header("Cache-Control") == "no-store"
    assert json.loads(waiting.body)["state"] == "waiting"
    worker.run_pending()
    ended = get(app, f"/{task_id}")
    assert (ended.status, ended.header("Retry-After")) == (200, None)
    assert json.loads(ended.body) == {
        "id": task_id,
        "state": "done",
        "progress": 1.0,
        "stage": "",
        "result": {"pages": 3},
        "cancel_requested": False,
    }


@pytest.mark.parametrize(
    ("path", "user"),
    [("/{id}", "8"), ("/{id}", None), ("/" + "0" * 32, "7"), ("/", "7"), ("/{id}/", "7"), ("/../{id}", "7")],
)
def test_unknown_and_foreign_tasks_are_the_same_404(tasks: Tasks, path: str, user: str | None) -> None:
    task_id = enqueue(tasks, lambda run: None)
    answers = [get(app_of(tasks), path.format(id=task_id), user=user), get(app_of(tasks), "/" + "f" * 32)]
    assert {answer.status for answer in answers} == {404}
    assert answers[0].body == answers[1].body


def test_no_error_text_is_told(tasks: Tasks, worker: TaskWorker) -> None:
    def work(run: TaskRun) -> None:
        raise ValueError("the plan of the customer")

    task_id = enqueue(tasks, work)
    worker.run_pending()
    answer = get(app_of(tasks), f"/{task_id}")
    assert json.loads(answer.body)["state"] == "dead"
    assert b"customer" not in answer.body
    assert b"ValueError" not in answer.body


def test_other_methods_are_refused(tasks: Tasks) -> None:
    task_id = enqueue(tasks, lambda run: None)
    answer = get(app_of(tasks), f"/{task_id}", method="POST")
    assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")


def test_events_follow_a_task_to_its_end(tasks: Tasks, worker: TaskWorker, clock: FrozenClock) -> None:
    task_id = enqueue(tasks, lambda run: "report")
    looks = list[float]()

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            worker.run_pending()

    app = app_of(tasks, poll=1, clock=clock, sleep=sleep)
    answer = get(app, f"/{task_id}", accept="text/event-stream")
    assert answer.header("Content-Type") == "text/event-stream"
    parts = answer.body.decode().split("\n\n")
    assert [json.loads(part[6:])["state"] for part in parts if part.startswith("data: ")] == [
        "waiting",
        "done",
    ]
    assert (parts[0], parts[2]) == ("retry: 1000", ": waiting")
    assert looks == [1, 1]


def test_a_stream_ends_by_itself(tasks: Tasks, clock: FrozenClock) -> None:
    task_id = enqueue(tasks, lambda run: None)
    app = app_of(tasks, poll=1, longest=3, clock=clock, sleep=clock.advance)
    answer = get(app, f"/{task_id}", accept="text/event-stream")
    assert answer.body.count(b"\n\n") == 5


def test_the_answer_to_the_request_that_enqueued_says_where_to_look(tasks: Tasks) -> None:
    task_id = enqueue(tasks, lambda run: None)
    fields, body = app_of(tasks, poll=2).accepted(task_id, status_url=f"/tasks/{task_id}")
    assert fields == {"Location": f"/tasks/{task_id}", "Retry-After": "2", "Cache-Control": "no-store"}
    assert body == {"id": task_id, "status_url": f"/tasks/{task_id}"}


def test_streams_keep_few_threads_and_the_rest_becomes_polling(tasks: Tasks, clock: FrozenClock) -> None:
    task_id = enqueue(tasks, lambda run: None)
    app = app_of(tasks, streams=1, poll=2, clock=clock, sleep=clock.advance)
    answers = list[Any]()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/{task_id}",
        "HTTP_ACCEPT": "text/event-stream",
        "HTTP_X_USER": "7",
    }

    def start_response(status: str, fields: Any, error: Any = None) -> Any:
        answers.append(status)

    first: Any = app(dict(environ), start_response)
    assert next(first) == b"retry: 2000\n\n"
    assert next(first).startswith(b"data: ")
    assert len(list(app(dict(environ), start_response))) == 2  # one event, and it ends
    first.close()
    assert len(list(app(dict(environ), start_response))) > 10
    assert answers == ["200 OK"] * 3


def test_the_tasks_of_one_user_are_listed(tasks: Tasks, worker: TaskWorker) -> None:
    @tasks.task("mine")
    def mine(run: TaskRun) -> None:
        """Whose it is decides."""

    with tasks.begin() as connection:
        ids = {user: mine.using(user_id=user).enqueue(connection) for user in ("7", "8")}
    worker.run_pending()
    assert [status.id for status, _ in tasks.listed(user_id="7")] == [ids["7"]]
    assert tasks.listed(user_id="9") == []
