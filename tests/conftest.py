"""What every test shares: the servers of the testbed and the profiles of hypothesis."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["testbed.fixtures"]

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "local"))
