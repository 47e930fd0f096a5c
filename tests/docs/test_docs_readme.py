"""The README says what runs: its code is that of docs/snippets, and every snippet runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SNIPPETS = sorted((ROOT / "docs" / "snippets").glob("*.py"))
FENCE = re.compile(r"<!-- docs/snippets/(\w+\.py) -->\n```python\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.skipif(not README.exists(), reason="the documentation is not part of the wheel")


def test_the_readme_shows_the_snippets_as_they_are() -> None:
    text = README.read_text("utf-8")
    shown = dict(FENCE.findall(text))
    assert shown == {path.name: path.read_text("utf-8") for path in SNIPPETS}
    assert text.count("```python") == len(shown)


@pytest.mark.parametrize("path", SNIPPETS, ids=lambda path: path.stem)
def test_every_snippet_runs_without_warnings(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text("utf-8")):
        assert (ROOT / target).exists(), target


def test_the_first_screen_has_the_two_commands() -> None:
    lines = README.read_text("utf-8").splitlines()
    first_screen = "\n".join(lines[:24])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert len(lines) <= 220


# What proves each row of the table in the README: file and test.
PROOFS = {
    "Redis: cache": ("tests/integration/test_cache_redis.py", "test_an_outage_is_a_miss_and_never_an_error"),
    "Redis: sessions": (
        "tests/integration/test_wsgi_session_outages.py",
        "test_an_outage_signs_nobody_out_and_lets_nobody_in",
    ),
    "Redis: rate limits": (
        "tests/integration/test_security_limiter.py",
        "test_redis_killed_still_limits_and_comes_back",
    ),
    "Redis: second factor": (
        "tests/integration/test_security_stores.py",
        "test_redis_away_lets_nobody_in_and_comes_back",
    ),
    "database": (
        "examples/knowledge_system/tests/test_knowledge_demo.py",
        "test_with_the_database_gone_answers_say_when_to_come_back_and_one_alert_goes_out",
    ),
    "SMTP or Slack": (
        "tests/integration/test_notify_processes.py",
        "test_a_process_that_ends_spools_what_a_dead_server_does_not_take",
    ),
    "disk full": (
        "tests/unit/test_logging_handlers.py",
        "test_a_full_disk_costs_nothing_is_told_once_and_counted",
    ),
}


def test_every_row_of_the_outage_table_has_a_test() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \|$", README.read_text("utf-8"), re.MULTILINE)
    assert rows[1:] == list(PROOFS)
    for file, name in PROOFS.values():
        assert f"def {name}(" in (ROOT / file).read_text("utf-8")
