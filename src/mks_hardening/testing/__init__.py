"""Tools for testing applications and third-party backends.

A manual clock, fakes that fail on demand, and contract suites for backends.
"""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.testing.asgi_call": ["ASGIResponse", "call_asgi"],
    "mks_hardening.testing.frozen_clock": ["FrozenClock"],
    "mks_hardening.testing.contracts.cache_contract": ["CacheContract"],
    "mks_hardening.testing.contracts.limiter_contract": ["LimiterContract"],
    "mks_hardening.testing.contracts.passkey_contract": ["PasskeyStoreContract"],
    "mks_hardening.testing.contracts.session_contract": ["SessionStoreContract"],
    "mks_hardening.testing.contracts.sign_in_contract": ["SignInStoreContract"],
    "mks_hardening.testing.contracts.transport_contract": ["TransportContract"],
    "mks_hardening.testing.contracts.two_factor_contract": ["TwoFactorStoreContract"],
    "mks_hardening.testing.flaky_redis": ["FlakyRedis"],
    "mks_hardening.testing.recorded": ["RecordedAlerts", "RecordedEvents", "RecordedLines"],
    "mks_hardening.testing.task_recorder": ["EnqueuedTask", "TaskRecorder"],
    "mks_hardening.testing.recording_transport": ["RecordingTransport"],
    "mks_hardening.testing.wsgi_call": ["WSGIResponse", "call_wsgi"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
