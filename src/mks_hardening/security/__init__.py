"""Rate limits, passwords, second factors, passkeys and sign-in, safe under concurrency and during outages."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening._core.origin.proxy_trust": ["client_key"],
    "mks_hardening._core.web.rate_headers": ["rate_limit_headers"],
    "mks_hardening._core.web.rate_problem": ["rate_limit_problem"],
    "mks_hardening.security.rate_limits.limit": ["DEFAULT_RATE_LIMITS", "Decision", "Limit", "LimitState"],
    "mks_hardening.security.second_factor.factor_results": [
        "Enrolment",
        "PasskeyRegistration",
        "PasskeySignIn",
        "ReencryptionProgress",
        "RememberedDevice",
        "TwoFactorNotice",
        "TwoFactorStatus",
        "VerificationResult",
    ],
    "mks_hardening.security.second_factor.failure_budget": ["FailureBudget"],
    "mks_hardening.security.concurrency.concurrency_limiter": ["ConcurrencyLimiter"],
    "mks_hardening.security.concurrency.slot": ["Slot"],
    "mks_hardening.security.passkeys.relying_party": ["RelyingParty"],
    "mks_hardening.security.passkeys.passkey_results": ["Passkey", "PasskeyAssertion", "PasskeyOptions"],
    "mks_hardening.security.passkeys.stores.memory_store": ["MemoryPasskeyStore"],
    "mks_hardening.security.passkeys.stores.redis_store": ["RedisPasskeyStore"],
    "mks_hardening.security.passkeys.stores.sql_store": [
        "PasskeyTables",
        "SQLAlchemyPasskeyStore",
        "passkey_tables",
    ],
    "mks_hardening.security.second_factor.passkeys": ["Passkeys"],
    "mks_hardening.security.passwords.breached": ["BreachedPasswords", "build_breach_filter"],
    "mks_hardening.security.passwords.hasher": ["PasswordHasher"],
    "mks_hardening.security.passwords.password_policy": [
        "PasswordErrorCode",
        "PasswordPolicy",
        "PasswordVerdict",
    ],
    "mks_hardening.security.passwords.hashing": ["hash_password", "needs_rehash", "verify_password"],
    "mks_hardening.security.second_factor.codes.qr": ["qr_code"],
    "mks_hardening.security.rate_limits.rate_limiter": ["RateLimiter"],
    "mks_hardening.security.rate_limits.turn": ["Turn"],
    "mks_hardening.security.rate_limits.reservation": ["Reservation"],
    "mks_hardening.security.second_factor.codes.recovery_codes": [
        "RecoveryCodes",
        "generate_recovery_codes",
        "normalize_recovery_code",
    ],
    "mks_hardening.security.secret_box": ["SecretBox"],
    "mks_hardening.security.second_factor.stores.memory_store": ["MemoryTwoFactorStore"],
    "mks_hardening.security.second_factor.stores.redis_store": ["RedisTwoFactorStore"],
    "mks_hardening.security.second_factor.stores.sql_store": ["SQLAlchemyTwoFactorStore", "two_factor_table"],
    "mks_hardening.security.second_factor.codes.totp": [
        "TOTPMatch",
        "generate_secret",
        "provisioning_uri",
        "totp_code",
        "verify_totp",
    ],
    "mks_hardening.security.second_factor.two_factor_manager": ["TwoFactorManager"],
    "mks_hardening.security.sign_in.credential_changes": ["CredentialChanges"],
    "mks_hardening.security.sign_in.sign_in": ["SignIn"],
    "mks_hardening.security.sign_in.headers": ["sign_in_headers"],
    "mks_hardening.security.sign_in.sign_in_results": [
        "SIGN_IN_LIMITS",
        "ChangeResult",
        "SignInAccount",
        "SignInClient",
        "SignInDevice",
        "SignInNotice",
        "SignInStep",
    ],
    "mks_hardening.security.sign_in.sign_in_protocols": [
        "Accounts",
        "FactorAdministration",
        "FactorOutcome",
        "FactorStatus",
        "FactorVerifier",
        "FailureLimiter",
        "HitReservation",
        "PasswordCheck",
        "SignInEntry",
        "SignInStore",
    ],
    "mks_hardening.security.sign_in.stores.memory_store": ["MemorySignInStore"],
    "mks_hardening.security.sign_in.stores.redis_store": ["RedisSignInStore"],
}

_RENAMED = {
    "AloneOutcome": "PasskeySignIn",
    "FactorHelp": "FactorAdministration",
    "FactorStanding": "FactorStatus",
    "PasswordFault": "PasswordErrorCode",
    "PasswordlessOutcome": "PasskeySignIn",
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME, renamed=_RENAMED)
