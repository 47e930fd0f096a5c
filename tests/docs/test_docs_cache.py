"""The example of copies in memory runs against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.run_python import run_python

SNIPPET = Path(__file__).parents[2] / "docs" / "snippets" / "with_redis" / "client_tracking.py"

pytestmark = pytest.mark.skipif(not SNIPPET.exists(), reason="the documentation is not part of the wheel")


@pytest.mark.redis
def test_copies_in_memory_follow_changes(tmp_path: Path, redis_url: str) -> None:
    run_python(SNIPPET.read_text("utf-8"), redis_url, cwd=tmp_path)
