"""What type checkers know of tasks: the parameters of the function, without its run; never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from mks_hardening.tasks import Daily, Every, Task, TaskRun, Tasks

if TYPE_CHECKING:
    from sqlalchemy import Engine


def declare(engine: Engine) -> None:
    tasks = Tasks(engine)

    @tasks.task("mail.send", schedule=Every(60))
    def send(run: TaskRun, to: str = "", *, copies: int = 1) -> bool:
        return bool(to)

    tasks.task("nightly", schedule=Daily(3))(send.work)
    with tasks.begin() as connection:
        assert_type(send.enqueue(connection, "a@example.jp", copies=2), str)
        send.using(key="k", delay=5).enqueue(connection, "a@example.jp")
        send.enqueue(connection, 5)  # type: ignore[arg-type]
        send.enqueue(connection, wrong=1)  # type: ignore[call-arg]
    again: Task[..., bool] = send
    assert again.name
