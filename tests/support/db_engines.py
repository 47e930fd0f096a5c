"""Tests that run on SQLite and on PostgreSQL: one fixture, two databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine  # noqa: TC002 - a reader of the fixture's type

from mks_hardening.db import hardened_engine


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A hardened engine on an empty database."""
    url = f"sqlite:///{tmp_path / 'test.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    made = hardened_engine(url, threads=4)
    yield made
    made.dispose()
