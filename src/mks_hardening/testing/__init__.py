"""Tools for tests of applications and of third-party backends.

A clock that is moved by hand, fakes that fail on demand, and contract suites that any backend can be run through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening.testing.clock import FrozenClock
    from mks_hardening.testing.contracts.cache import CacheContract
    from mks_hardening.testing.contracts.limiter import LimiterContract
    from mks_hardening.testing.contracts.session import SessionStoreContract
    from mks_hardening.testing.contracts.transport import TransportContract
    from mks_hardening.testing.contracts.two_factor import TwoFactorStoreContract
    from mks_hardening.testing.flaky_redis import FlakyRedis
    from mks_hardening.testing.transport import RecordingTransport
    from mks_hardening.testing.wsgi_call import WSGIAnswer, call_wsgi

__all__ = [
    "CacheContract",
    "FlakyRedis",
    "FrozenClock",
    "LimiterContract",
    "RecordingTransport",
    "SessionStoreContract",
    "TransportContract",
    "TwoFactorStoreContract",
    "WSGIAnswer",
    "call_wsgi",
]

_HOME = {
    "CacheContract": "mks_hardening.testing.contracts.cache",
    "FlakyRedis": "mks_hardening.testing.flaky_redis",
    "FrozenClock": "mks_hardening.testing.clock",
    "LimiterContract": "mks_hardening.testing.contracts.limiter",
    "RecordingTransport": "mks_hardening.testing.transport",
    "SessionStoreContract": "mks_hardening.testing.contracts.session",
    "TransportContract": "mks_hardening.testing.contracts.transport",
    "TwoFactorStoreContract": "mks_hardening.testing.contracts.two_factor",
    "WSGIAnswer": "mks_hardening.testing.wsgi_call",
    "call_wsgi": "mks_hardening.testing.wsgi_call",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)
