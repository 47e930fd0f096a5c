"""Second factors, rate limits and passwords that hold under concurrency and outages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening._core.origin import client_key
    from mks_hardening._core.rate_headers import rate_limit_headers
    from mks_hardening.security._limits import DEFAULT_RATE_LIMITS, Decision, Limit, LimitState
    from mks_hardening.security._results import (
        Enrolment,
        ReencryptionProgress,
        TwoFactorStatus,
        VerificationResult,
    )
    from mks_hardening.security.failure_budget import FailureBudget
    from mks_hardening.security.password_policy import PasswordPolicy, PasswordVerdict
    from mks_hardening.security.passwords import hash_password, needs_rehash, verify_password
    from mks_hardening.security.qr import qr_code
    from mks_hardening.security.ratelimit import RateLimiter, Reservation
    from mks_hardening.security.recovery_codes import (
        RecoveryCodes,
        generate_recovery_codes,
        normalize_recovery_code,
    )
    from mks_hardening.security.secret_box import SecretBox
    from mks_hardening.security.stores.memory import MemoryTwoFactorStore
    from mks_hardening.security.stores.redis_store import RedisTwoFactorStore
    from mks_hardening.security.stores.sql_store import SQLAlchemyTwoFactorStore, two_factor_table
    from mks_hardening.security.totp import (
        TOTPMatch,
        generate_secret,
        provisioning_uri,
        totp_code,
        verify_totp,
    )
    from mks_hardening.security.two_factor import TwoFactorManager

__all__ = [
    "DEFAULT_RATE_LIMITS",
    "Decision",
    "Enrolment",
    "FailureBudget",
    "Limit",
    "LimitState",
    "MemoryTwoFactorStore",
    "PasswordPolicy",
    "PasswordVerdict",
    "RateLimiter",
    "RecoveryCodes",
    "RedisTwoFactorStore",
    "ReencryptionProgress",
    "Reservation",
    "SQLAlchemyTwoFactorStore",
    "SecretBox",
    "TOTPMatch",
    "TwoFactorManager",
    "TwoFactorStatus",
    "VerificationResult",
    "client_key",
    "generate_recovery_codes",
    "generate_secret",
    "hash_password",
    "needs_rehash",
    "normalize_recovery_code",
    "provisioning_uri",
    "qr_code",
    "rate_limit_headers",
    "totp_code",
    "two_factor_table",
    "verify_password",
    "verify_totp",
]

_HOME = {
    "DEFAULT_RATE_LIMITS": "mks_hardening.security._limits",
    "Decision": "mks_hardening.security._limits",
    "Enrolment": "mks_hardening.security._results",
    "FailureBudget": "mks_hardening.security.failure_budget",
    "Limit": "mks_hardening.security._limits",
    "LimitState": "mks_hardening.security._limits",
    "MemoryTwoFactorStore": "mks_hardening.security.stores.memory",
    "PasswordPolicy": "mks_hardening.security.password_policy",
    "PasswordVerdict": "mks_hardening.security.password_policy",
    "RateLimiter": "mks_hardening.security.ratelimit",
    "RedisTwoFactorStore": "mks_hardening.security.stores.redis_store",
    "RecoveryCodes": "mks_hardening.security.recovery_codes",
    "ReencryptionProgress": "mks_hardening.security._results",
    "Reservation": "mks_hardening.security.ratelimit",
    "SQLAlchemyTwoFactorStore": "mks_hardening.security.stores.sql_store",
    "SecretBox": "mks_hardening.security.secret_box",
    "TOTPMatch": "mks_hardening.security.totp",
    "TwoFactorManager": "mks_hardening.security.two_factor",
    "TwoFactorStatus": "mks_hardening.security._results",
    "VerificationResult": "mks_hardening.security._results",
    "client_key": "mks_hardening._core.origin",
    "generate_recovery_codes": "mks_hardening.security.recovery_codes",
    "generate_secret": "mks_hardening.security.totp",
    "hash_password": "mks_hardening.security.passwords",
    "needs_rehash": "mks_hardening.security.passwords",
    "normalize_recovery_code": "mks_hardening.security.recovery_codes",
    "provisioning_uri": "mks_hardening.security.totp",
    "qr_code": "mks_hardening.security.qr",
    "rate_limit_headers": "mks_hardening._core.rate_headers",
    "totp_code": "mks_hardening.security.totp",
    "two_factor_table": "mks_hardening.security.stores.sql_store",
    "verify_password": "mks_hardening.security.passwords",
    "verify_totp": "mks_hardening.security.totp",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)
