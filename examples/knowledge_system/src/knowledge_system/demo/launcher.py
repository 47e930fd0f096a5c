"""``knowledge-system demo``: two gunicorn servers, the sink and Celery if configured, stopped by one Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from knowledge_system import app as application
from knowledge_system import database
from knowledge_system.console import complain, progress, say
from knowledge_system.demo.certificate_authority import Certificates, ensure_certificates
from knowledge_system.demo.clock import clock_file
from knowledge_system.demo.environment import ALERT_ADDRESSES, Ports, demo_environment
from knowledge_system.demo.processes import Child, running, wait_until
from knowledge_system.demo.sink import Sink
from knowledge_system.demo.visitor import is_live
from knowledge_system.domain.permissions import ROLES
from knowledge_system.services.attachments.upload_intake import Intake
from knowledge_system.services.knowledge import stored_content
from knowledge_system.settings import DEMO_PASSWORD, AppSettings
from mks_hardening.protocols import Clock

_STOP_SECONDS = 10


class _Stop(Exception):  # noqa: N818 - a request, not an error
    """SIGINT, SIGTERM or SIGHUP was received."""


def run(
    environ: Mapping[str, str], *, data_dir: Path, ports: Ports, clock: Clock = time, articles: int = 0
) -> int:
    """Run the demonstration, with at least so many articles, until a signal stops it; return the exit code.

    Raises:
        SettingsError: the configuration is invalid.
        sqlalchemy.exc.OperationalError: the database is unavailable.
    """
    previous = {
        number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        return _run(environ, data_dir=data_dir.resolve(), ports=ports, clock=clock, articles=articles)
    except _Stop:
        say("\n終了しました。")
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _Stop


def _run(environ: Mapping[str, str], *, data_dir: Path, ports: Ports, clock: Clock, articles: int) -> int:
    variables = demo_environment(environ, data_dir=data_dir, ports=ports)
    AppSettings.from_env(variables)
    busy = [port for port in ports if not _is_free(port)]
    if busy:
        complain(_busy(busy))
        return 3
    certificates = ensure_certificates(data_dir / "tls", now=datetime.fromtimestamp(clock.time(), UTC))
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(Sink(data_dir / "sink", clock=clock))
        variables = _with_sink(variables, environ, sink)
        settings = AppSettings.from_env(variables)
        if settings.hardening.core.redis_url is None:
            # Sessions in memory do not survive a restart, so none has a timestamp of the advanced clock.
            clock_file(data_dir).unlink(missing_ok=True)
        added_people, added_articles = load_content(settings, clock, articles)
        if added_people or added_articles:
            say(f"利用者 {added_people} 名、記事 {added_articles} 件を読み込みました。")
        console = stack.enter_context((data_dir / "console.log").open("ab"))
        commands = [
            _https_command(certificates, ports, settings),
            _http_command(ports),
            *_celery_commands(settings, data_dir),
        ]
        children = [
            stack.enter_context(running(command, variables, output=console, stop_seconds=_STOP_SECONDS))
            for command in commands
        ]
        urls = (f"https://localhost:{ports.https}", f"http://localhost:{ports.http}")
        if not wait_until(lambda: all(is_live(url, certificates.ca_file) for url in urls), children):
            complain(f"起動できませんでした。詳しくは {data_dir / 'console.log'} を見てください。")
            complain(_tail(data_dir / "console.log"))
            return 1
        _welcome(settings, certificates, ports)
        return _watch(children, data_dir)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _busy(ports: list[int]) -> str:
    named = ", ".join(map(str, ports))
    return (
        f"ポート {named} は使用中です。別の番号を選んでください。 / port {named} is in use; choose another:\n"
        "  knowledge-system demo --https-port 9443 --http-port 9080\n"
        "  MKS_DEMO_HTTPS_PORT=9443 MKS_DEMO_HTTP_PORT=9080 make demo"
    )


def _with_sink(variables: Mapping[str, str], environ: Mapping[str, str], sink: Sink) -> dict[str, str]:
    """Send mail and chat messages to the sink unless real servers are configured."""
    mail = {
        **ALERT_ADDRESSES,
        **{name: value for name, value in environ.items() if name in ALERT_ADDRESSES and value},
        "MKS_SMTP_HOST": "127.0.0.1",
        "MKS_SMTP_PORT": str(sink.smtp_port),
        "MKS_SMTP_SECURITY": "plain",
    }
    chat = {"MKS_SLACK_WEBHOOK_URL": sink.webhook_url}
    named_mail = environ.get("MKS_SMTP_HOST")
    named_chat = environ.get("MKS_SLACK_WEBHOOK_URL") or environ.get("MKS_SLACK_WEBHOOK_URL_FILE")
    return {**variables, **({} if named_mail else mail), **({} if named_chat else chat)}


def load_content(settings: AppSettings, clock: Clock, number: int) -> tuple[int, int]:
    """Migrate the tables, and add the users and articles of the demonstration; return how many are new.

    Args:
        settings: settings of the application.
        clock: source of time.
        number: articles to generate up to.
    """
    with application.open_database(settings) as (engine, search):
        database.upgrade(engine, settings, clock=clock)
        return database.fill(
            application.session_factory(engine),
            search,
            password=DEMO_PASSWORD,
            clock=clock,
            number=number,
            intake=Intake.from_settings(settings, durable=False),
            progress=progress,
        )


def _https_command(certificates: Certificates, ports: Ports, settings: AppSettings) -> list[str]:
    return [
        *_gunicorn(ports.https),
        f"--workers={settings.hardening.db.workers}",
        f"--threads={settings.hardening.db.threads}",
        f"--certfile={certificates.cert_file}",
        f"--keyfile={certificates.key_file}",
        "knowledge_system.demo.application:from_env()",
    ]


def _http_command(ports: Ports) -> list[str]:
    return [*_gunicorn(ports.http), "--threads=2", "knowledge_system.demo.redirect:from_env()"]


def _celery_commands(settings: AppSettings, data_dir: Path) -> list[list[str]]:
    """Run a Celery worker and beat if a broker is configured; otherwise the web processes run the tasks."""
    if settings.broker_url is None or "tasks" not in settings.areas:
        return []
    celery = [sys.executable, "-m", "celery", "--app=knowledge_system.worker:app"]
    beat = [f"--schedule={data_dir / 'celerybeat-schedule'}", "--pidfile="]
    return [[*celery, "worker", "--concurrency=2", "--loglevel=INFO"], [*celery, "beat", *beat]]


def _gunicorn(port: int) -> list[str]:
    from gunicorn.config import KNOWN_SETTINGS

    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}", "--log-level=warning"]
    if socket.has_ipv6 and _has_ipv6_loopback():
        command.append(f"--bind=[::1]:{port}")
    # Two gunicorn servers of one user would share the default control socket.
    if any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS):
        command.append("--no-control-socket")
    return [*command, "--keep-alive=20", "--graceful-timeout=5"]


def _has_ipv6_loopback() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def _watch(children: list[Child], data_dir: Path) -> int:
    while all(child.poll() is None for child in children):
        time.sleep(0.3)
    complain(f"サーバーが予期せず終了しました。\n{_tail(data_dir / 'console.log')}")
    return 1


def _tail(file: Path, lines: int = 15) -> str:
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _command() -> str:
    """Return how to call this program here: the virtual environment made by ``make`` is not on the path."""
    program = Path(sys.argv[0])
    if program.name != "knowledge-system":
        return f"{os.path.relpath(sys.executable)} -m knowledge_system"
    return os.path.relpath(program) if program.parent.name == "bin" else program.name


def _who_works(settings: AppSettings) -> str:
    return (
        "Celery (worker, beat)" if settings.broker_url else "内蔵(MKS_CELERY_BROKER_URL で Celery に切り替え)"
    )


def _welcome(settings: AppSettings, certificates: Certificates, ports: Ports) -> None:
    accounts = "\n".join(
        f"    {person['username']:<10} {ROLES[person['role']]}  {person['display_name']}"
        for person in stored_content.people()
    )
    command = _command()
    say(
        f"""
  建設土木ナレッジシステム
  ------------------------------------------------------------
  https://localhost:{ports.https}   (http://localhost:{ports.http} はリダイレクトのみ)

  アカウント(パスワードはすべて {DEMO_PASSWORD})
{accounts}

  バックグラウンド処理               {_who_works(settings)}
  通知箱(メールと Slack の受け口)   https://localhost:{ports.https}/sink   (ito でサインイン)
  診断(わざとエラーや遅い SQL)     https://localhost:{ports.https}/diagnostics
  二段階認証のコードを端末で作る     {command} totp 画面に出た文字
  主な操作を通しで確かめる           {command} walkthrough   (make walkthrough)

  証明書の発行元(ブラウザーに登録すると警告が消えます)
    {certificates.ca_file}
  データ  {settings.data_dir}
  終了は Ctrl-C
"""
    )
