"""The pictures of the documentation show the measurements that are stored beside them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "outage.py"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not part of the wheel")


def test_the_picture_of_the_outage_shows_the_last_measurement() -> None:
    script = runpy.run_path(str(SCRIPT))
    runs = script["last_runs"]()
    for language in ("en", "ja"):
        assert script["picture_of"](language).read_text("utf-8") == script["draw"](runs, language)


def test_no_response_of_this_package_failed_while_redis_hung() -> None:
    script = runpy.run_path(str(SCRIPT))
    runs = script["last_runs"]()
    assert all(response.status == 200 for response in runs[script["OURS"]])
    assert sum(response.status >= 500 for response in runs[script["PEERS"]]) > 0
