"""The servers of the testbed, for what is judged."""

from __future__ import annotations

pytest_plugins = ["testbed.fixtures"]
