"""The owner of an account that strangers have locked gets one mail, over a real mail server."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from mks_hardening.db import hardened_engine
from mks_hardening.security.sign_in.sign_in_results import Notice
from mks_hardening.tasks import MailTask, Tasks, TaskWorker
from sign_in_scenario import ELSEWHERE, HERE, RIGHT, Scenario
from testbed.smtp_server import SmtpServer

SNIPPET = Path(__file__).parents[2] / "docs" / "snippets" / "sign_in_mails.py"

pytestmark = pytest.mark.skipif(not SNIPPET.exists(), reason="the documentation is not part of the wheel")


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[Tasks]:
    engine = hardened_engine(f"sqlite:///{tmp_path / 'app.db'}")
    made = Tasks(engine)
    made.create_table()
    yield made
    engine.dispose()


def test_who_is_locked_out_by_strangers_hears_of_it_once(tasks: Tasks, smtp_server: SmtpServer) -> None:
    snippet = runpy.run_path(str(SNIPPET))
    mail = MailTask(
        tasks, "localhost", smtp_port=smtp_server.port, security="plain", from_addr="s@example.com"
    )
    scenario = Scenario(on_notice=snippet["by_mail"](tasks, mail))
    worker = TaskWorker(tasks, schedule=False)

    scenario.locked("sato", times=49)
    scenario.locked("nobody")
    assert worker.run_pending() == []
    scenario.locked("sato", times=20)  # the fiftieth failure is the lock
    assert not scenario.sign_in.password("sato", RIGHT, client=ELSEWHERE)
    assert worker.run_pending() == ["done"]
    (got,) = smtp_server.received
    assert got.rcpt_tos == ("sato@example.com",)
    assert got.message["Subject"] == "Your account is temporarily locked"

    scenario.changes.request_reset("sato", client=HERE)
    assert worker.run_pending() == ["done"]
    notices = smtp_server.received[-1].message.get_content()
    token = notices.rpartition("token=")[2].strip()
    assert scenario.changes.reset_password(token, "an entirely new sentence", client=HERE)
    assert worker.run_pending() == ["done"]
    assert smtp_server.received[-1].message["Subject"] == "Your password was changed"
    assert scenario.sign_in.password("sato", "an entirely new sentence", client=ELSEWHERE)


def test_every_notice_has_a_text() -> None:
    assert set(runpy.run_path(str(SNIPPET))["TEXTS"]) == set(get_args(Notice))
