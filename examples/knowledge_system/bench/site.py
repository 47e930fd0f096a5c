"""The servers, the application on them, and signed-in users."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.proxy_process import ProxyProcess

HOST = "knowledge.example"
PASSWORD = "load-2026-load"  # noqa: S105 - of accounts that live as long as this run


def servers(stack: ExitStack) -> tuple[dict[str, str], Any, Any]:
    """Start separate servers; return the application's variables, PostgreSQL and Redis."""
    from mks_hardening.security import SecretBox
    from testbed.postgres_server import PostgresServer
    from testbed.redis_server import RedisServer

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    database, redis = (
        PostgresServer(max_connections="120", shared_buffers="128MB"),
        RedisServer(folder / "r", options={"appendonly": "yes", "enable-protected-configs": "yes"}),
    )
    for server in (database, redis):
        server.start()
        stack.callback(server.stop)
    variables = {
        "DATABASE_URL": database.url("postgres"),
        "MKS_REDIS_URL": redis.url,
        "MKS_ENV": "test",
        "MKS_ALLOWED_HOSTS": HOST,
        "MKS_TRUSTED_PROXIES": "127.0.0.0/8",
        "MKS_SECRET_KEYS": SecretBox.generate_key(),
        "MKS_AREAS_OFF": "notify,tasks",
        "MKS_GUNICORN_WORKERS": "2",
        "MKS_GUNICORN_THREADS": "8",
        "MKS_DATA_DIR": str(folder),
        "MKS_LOG_FILE": str(folder / "app.log"),
    }
    return variables, database, redis


def receivers(stack: ExitStack) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Start a mail server and a stand-in for Slack, each behind a proxy that can cut connections."""
    from testbed.http_sink import HttpSink
    from testbed.smtp_server import SmtpServer

    made = []
    for server in (SmtpServer(), HttpSink()):
        server.start()
        stack.callback(server.stop)
        made.append((wire_to(server, stack), server))
    return made[0], made[1]


def wire_to(server: Any, stack: ExitStack) -> ProxyProcess:
    """Start a proxy in front of a server."""
    return stack.enter_context(closing(ProxyProcess(server.port)))


def settings_of(mail: tuple[Any, Any], chat: tuple[Any, Any], folder: Path) -> dict[str, str]:
    """Return the settings of an application with all areas, and with pages that fail on purpose."""
    return {
        "MKS_AREAS_OFF": "",
        "MKS_DEMO": "1",
        "MKS_SMTP_HOST": "127.0.0.1",
        "MKS_SMTP_PORT": str(mail[0].port),
        "MKS_SMTP_SECURITY": "plain",
        "MKS_ALERT_FROM": f"alerts@{HOST}",
        "MKS_ALERT_TO": f"operators@{HOST}",
        "MKS_ALERT_WINDOW": "1s",
        "MKS_ALERT_SPOOL": str(folder / "spool"),
        "MKS_SLACK_WEBHOOK_URL": f"http://127.0.0.1:{chat[0].port}/services/load",
    }


def fill(variables: dict[str, str], options: argparse.Namespace, roles: Sequence[str]) -> list[str]:
    """Create articles, and users with these roles who can sign in."""
    from werkzeug.security import generate_password_hash

    from knowledge_system import app, database
    from knowledge_system.models import User
    from knowledge_system.settings import AppSettings

    people = {f"reader{n}": role for n, role in enumerate(roles)}
    settings = AppSettings.from_env(variables)
    with app.open_database(settings) as (engine, search):
        database.upgrade(engine, settings, clock=time)
        sessions = app.session_factory(engine)
        database.fill(sessions, search, password="unused-unused-1", clock=time, number=options.articles)  # noqa: S106
        # A hash that is quick to check: the readers sign in before anything is measured.
        cheap = generate_password_hash(PASSWORD, method="pbkdf2:sha256:1")
        now = datetime.now(UTC)
        with sessions.begin() as session:
            session.add_all(
                User(username=name, display_name=name, role=role, password_hash=cheap, created_at=now)
                for name, role in people.items()
            )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM (ANALYZE)")  # as autovacuum does within a minute
    return list(people)


def published(variables: dict[str, str]) -> list[int]:
    """Return the numbers of the articles that every user may read."""
    from sqlalchemy import create_engine, text

    engine = create_engine(variables["DATABASE_URL"])
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id FROM articles WHERE status = 'published' ORDER BY id"))
        numbers = list(found.scalars())
    engine.dispose()
    return numbers


class Application(NamedTuple):
    """The running application: its port, and the process id of gunicorn's master."""

    port: int
    master: int

    def workers(self) -> list[int]:
        """Return the process ids of the workers, the oldest first."""
        return sorted(map(int, Path(f"/proc/{self.master}/task/{self.master}/children").read_text().split()))


@contextmanager
def application(
    variables: dict[str, str], made_by: str = "knowledge_system.app", *, options: Sequence[str] = ()
) -> Iterator[Application]:
    """Start the application with two workers, as in production, and further options of gunicorn."""
    from testbed.polling import accepts_connections, free_port, wait_until

    port = free_port()
    command = [str(Path(sys.executable).with_name("gunicorn")), f"{made_by}:from_env()"]
    command += [
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        "2",
        "--threads",
        "8",
        "--keep-alive",
        "30",
        *options,
    ]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: accepts_connections(port), timeout=60, what="gunicorn")
            yield Application(port, process.pid)
        finally:
            process.terminate()
            process.wait(90)  # gunicorn lets requests finish for 30 s


def sign_in(port: int, name: str) -> str:
    """Sign in and return the cookie; retried if the machine is busy."""
    # Each from an address of its own, as people are.
    fields = {"X-Forwarded-Proto": "https", "X-Forwarded-For": f"198.51.100.{int(name[6:]) % 250 + 1}"}
    fields |= {"Host": HOST, "Content-Type": "application/json"}
    body = json.dumps({"username": name, "password": PASSWORD})
    for _ in range(60):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/api/auth/login", body, fields)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status == 200:
            cookies = [value.partition(";")[0] for value in answer.headers.get_all("Set-Cookie") or ()]
            return "; ".join(cookie for cookie in cookies if "session" in cookie)
        if answer.status != 503:
            raise RuntimeError(f"signing in was answered with {answer.status}")
        time.sleep(0.5)
    raise RuntimeError("the application stayed unavailable")
