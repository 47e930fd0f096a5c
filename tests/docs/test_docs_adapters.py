"""The pages about observing and testing show code that runs, under real servers where there are any."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import mks_hardening.pytest_plugin as plugin
from testbed.polling import accepts_connections, free_port, wait_until

ROOT = Path(__file__).parents[2]
ADAPTERS = ROOT / "docs" / "snippets" / "adapters"
TESTING = ROOT / "docs" / "snippets" / "testing"
PAGES = {
    name: ROOT / "docs" / "en" / "how-to" / f"{name}.md" for name in ("observe", "test-your-application")
}

pytestmark = pytest.mark.skipif(not ADAPTERS.exists(), reason="the documentation is not part of the wheel")


def fences(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[page].read_text("utf-8"), re.DOTALL)


def test_the_page_about_observing_shows_the_snippets_as_they_are() -> None:
    shown = set(fences("observe"))
    assert shown == {file.read_text("utf-8") for file in ADAPTERS.glob("*.py") if file.name != "hello.py"}


def test_the_page_about_testing_shows_parts_of_tests_that_run() -> None:
    text = (TESTING / "test_with_fixtures.py").read_text("utf-8")
    assert [piece for piece in fences("test-your-application") if piece.strip() not in text] == []


def test_every_fixture_has_a_row_and_a_section() -> None:
    text = PAGES["test-your-application"].read_text("utf-8")
    names = [name for name in vars(plugin) if name.startswith("mks_")]
    rows = re.findall(r"^\| \[`(mks_\w+)`.*\]\(#([\w-]+)\)", text, re.MULTILINE)
    anchors = re.findall(r"^\(([\w-]+)\)=\n## ", text, re.MULTILINE)
    assert {name for name, _ in rows} == set(names)
    assert [*(anchor for _, anchor in rows), "test-your-application-see-it"] == anchors


@pytest.mark.parametrize("file", sorted(ADAPTERS.glob("*.py")), ids=lambda file: file.name)
def test_a_start_takes_five_lines_at_most(file: Path) -> None:
    if file.name == "hello.py":
        return
    body = ast.parse(file.read_text("utf-8")).body
    assert len([line for line in body if not isinstance(line, ast.Import | ast.ImportFrom)]) <= 5
    assert len([line for line in body if "contrib" in ast.unparse(line).partition("import")[0]]) == 1


def run(name: str, folder: Path, *, ending: str = "") -> str:
    """What an example prints to both streams; secrets are not among it."""
    source = (ADAPTERS / name).read_text("utf-8").replace("9464", str(free_port()))
    (folder / name).write_text(f"{source}\n{ending}\n")
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ADAPTERS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus(tmp_path: Path) -> None:
    ending = """
import urllib.request
from mks_hardening.cache import MemoryCache
MemoryCache(namespace="articles").get("key")
print(urllib.request.urlopen(f"http://127.0.0.1:{listener.port}/metrics", timeout=10).read().decode())
listener.close()
"""
    output = run("prometheus_metrics.py", tmp_path, ending=ending)
    assert 'mks_cache_reads_total{namespace="articles",outcome="miss",reason=""} 1.0' in output


def test_opentelemetry(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    ending = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from mks_hardening.logging import setup_logging
from mks_hardening.testing import call_wsgi
setup_logging("knowledge")
kept = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
call_wsgi(app, "/articles/7", environ={"HTTP_HOST": "nobody.example.com"})
call_wsgi(app, "/articles/7")
print([(span.name, span.attributes["http.response.status_code"]) for span in kept.get_finished_spans()])
"""
    # What a wrapper refuses has a span, too.
    assert "[('GET', 400), ('GET', 200)]" in run("opentelemetry_traces.py", tmp_path, ending=ending)


@pytest.mark.parametrize(
    ("name", "needed"), [("structlog_logs.py", "structlog"), ("loguru_logs.py", "loguru")]
)
def test_logs(name: str, needed: str, tmp_path: Path) -> None:
    pytest.importorskip(needed)
    assert '"message":"signed in"' in run(name, tmp_path)


@pytest.mark.parametrize("name", ["sentry_errors.py", "sentry_reports.py"])
def test_sentry(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentry_sdk")
    monkeypatch.setenv("SENTRY_DSN", "http://key@127.0.0.1:9/1")
    run(name, tmp_path)


@pytest.mark.parametrize("name", ["gunicorn.conf.py", "uvicorn_server.py", "waitress_server.py"])
def test_servers(name: str, tmp_path: Path) -> None:
    server = name.partition(".")[0].partition("_")[0]
    pytest.importorskip(server)
    port, metrics = free_port(), free_port()
    source = (ADAPTERS / name).read_text("utf-8").replace("8000", str(port)).replace("9464", str(metrics))
    (tmp_path / name).write_text(source)
    command = [sys.executable, name]
    if server == "gunicorn":
        command = [
            str(Path(sys.executable).with_name("gunicorn")),
            "--bind",
            f"127.0.0.1:{port}",
            "hello:app",
        ]
    output = tmp_path / "output"
    with output.open("wb") as both:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ADAPTERS), "PYTHONWARNINGS": "ignore"},
            stdout=both,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: accepts_connections(port), what=server)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert answer.read() == b"ok"
        if server == "gunicorn":
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/", timeout=10) as answer:
                assert answer.status == 200
    finally:
        process.terminate()  # a shell's background job ignores SIGINT, and so does what it starts
        try:
            process.wait(60)  # twice the time that gunicorn gives a worker
        finally:
            process.kill()
            process.wait()
    lines = output.read_text().splitlines()
    assert lines
    assert all(line.startswith("{") for line in lines), lines
    assert "hunter2" not in output.read_text()
    assert "signed in with password=[REDACTED]" in output.read_text()
