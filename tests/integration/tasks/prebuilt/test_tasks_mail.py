"""Mail as a task over a real SMTP server: never none, at most one more for each kill or stall."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import tasks_mail
from mks_hardening.db import hardened_engine
from mks_hardening.exceptions import ConfigurationError, TaskLostError, TaskRefusedError
from mks_hardening.settings import HardeningSettings
from mks_hardening.tasks import MailTask, TaskRun, Tasks, TaskWorker
from mks_hardening.testing import FrozenClock
from testbed.polling import wait_until
from testbed.smtp_server import SmtpServer


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(1_790_000_000.0)


@pytest.fixture
def tasks(tmp_path: Path, clock: FrozenClock) -> Iterator[Tasks]:
    engine = hardened_engine(f"sqlite:///{tmp_path / 'tasks.db'}")
    made = Tasks(engine, clock=clock)
    made.create_table()
    yield made
    engine.dispose()


@pytest.fixture
def mail(tasks: Tasks, smtp_server: SmtpServer, clock: FrozenClock) -> MailTask:
    return MailTask(
        tasks,
        "localhost",
        smtp_port=smtp_server.port,
        security="plain",
        from_addr="作業所 <site@example.com>",
        clock=clock,
    )


@pytest.fixture
def worker(tasks: Tasks, clock: FrozenClock) -> TaskWorker:
    return TaskWorker(tasks, clock=clock, schedule=False)


def send(tasks: Tasks, mail: MailTask, to: Any = "a@example.com", **given: Any) -> str:
    fields = {"subject": "月次報告", "text": "できました。\n.\n", **given}
    with tasks.begin() as connection:
        return mail.enqueue(connection, to=to, **fields)


def ended(tasks: Tasks, task_id: str) -> tuple[str, Any]:
    status = tasks.status(task_id)
    assert status is not None
    return status.state, status.result


def test_mail_programs_are_told_how_to_unsubscribe(
    tasks: Tasks, mail: MailTask, worker: TaskWorker, smtp_server: SmtpServer
) -> None:
    url = f"https://example.com/stop?user=12&signature={'0f' * 32}"
    send(tasks, mail, ["a@example.com"], unsubscribe_url=url)
    assert worker.run_pending() == ["done"]
    (got,) = smtp_server.received
    lines = got.content.splitlines()
    assert f"List-Unsubscribe: <{url}>".encode() in lines  # not folded, not encoded as words
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines
    assert got.message["Subject"] == "月次報告"


def test_a_mail_arrives_as_it_was_written(
    tasks: Tasks, mail: MailTask, worker: TaskWorker, smtp_server: SmtpServer
) -> None:
    task_id = send(
        tasks,
        mail,
        ["a@example.com", "監督 <b@example.com>"],
        html="<p>できました。",
        reply_to="c@example.com",
    )
    assert worker.run_pending() == ["done"]
    (got,) = smtp_server.received
    assert (got.mail_from, got.rcpt_tos) == ("site@example.com", ("a@example.com", "b@example.com"))
    message = got.message
    assert message["Message-ID"] == f"<{task_id}@example.com>"
    assert message["Subject"] == "月次報告"
    assert message["From"] == "作業所 <site@example.com>"
    assert message["To"] == "a@example.com, 監督 <b@example.com>"
    assert message["Reply-To"] == "c@example.com"
    assert message["Date"].datetime.timestamp() == 1_790_000_000
    assert message["Auto-Submitted"] == "auto-generated"
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert plain.get_content().splitlines() == ["できました。", "."]
    assert html is not None
    assert "<p>できました。" in html.get_content()
    assert ended(tasks, task_id) == ("done", {"accepted": 2, "refused": 0, "deferred": 0})


def test_a_mail_leaves_with_the_transaction_or_not_at_all(
    tasks: Tasks, mail: MailTask, worker: TaskWorker, smtp_server: SmtpServer
) -> None:
    with tasks.begin() as connection:
        mail.enqueue(connection, to="a@example.com", subject="s", text="t")
        connection.rollback()
    assert worker.run_pending() == []
    for _ in range(3):
        send(tasks, mail, key="report-7")
    assert worker.run_pending() == ["done"]
    assert len(smtp_server.received) == 1


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "MESSAGE"])
@pytest.mark.parametrize("code", [421, 550])
def test_4xx_is_tried_again_and_5xx_is_for_people(
    tasks: Tasks,
    mail: MailTask,
    worker: TaskWorker,
    *,
    smtp_server: SmtpServer,
    clock: FrozenClock,
    stage: Any,
    code: int,
) -> None:
    smtp_server.answer(
        stage, f"{code} not now", times=2 if (stage, code) == ("EHLO", 550) else 1
    )  # then HELO
    task_id = send(tasks, mail)
    assert worker.run_pending() == ["retried" if code == 421 else "dead"]
    assert smtp_server.received == []
    if code == 550:
        ((status, error),) = tasks.listed(state="dead")
        assert (status.id, "a@example.com" in error) == (task_id, False)
        assert tasks.replay(task_id)
    clock.advance(700)
    assert worker.run_pending() == ["done"]
    assert [got.message["Message-ID"] for got in smtp_server.received] == [f"<{task_id}@example.com>"]


def test_a_server_that_is_away_is_waited_for(
    tasks: Tasks, mail: MailTask, worker: TaskWorker, smtp_server: SmtpServer, clock: FrozenClock
) -> None:
    smtp_server.stop()
    task_id = send(tasks, mail)
    assert worker.run_pending() == ["retried"]
    smtp_server.start()
    clock.advance(700)
    assert worker.run_pending() == ["done"]
    assert ended(tasks, task_id)[0] == "done"


def test_a_deferred_recipient_is_tried_alone_and_the_others_get_one_copy(
    tasks: Tasks, mail: MailTask, worker: TaskWorker, smtp_server: SmtpServer, clock: FrozenClock
) -> None:
    smtp_server.answer("RCPT", "450 4.2.0 greylisted")
    smtp_server.answer("RCPT", "550 5.1.1 unknown")
    task_id = send(tasks, mail, ["a@example.com", "b@example.com", "c@example.com"])
    assert worker.run_pending() == ["done"]
    assert ended(tasks, task_id) == ("done", {"accepted": 1, "refused": 1, "deferred": 1})
    clock.advance(60)
    smtp_server.answer("RCPT", "450 4.2.0 greylisted")
    assert worker.run_pending() == ["retried"]
    clock.advance(700)
    assert worker.run_pending() == ["done"]
    assert [got.rcpt_tos for got in smtp_server.received] == [("c@example.com",), ("a@example.com",)]
    assert {got.message["Message-ID"] for got in smtp_server.received} == {f"<{task_id}@example.com>"}
    assert worker.run_pending() == []


def test_refused_and_deferred_recipients_part_when_nobody_took_it(
    tasks: Tasks, mail: MailTask, worker: TaskWorker, smtp_server: SmtpServer, clock: FrozenClock
) -> None:
    smtp_server.answer("RCPT", "450 4.2.0 greylisted")
    smtp_server.answer("RCPT", "550 5.1.1 unknown")
    send(tasks, mail, ["a@example.com", "b@example.com"])
    assert worker.run_pending() == ["done"]
    clock.advance(60)
    assert worker.run_pending() == ["done"]
    assert [got.rcpt_tos for got in smtp_server.received] == [("a@example.com",)]


def test_a_lease_that_ran_out_while_connecting_sends_nothing(
    tasks: Tasks, mail: MailTask, smtp_server: SmtpServer, clock: FrozenClock
) -> None:
    send(tasks, mail)
    (taken,) = tasks.store.lease(owner="a" * 32, lease=30, queues=["default"], most=1)
    run = TaskRun(tasks.store, taken, clock=clock)
    clock.advance(31)
    with pytest.raises(TaskLostError):
        mail._task.work(run, ["a@example.com"], {"To": "a@example.com", "text": "t"})
    assert smtp_server.received == []
    assert "EHLO" in " ".join(smtp_server.commands)  # it was checked after all that takes long
    assert "MAIL" not in " ".join(smtp_server.commands)


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": []},
        {"to": "nobody"},
        {"to": "a@example.com\r\nBcc: b@example.com"},
        {"to": 7},
        {"subject": "x\r\nBcc: b@example.com"},
        {"subject": None},
        {"text": None},
        {"text": "\ud800"},
        {"text": "x" * 70_000},
        {"html": 7},
        {"reply_to": "a@example.com, b@example.com"},
        {"reply_to": "x\n"},
        {"unsubscribe_url": "http://example.com/stop"},
        {"unsubscribe_url": "https://example.com/stop>\r\nBcc: x"},
        {"unsubscribe_url": f"https://example.com/{'x' * 900}"},
    ],
)
def test_a_mail_that_cannot_be_sent_is_refused_at_the_call(
    tasks: Tasks, mail: MailTask, wrong: dict[str, Any]
) -> None:
    with pytest.raises(TaskRefusedError):
        send(tasks, mail, **wrong)
    assert tasks.counts() == {}


def test_impossible_servers_are_refused(tasks: Tasks) -> None:
    with pytest.raises(ConfigurationError, match="security"):
        MailTask(tasks, "mail.example.com", from_addr="a@example.com", security="plain")
    with pytest.raises(ConfigurationError, match="from_addr"):
        MailTask(tasks, "localhost", from_addr="a@example.com, b@example.com")
    with pytest.raises(ConfigurationError, match="password"):
        MailTask(tasks, "localhost", from_addr="a@example.com", username="a")
    made = MailTask(tasks, "localhost", from_addr="a@example.com", username="a", password="hunter22")
    assert "hunter22" not in repr(made) + repr(vars(made))


# --- killed and stalled

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tasks.db'}"


@pytest.fixture
def start(url: str, smtp_server: SmtpServer, tmp_path: Path) -> Iterator[Start]:
    """Start a worker process that sends mail."""
    with ExitStack() as stack:

        def run(*options: str) -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "workers.log").open("a"))
            worker = subprocess.Popen(
                [sys.executable, str(tasks_mail.__file__), url, str(smtp_server.port), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.callback(_end, worker)
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n", (tmp_path / "workers.log").read_text()
            return worker

        yield run


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


def _is_done(tasks: Tasks, task_id: str) -> bool:
    return ended(tasks, task_id)[0] == "done"


def test_a_kill_between_the_effect_and_its_record_costs_one_duplicate(
    url: str, start: Start, smtp_server: SmtpServer
) -> None:
    tasks, mail = tasks_mail.make(url, smtp_server.port)
    doomed = start("--die-once")
    task_id = send(tasks, mail)
    assert doomed.wait(30) == -signal.SIGKILL
    assert not _is_done(tasks, task_id)
    assert len(smtp_server.received) == 1
    start()
    wait_until(lambda: _is_done(tasks, task_id), timeout=30, what="the mail")
    tasks.store.engine.dispose()
    assert [got.message["Message-ID"] for got in smtp_server.received] == [f"<{task_id}@example.com>"] * 2
    assert smtp_server.received[0].content == smtp_server.received[1].content


def test_a_worker_that_stalled_while_connecting_sends_no_second_mail(
    url: str, start: Start, smtp_server: SmtpServer
) -> None:
    tasks, mail = tasks_mail.make(url, smtp_server.port)
    smtp_server.answer("EHLO", delay=1)
    stalled = start()
    task_id = send(tasks, mail)
    wait_until(lambda: smtp_server.connections == 1, timeout=20, what="a connection")
    os.kill(stalled.pid, signal.SIGSTOP)
    start()
    wait_until(lambda: _is_done(tasks, task_id), timeout=30, what="the mail")
    os.kill(stalled.pid, signal.SIGCONT)
    # The next mail is for the worker that stalled: when it sends again, it has given the first one up.
    later = [send(tasks, mail) for _ in range(4)]
    wait_until(lambda: all(_is_done(tasks, each) for each in later), timeout=30, what="later mails")
    stalled.terminate()
    assert stalled.wait(30) == 0
    tasks.store.engine.dispose()
    assert sum(got.message["Message-ID"] == f"<{task_id}@example.com>" for got in smtp_server.received) == 1


def test_a_worker_that_stalled_after_the_check_costs_one_duplicate(
    url: str, start: Start, smtp_server: SmtpServer
) -> None:
    tasks, mail = tasks_mail.make(url, smtp_server.port)
    smtp_server.answer("RCPT", delay=1)
    stalled = start()
    task_id = send(tasks, mail)
    smtp_server.wait_for_command("RCPT")
    os.kill(stalled.pid, signal.SIGSTOP)
    start()
    wait_until(lambda: _is_done(tasks, task_id), timeout=30, what="the mail")
    os.kill(stalled.pid, signal.SIGCONT)
    smtp_server.wait_for(2, timeout=30)
    stalled.terminate()
    assert stalled.wait(30) == 0
    tasks.store.engine.dispose()
    assert [got.message["Message-ID"] for got in smtp_server.received] == [f"<{task_id}@example.com>"] * 2


def test_mail_goes_over_the_server_of_the_settings(
    tasks: Tasks, worker: TaskWorker, smtp_server: SmtpServer
) -> None:
    server = {
        "MKS_SMTP_HOST": "localhost",
        "MKS_SMTP_PORT": str(smtp_server.port),
        "MKS_SMTP_SECURITY": "plain",
        "MKS_ALERT_FROM": "alerts@example.com",
        "MKS_ALERT_TO": "ops@example.com",
    }
    assert MailTask.from_settings(tasks, HardeningSettings()) is None
    mail = MailTask.from_settings(tasks, HardeningSettings.from_env(environ=server))
    other = MailTask.from_settings(
        tasks, HardeningSettings.from_env(environ=server), from_addr="site@example.com", name="other"
    )
    assert mail is not None
    assert other is not None
    send(tasks, mail)
    send(tasks, other)
    assert worker.run_pending() == ["done", "done"]
    senders = {got.mail_from for got in smtp_server.received}
    assert senders == {"alerts@example.com", "site@example.com"}
