"""Reports on Celery when something dies in the middle: done again or shown as failed, and never twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, text, update

from knowledge_system import models
from knowledge_system.background import report_task
from testbed.polling import wait_until

if TYPE_CHECKING:
    from werkzeug.test import TestResponse

pytestmark = [pytest.mark.redis, pytest.mark.postgres]

_WORKER = [sys.executable, "-m", "celery", "--app=knowledge_system.worker:app", "worker"]
_PATIENCE = 60.0


class Workers:
    """Starts Celery's workers of the application, each in a group of its own, and again those that ended."""

    def __init__(self, environment: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self._environment, self._folder, self._stack = environment, folder, stack
        self.running: subprocess.Popen[bytes] | None = None
        self._started = 0

    def start(self) -> subprocess.Popen[bytes]:
        self._started += 1
        log = self._folder / f"worker{self._started}.log"
        out = self._stack.enter_context(log.open("wb"))
        self.running = subprocess.Popen(
            [*_WORKER, "--concurrency=1", "--loglevel=INFO"],
            env=self._environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._stack.callback(kill, self.running)
        return self.running

    def keep_up(self) -> None:
        """What ``Restart=always`` does in the unit."""
        if self.running is not None and self.running.poll() is not None:
            self.start()


def kill(worker: subprocess.Popen[bytes]) -> None:
    """The master and its pool at once, as the kernel does when there is no memory left."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)


@pytest.fixture
def site(make_app: Callable[..., Any], postgres_url: str) -> Any:
    return make_app(database_url=postgres_url)


@pytest.fixture
def workers(workers_of: Callable[[str], Workers], redis_url: str) -> Workers:
    return workers_of(redis_url)


@pytest.fixture
def workers_of(site: Any, postgres_url: str, tmp_path: Path) -> Iterator[Callable[[str], Workers]]:
    """Workers of a broker: ``workers_of(url)``."""
    keys = ",".join(site.extensions["knowledge"].settings.hardening.security.secret_keys)
    variables = {
        "MKS_ENV": "test",
        "MKS_ALLOWED_HOSTS": "localhost",
        "MKS_SECRET_KEYS": keys,
        "DATABASE_URL": postgres_url,
        "MKS_DATA_DIR": str(tmp_path),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MKS_", "DATABASE_"))}
    with ExitStack() as stack:
        yield lambda url: Workers({**kept, **variables, "MKS_CELERY_BROKER_URL": url}, tmp_path, stack)


@pytest.fixture
def sato(site: Any, visit: Callable[..., Any]) -> Any:
    return visit("sato", at=site)


def ask(person: Any, number: int = 0, *, kind: str = "xlsx") -> str:
    """Ask for a report; where its status is."""
    body = {
        "kind": "monthly",
        "subject": "2026-11",
        "format": kind,
        "key": f"a-key-of-this-test-{number:04d}",
    }
    accepted = person.api("POST", "/api/reports", body)
    assert accepted.status_code == 202, accepted.text
    return str(accepted.json["status_url"])


def state(person: Any, url: str) -> TestResponse:
    return person.api("GET", url)


def seen(site: Any, url: str) -> Any:
    """The same without a request: a clock that stands still would never give hits back."""
    return site.extensions["knowledge"].background.tasks.status(url.rpartition("/")[2])


def rows(site: Any) -> Any:
    return site.extensions["knowledge"].background.tasks.store.table


def set_row(site: Any, **values: Any) -> None:
    """What the database would say later: leases that ran out, workers that died more often."""
    with site.extensions["knowledge"].engine.begin() as connection:
        connection.execute(update(rows(site)).where(rows(site).c.name == report_task.NAME).values(values))


def deliveries(site: Any) -> int:
    with site.extensions["knowledge"].engine.connect() as connection:
        found: int = connection.execute(
            select(rows(site).c.deliveries).where(rows(site).c.name == report_task.NAME)
        ).scalar_one()
        return found


def files(site: Any) -> int:
    with site.extensions["knowledge"].sessions() as session:
        return session.scalar(select(func.count()).select_from(models.Report)) or 0


@contextmanager
def nothing_is_stored(site: Any) -> Iterator[None]:
    """Whoever writes a finished report waits for the end of the block."""
    with site.extensions["knowledge"].engine.connect() as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("LOCK TABLE reports IN EXCLUSIVE MODE"))
        yield
        connection.rollback()


def wants_to_store(site: Any, url: str) -> bool:
    """Whether the one task that its one process works at is this one, and waits for the table."""
    if seen(site, url).state != "running":
        return False
    with site.extensions["knowledge"].engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())


def killed_in_the_middle(site: Any, workers: Workers, person: Any, url: str) -> None:
    """A worker is killed when the report is written and not stored yet; the lease is over then."""
    with nothing_is_stored(site):
        worker = workers.start()
        wait_until(lambda: wants_to_store(site, url), timeout=_PATIENCE, what="the end of the work")
        kill(worker)
    assert state(person, url).status_code == 202  # nobody knows yet
    assert files(site) == 0
    set_row(site, due_at=0.0)


@pytest.mark.slow
def test_a_report_whose_worker_was_killed_is_written_by_the_next_one(
    site: Any, workers: Workers, sato: Any
) -> None:
    url = ask(sato)
    killed_in_the_middle(site, workers, sato, url)
    workers.start()
    wait_until(lambda: seen(site, url).ended, timeout=_PATIENCE, what="the report")
    body = state(sato, url).json
    assert (body["state"], deliveries(site), files(site)) == ("done", 2, 1)
    page = sato.get(f"/reports/{body['id']}")
    assert page.status_code == 200
    assert body["result"]["title"] in page.text


@pytest.mark.slow
@pytest.mark.parametrize("in_time", [True, False], ids=["finished", "handed back"])
def test_a_report_in_hand_when_its_worker_is_told_to_stop_is_written_once(
    site: Any, workers: Workers, sato: Any, *, in_time: bool
) -> None:
    """A table that is locked stands for the 20 s: the report ends within the time of a stop, or later than that."""
    url = ask(sato)
    with nothing_is_stored(site):
        worker = workers.start()
        wait_until(lambda: wants_to_store(site, url), timeout=_PATIENCE, what="the end of the work")
        worker.terminate()
        if not in_time:
            worker.wait(_PATIENCE)
            assert (seen(site, url).state, files(site)) == ("waiting", 0)
    worker.wait(_PATIENCE)
    assert files(site) == int(in_time)
    workers.start()
    wait_until(lambda: seen(site, url).ended, timeout=_PATIENCE, what="the report")
    assert (state(sato, url).json["state"], deliveries(site), files(site)) == ("done", 1, 1)


@pytest.mark.slow
def test_a_report_that_kills_each_worker_is_shown_as_failed(
    site: Any, workers: Workers, sato: Any, visit: Callable[..., Any]
) -> None:
    url = ask(sato)
    killed_in_the_middle(site, workers, sato, url)
    set_row(site, deliveries=5)
    other = ask(sato, 1)
    workers.start()
    wait_until(lambda: seen(site, other).ended, timeout=_PATIENCE, what="the other report")
    wait_until(lambda: seen(site, url).ended, timeout=_PATIENCE, what="the end")
    assert [state(sato, each).json["state"] for each in (url, other)] == ["dead", "done"]
    assert "失敗" in sato.get("/reports").text
    assert url.rpartition("/")[2] in visit("ito", at=site).get("/admin/tasks?state=dead").text


@pytest.mark.slow
def test_reports_are_taken_and_written_whatever_becomes_of_the_broker(
    site: Any, workers: Workers, sato: Any, redis_server: Any
) -> None:
    redis_server.kill()
    asked = [ask(sato, 0)]  # accepted at once: the row is there, and the message can wait
    redis_server.start()
    workers.start()
    asked += [ask(sato, number) for number in range(1, 6)]
    wait_until(lambda: any(seen(site, url).ended for url in asked), timeout=_PATIENCE, what="the first")
    redis_server.command("FLUSHALL")
    redis_server.kill()
    asked.append(ask(sato, 6))
    redis_server.start()
    all_are_written(site, workers, sato, asked)


@pytest.mark.slow
def test_reports_are_written_by_what_sentinels_call_the_primary(
    site: Any, workers_of: Callable[[str], Workers], sato: Any, redis_sentinels: Any
) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in redis_sentinels.addresses)
    workers = workers_of(f"redis+sentinel://{hosts}/{redis_sentinels.name}/0")
    workers.start()
    asked = [ask(sato, number) for number in range(3)]
    wait_until(lambda: any(seen(site, url).ended for url in asked), timeout=_PATIENCE, what="the first")
    asked += [ask(sato, number) for number in range(3, 6)]
    redis_sentinels.fail_over()
    asked.append(ask(sato, 6))
    all_are_written(site, workers, sato, asked)


def all_are_written(site: Any, workers: Workers, person: Any, asked: list[str]) -> None:
    table = rows(site)

    def all_ended() -> bool:
        workers.keep_up()
        # Half a minute has passed since these were announced to a broker that has lost it.
        with site.extensions["knowledge"].engine.begin() as connection:
            connection.execute(update(table).where(table.c.state == "waiting").values(rung_at=None))
        return all(seen(site, url).ended for url in asked)

    wait_until(all_ended, timeout=2 * _PATIENCE, what="all reports")
    assert {state(person, url).json["state"] for url in asked} == {"done"}
    assert files(site) == len(asked)
