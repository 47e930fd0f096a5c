"""Real servers with the set-ups of ``docs/snippets/logging_in``: not one line of plain text, not one secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from testbed import package_map
from testbed.polling import accepts_connections, free_port, wait_until

SNIPPETS = Path(__file__).parents[4] / "docs" / "snippets" / "logging_in"


def lines_of(command: list[str], folder: Path, *, port: int = 0, ready: str = "") -> list[dict[str, Any]]:
    """What a server writes to both streams: until it listens or says so, for one request, and while it stops."""
    package_map.needs_source_tree()
    environment = {**os.environ, "PYTHONPATH": str(SNIPPETS), "PYTHONWARNINGS": "ignore", "MKS_ENV": "test"}
    written = folder / "written"
    with written.open("wb") as both:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=both,
            stderr=subprocess.STDOUT,
        )
        try:
            if port:
                wait_until(lambda: accepts_connections(port), what=command[0])
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
            else:
                wait_until(lambda: ready in written.read_text(), what=command[0])
        finally:
            process.terminate()  # SIGINT is ignored below a shell's background job
            process.wait(20)
    text = written.read_text()
    assert "hunter2" not in text
    # Celery prints what it says about its own end.
    lines = [line for line in text.splitlines() if line and not line.startswith("worker: ")]
    assert [line for line in lines if not line.startswith("{")] == []
    return [json.loads(line) for line in lines]


def loggers(lines: list[dict[str, Any]]) -> set[str]:
    return {line["logger"] for line in lines}


def test_gunicorn_with_its_error_and_access_log(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    port = free_port()
    config = str(SNIPPETS / "gunicorn.conf.py")
    command = ["gunicorn", "-c", config, "--bind", f"127.0.0.1:{port}", "wsgi_app:application"]
    (tmp_path / "wsgi_app.py").write_text(
        "import logging\n"
        "def application(environ, start_response):\n"
        "    logging.getLogger('knowledge').warning('signed in with password=%s', 'hunter2')\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    assert {"gunicorn.error", "gunicorn.access", "knowledge"} <= loggers(
        lines_of(command, tmp_path, port=port)
    )


def test_flask_whose_logger_was_used_before(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    port = free_port()
    config = str(SNIPPETS / "gunicorn.conf.py")
    (tmp_path / "quiet_flask.py").write_text(
        "import contextlib, io\n"
        "with contextlib.redirect_stderr(io.StringIO()):  # the line before the set-up is plain, and rightly so\n"
        "    from flask_app import app as application\n"
    )
    command = ["gunicorn", "-c", config, "--bind", f"127.0.0.1:{port}", "quiet_flask:application"]
    lines = lines_of(command, tmp_path, port=port)
    result = [line for line in lines if line["message"] == "signed in with password=[REDACTED]"]
    assert len(result) == 1


def test_uvicorn_with_its_default_configuration(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    port = free_port()
    lines = lines_of(["uvicorn", "uvicorn_app:application", "--port", str(port)], tmp_path, port=port)
    assert {"uvicorn.error", "uvicorn.access", "knowledge"} <= loggers(lines)


BEFORE_UVICORN = """
import uvicorn
from uvicorn_app import application  # sets up logging; uvicorn sets up its own afterwards

uvicorn.run(application, port={port})
"""


def test_uvicorn_that_sets_up_its_loggers_after_us(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    port = free_port()
    (tmp_path / "before_uvicorn.py").write_text(BEFORE_UVICORN.format(port=port))
    lines = lines_of(["before_uvicorn"], tmp_path, port=port)
    assert {"uvicorn.error", "uvicorn.access", "knowledge"} <= loggers(lines)


CELERY = """
from celery import Celery
from celery.signals import worker_ready
from celery.utils.log import get_task_logger
from mks_hardening.logging import setup_logging

app = Celery("knowledge", broker="memory://")
{more}
setup_logging("knowledge")


@worker_ready.connect(weak=False)
def log_like_a_task(**_):
    get_task_logger("knowledge.tasks").warning("signed in with password=%s", "hunter2")
"""


@pytest.mark.parametrize("more", ["", "app.conf.worker_hijack_root_logger = False"])
def test_celery_without_its_signal(more: str, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    (tmp_path / "without_signal.py").write_text(CELERY.format(more=more))
    command = ["celery", "--quiet", "-A", "without_signal", "worker", "--pool", "solo", "--loglevel", "INFO"]
    command += ["--logfile", "worker.log"]
    lines = lines_of(command, tmp_path, ready='"knowledge.tasks"')
    assert any(logger.startswith("celery") for logger in loggers(lines))
    written = (tmp_path / "worker.log").read_text().splitlines()
    assert "signed in with password=[REDACTED]" in [json.loads(line)["message"] for line in written]


def test_celery_with_its_signal(tmp_path: Path) -> None:
    pytest.importorskip("celery")
    command = ["celery", "--quiet", "-A", "celery_app", "worker", "--pool", "solo", "--loglevel", "INFO"]
    lines = lines_of(command, tmp_path, ready="ready.")
    assert any(logger.startswith("celery") for logger in loggers(lines))
