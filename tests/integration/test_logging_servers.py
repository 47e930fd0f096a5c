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

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets" / "logging_in"


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
    told = [line for line in lines if line["message"] == "signed in with password=[REDACTED]"]
    assert len(told) == 1


def test_uvicorn_with_its_default_configuration(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    port = free_port()
    lines = lines_of(["uvicorn", "uvicorn_app:application", "--port", str(port)], tmp_path, port=port)
    assert {"uvicorn.error", "uvicorn.access", "knowledge"} <= loggers(lines)


WITHOUT_SIGNAL = """
from celery import Celery
from mks_hardening.logging import setup_logging

app = Celery("knowledge", broker="memory://")
app.conf.worker_hijack_root_logger = False
setup_logging("knowledge")
"""


@pytest.mark.parametrize("module", ["celery_app", "without_signal"])
def test_celery_with_its_signal_and_without(module: str, tmp_path: Path) -> None:
    pytest.importorskip("celery")
    (tmp_path / "without_signal.py").write_text(WITHOUT_SIGNAL)
    command = ["celery", "--quiet", "-A", module, "worker", "--pool", "solo", "--loglevel", "INFO"]
    lines = lines_of(command, tmp_path, ready="ready.")
    assert any(logger.startswith("celery") for logger in loggers(lines))
