"""A server that cannot be had is never passed over in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import services

PROJECT = """
def test_needs_redis(redis_server):
    raise AssertionError("must not run")

def test_needs_nothing():
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    support = Path(services.__file__).parents[1]
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {support}\n")
    (tmp_path / "conftest.py").write_text(
        "import testbed.services\n"
        "testbed.services.SYSTEM_FOLDERS = ()\n"
        'pytest_plugins = ["testbed.fixtures"]\n'
    )
    (tmp_path / "test_it.py").write_text(PROJECT)
    return tmp_path


def _run(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=project,
        env={"PATH": str(project), "HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_missing_server_skips_with_a_summary_that_names_the_test(project: Path) -> None:
    done = _run(project)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "THESE TESTS DID NOT RUN" in done.stdout
    assert "redis-server: no such program on this machine (1 test(s))" in done.stdout
    assert "test_it.py::test_needs_redis" in done.stdout


def test_a_required_server_that_is_missing_fails(project: Path) -> None:
    done = _run(project, REQUIRE_SERVICES="1")
    assert done.returncode == 1, done.stdout
    assert "redis-server is required (REQUIRE_SERVICES=1)" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_no_summary_where_nothing_is_missing(project: Path) -> None:
    (project / "test_it.py").write_text("def test_it():\n    pass\n")
    assert "DID NOT RUN" not in _run(project).stdout
