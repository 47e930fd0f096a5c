"""Tools for tests of applications and of third-party backends.

A clock that is moved by hand, fakes that fail on demand, and contract suites that any backend can be run through.
"""

from __future__ import annotations

from mks_hardening._core.facade import facade

_HOME = {
    "mks_hardening.testing.clock": ["FrozenClock"],
    "mks_hardening.testing.contracts.cache": ["CacheContract"],
    "mks_hardening.testing.contracts.limiter": ["LimiterContract"],
    "mks_hardening.testing.contracts.passkey": ["PasskeyStoreContract"],
    "mks_hardening.testing.contracts.session": ["SessionStoreContract"],
    "mks_hardening.testing.contracts.sign_in": ["SignInStoreContract"],
    "mks_hardening.testing.contracts.transport": ["TransportContract"],
    "mks_hardening.testing.contracts.two_factor": ["TwoFactorStoreContract"],
    "mks_hardening.testing.flaky_redis": ["FlakyRedis"],
    "mks_hardening.testing.recorded": ["RecordedAlerts", "RecordedEvents", "RecordedLines"],
    "mks_hardening.testing.task_recorder": ["EnqueuedTask", "TaskRecorder"],
    "mks_hardening.testing.transport": ["RecordingTransport"],
    "mks_hardening.testing.wsgi_call": ["WSGIAnswer", "call_wsgi"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
