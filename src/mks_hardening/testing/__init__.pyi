# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening.testing.asgi_call import ASGIResponse as ASGIResponse
from mks_hardening.testing.asgi_call import call_asgi as call_asgi
from mks_hardening.testing.contracts.cache_contract import CacheContract as CacheContract
from mks_hardening.testing.contracts.limiter_contract import LimiterContract as LimiterContract
from mks_hardening.testing.contracts.passkey_contract import PasskeyStoreContract as PasskeyStoreContract
from mks_hardening.testing.contracts.session_contract import SessionStoreContract as SessionStoreContract
from mks_hardening.testing.contracts.sign_in_contract import SignInStoreContract as SignInStoreContract
from mks_hardening.testing.contracts.transport_contract import TransportContract as TransportContract
from mks_hardening.testing.contracts.two_factor_contract import (
    TwoFactorStoreContract as TwoFactorStoreContract,
)
from mks_hardening.testing.flaky_redis import FlakyRedis as FlakyRedis
from mks_hardening.testing.frozen_clock import FrozenClock as FrozenClock
from mks_hardening.testing.recorded import RecordedAlerts as RecordedAlerts
from mks_hardening.testing.recorded import RecordedEvents as RecordedEvents
from mks_hardening.testing.recorded import RecordedLines as RecordedLines
from mks_hardening.testing.recording_transport import RecordingTransport as RecordingTransport
from mks_hardening.testing.task_recorder import EnqueuedTask as EnqueuedTask
from mks_hardening.testing.task_recorder import TaskRecorder as TaskRecorder
from mks_hardening.testing.wsgi_call import WSGIResponse as WSGIResponse
from mks_hardening.testing.wsgi_call import call_wsgi as call_wsgi
