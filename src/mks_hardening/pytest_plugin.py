"""Fixtures for tests of applications that use this package; loaded by pytest through its entry point.

Importing it costs nothing beyond itself: each fixture imports what it needs when a test asks for it.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["mks_clock"]


@pytest.fixture
def mks_clock() -> Any:
    """A clock that stands still until it is moved (``mks_hardening.testing.FrozenClock``)."""
    from mks_hardening.testing import FrozenClock

    return FrozenClock()
