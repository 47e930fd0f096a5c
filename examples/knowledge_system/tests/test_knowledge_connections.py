"""The check warns where the pools of all workers do not fit into PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from knowledge_system import app as application
from knowledge_system import configuration_check, database


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, []),
        (
            {"MKS_DB_MAX_CONNECTIONS": "90000"},
            ["MKS_DB_MAX_CONNECTIONS=90000, but the server allows"],
        ),
        ({"MKS_DB_GENERATIONS": "1"}, ["MKS_DB_GENERATIONS=1: during a reload"]),
        (
            {"MKS_DB_MAX_CONNECTIONS": "19", "MKS_GUNICORN_THREADS": "16"},
            ["16 threads of a worker share 8 database connections"],
        ),
    ],
)
def test_what_does_not_fit_is_found(
    settings_at: Callable[..., Any], postgres_url: str, variables: dict[str, str], said: list[str]
) -> None:
    settings = settings_at(postgres_url, **variables)
    with application.open_database(settings) as (engine, _):
        database.upgrade(engine, settings, clock=time)
    found = [
        finding
        for finding in configuration_check.findings(settings, clock=time)
        if "onnection" in finding.text
    ]
    assert not any(finding.error for finding in found)
    assert len(found) == len(said)
    assert all(finding.text.startswith(start) for finding, start in zip(found, said, strict=True))
