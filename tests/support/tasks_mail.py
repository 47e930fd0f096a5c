"""A worker that sends mail, for tests; it runs until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from mks_hardening.db import hardened_engine
from mks_hardening.tasks import MailTask, Tasks, TaskWorker

LEASE = 1.5


def make(url: str, port: int) -> tuple[Tasks, MailTask]:
    """Return the mail task with the database and a local server; a missing table is created."""
    tasks = Tasks(hardened_engine(url))
    tasks.create_table()
    return tasks, MailTask(
        tasks, "localhost", smtp_port=port, security="plain", from_addr="MKS <mks@example.com>"
    )


def _die_once_a_mail_is_out(mail: MailTask) -> None:
    """Kill the worker after the server accepted the mail, before it can record that."""
    deliver = mail._session.deliver

    def deliver_and_die(*args: Any, **options: Any) -> dict[str, int]:
        deliver(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")

    mail._session.deliver = deliver_and_die  # type: ignore[method-assign]


def main() -> None:
    """Run until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    tasks, mail = make(sys.argv[1], int(sys.argv[2]))
    if "--die-once" in sys.argv:
        _die_once_a_mail_is_out(mail)
    with TaskWorker(tasks, lease=LEASE, poll=0.05):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not ended.wait(0.1):
            pass


if __name__ == "__main__":
    main()
