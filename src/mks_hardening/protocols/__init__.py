"""Protocols that users may implement and that decouple the packages from each other.

They are structural types: you need not inherit from them, and importing this module loads nothing third-party.
"""

from __future__ import annotations

from mks_hardening.protocols._alerts import OutgoingAlert, Transport
from mks_hardening.protocols._basics import Clock, Observer, Redactor, RedisLike
from mks_hardening.protocols._factors import PasskeyStore, StoredFactor, TwoFactorStore
from mks_hardening.protocols._limits import AsyncLimiter, LimitDecision, Limiter, LimitStatus
from mks_hardening.protocols._sessions import AsyncSessionStore, SessionRecord, SessionStore, SignInSession
from mks_hardening.protocols._traces import RequestSpan, RequestTracer

__all__ = [
    "AsyncLimiter",
    "AsyncSessionStore",
    "Clock",
    "LimitDecision",
    "LimitStatus",
    "Limiter",
    "Observer",
    "OutgoingAlert",
    "PasskeyStore",
    "Redactor",
    "RedisLike",
    "RequestSpan",
    "RequestTracer",
    "SessionRecord",
    "SessionStore",
    "SignInSession",
    "StoredFactor",
    "Transport",
    "TwoFactorStore",
]

for _name in __all__:  # the public import path, whatever module defines them
    globals()[_name].__module__ = __name__
