"""The servers of the testbed, for a rendered host."""

from __future__ import annotations

pytest_plugins = ["testbed.fixtures"]
