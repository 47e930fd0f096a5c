# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening._core.origin.proxy_trust import client_key as client_key
from mks_hardening._core.web.rate_headers import rate_limit_headers as rate_limit_headers
from mks_hardening._core.web.rate_problem import rate_limit_problem as rate_limit_problem
from mks_hardening.security.concurrency.concurrency_limiter import ConcurrencyLimiter as ConcurrencyLimiter
from mks_hardening.security.concurrency.slot import Slot as Slot
from mks_hardening.security.passkeys.passkey_results import Passkey as Passkey
from mks_hardening.security.passkeys.passkey_results import PasskeyAssertion as PasskeyAssertion
from mks_hardening.security.passkeys.passkey_results import PasskeyOptions as PasskeyOptions
from mks_hardening.security.passkeys.relying_party import RelyingParty as RelyingParty
from mks_hardening.security.passkeys.stores.memory_store import MemoryPasskeyStore as MemoryPasskeyStore
from mks_hardening.security.passkeys.stores.redis_store import RedisPasskeyStore as RedisPasskeyStore
from mks_hardening.security.passkeys.stores.sql_store import PasskeyTables as PasskeyTables
from mks_hardening.security.passkeys.stores.sql_store import SQLAlchemyPasskeyStore as SQLAlchemyPasskeyStore
from mks_hardening.security.passkeys.stores.sql_store import passkey_tables as passkey_tables
from mks_hardening.security.passwords.breached import BreachedPasswords as BreachedPasswords
from mks_hardening.security.passwords.breached import build_breach_filter as build_breach_filter
from mks_hardening.security.passwords.hasher import PasswordHasher as PasswordHasher
from mks_hardening.security.passwords.hashing import hash_password as hash_password
from mks_hardening.security.passwords.hashing import needs_rehash as needs_rehash
from mks_hardening.security.passwords.hashing import verify_password as verify_password
from mks_hardening.security.passwords.password_policy import PasswordErrorCode as PasswordErrorCode
from mks_hardening.security.passwords.password_policy import PasswordPolicy as PasswordPolicy
from mks_hardening.security.passwords.password_policy import PasswordVerdict as PasswordVerdict
from mks_hardening.security.rate_limits.limit import DEFAULT_RATE_LIMITS as DEFAULT_RATE_LIMITS
from mks_hardening.security.rate_limits.limit import Decision as Decision
from mks_hardening.security.rate_limits.limit import Limit as Limit
from mks_hardening.security.rate_limits.limit import LimitState as LimitState
from mks_hardening.security.rate_limits.rate_limiter import RateLimiter as RateLimiter
from mks_hardening.security.rate_limits.reservation import Reservation as Reservation
from mks_hardening.security.rate_limits.turn import Turn as Turn
from mks_hardening.security.second_factor.codes.qr import qr_code as qr_code
from mks_hardening.security.second_factor.codes.recovery_codes import RecoveryCodes as RecoveryCodes
from mks_hardening.security.second_factor.codes.recovery_codes import (
    generate_recovery_codes as generate_recovery_codes,
)
from mks_hardening.security.second_factor.codes.recovery_codes import (
    normalize_recovery_code as normalize_recovery_code,
)
from mks_hardening.security.second_factor.codes.totp import TOTPMatch as TOTPMatch
from mks_hardening.security.second_factor.codes.totp import generate_secret as generate_secret
from mks_hardening.security.second_factor.codes.totp import provisioning_uri as provisioning_uri
from mks_hardening.security.second_factor.codes.totp import totp_code as totp_code
from mks_hardening.security.second_factor.codes.totp import verify_totp as verify_totp
from mks_hardening.security.second_factor.factor_results import Enrolment as Enrolment
from mks_hardening.security.second_factor.factor_results import PasskeyRegistration as PasskeyRegistration
from mks_hardening.security.second_factor.factor_results import PasskeySignIn as PasskeySignIn
from mks_hardening.security.second_factor.factor_results import ReencryptionProgress as ReencryptionProgress
from mks_hardening.security.second_factor.factor_results import RememberedDevice as RememberedDevice
from mks_hardening.security.second_factor.factor_results import TwoFactorNotice as TwoFactorNotice
from mks_hardening.security.second_factor.factor_results import TwoFactorStatus as TwoFactorStatus
from mks_hardening.security.second_factor.factor_results import VerificationResult as VerificationResult
from mks_hardening.security.second_factor.failure_budget import FailureBudget as FailureBudget
from mks_hardening.security.second_factor.passkeys import Passkeys as Passkeys
from mks_hardening.security.second_factor.stores.memory_store import (
    MemoryTwoFactorStore as MemoryTwoFactorStore,
)
from mks_hardening.security.second_factor.stores.redis_store import RedisTwoFactorStore as RedisTwoFactorStore
from mks_hardening.security.second_factor.stores.sql_store import (
    SQLAlchemyTwoFactorStore as SQLAlchemyTwoFactorStore,
)
from mks_hardening.security.second_factor.stores.sql_store import two_factor_table as two_factor_table
from mks_hardening.security.second_factor.two_factor_manager import TwoFactorManager as TwoFactorManager
from mks_hardening.security.secret_box import SecretBox as SecretBox
from mks_hardening.security.sign_in.credential_changes import CredentialChanges as CredentialChanges
from mks_hardening.security.sign_in.headers import sign_in_headers as sign_in_headers
from mks_hardening.security.sign_in.sign_in import SignIn as SignIn
from mks_hardening.security.sign_in.sign_in_protocols import Accounts as Accounts
from mks_hardening.security.sign_in.sign_in_protocols import FactorAdministration as FactorAdministration
from mks_hardening.security.sign_in.sign_in_protocols import FactorOutcome as FactorOutcome
from mks_hardening.security.sign_in.sign_in_protocols import FactorStatus as FactorStatus
from mks_hardening.security.sign_in.sign_in_protocols import FactorVerifier as FactorVerifier
from mks_hardening.security.sign_in.sign_in_protocols import FailureLimiter as FailureLimiter
from mks_hardening.security.sign_in.sign_in_protocols import HitReservation as HitReservation
from mks_hardening.security.sign_in.sign_in_protocols import PasswordCheck as PasswordCheck
from mks_hardening.security.sign_in.sign_in_protocols import SignInEntry as SignInEntry
from mks_hardening.security.sign_in.sign_in_protocols import SignInStore as SignInStore
from mks_hardening.security.sign_in.sign_in_results import SIGN_IN_LIMITS as SIGN_IN_LIMITS
from mks_hardening.security.sign_in.sign_in_results import ChangeResult as ChangeResult
from mks_hardening.security.sign_in.sign_in_results import SignInAccount as SignInAccount
from mks_hardening.security.sign_in.sign_in_results import SignInClient as SignInClient
from mks_hardening.security.sign_in.sign_in_results import SignInDevice as SignInDevice
from mks_hardening.security.sign_in.sign_in_results import SignInNotice as SignInNotice
from mks_hardening.security.sign_in.sign_in_results import SignInStep as SignInStep
from mks_hardening.security.sign_in.stores.memory_store import MemorySignInStore as MemorySignInStore
from mks_hardening.security.sign_in.stores.redis_store import RedisSignInStore as RedisSignInStore
