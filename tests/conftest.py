"""Shared by all tests: the servers of the testbed, and what a test may leave behind."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

import pytest

from mks_hardening._core import hooks
from testbed.combinations import without_most_combinations

pytest_plugins = ["testbed.fixtures"]


@pytest.hookimpl(trylast=True)  # after `-m` has selected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Reject test cases whose id differs between processes: parallel workers would not agree on the list.

    In a suite that runs again, leave out combinations of tables.
    """
    unstable = [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]{6,}", item.nodeid)]
    if unstable:
        raise pytest.UsageError(f"give these cases ids of their own (testbed.ids): {', '.join(unstable)}")
    if os.environ.get("HYPOTHESIS_PROFILE") == "again":
        kept = without_most_combinations(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Detect what a test leaves behind in the process in that test, not in a later one on the same worker."""
    before = tuple(hooks.observers), logging.Logger.callHandlers
    yield
    assert (tuple(hooks.observers), logging.Logger.callHandlers) == before
