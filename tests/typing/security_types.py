"""Never run: what type checkers see of the security area."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from mks_hardening.protocols import (
    AsyncLimiter,
    Clock,
    Limiter,
    PasskeyStore,
    SignInSession,
    StoredFactor,
    TwoFactorStore,
)
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    BreachedPasswords,
    Decision,
    FactorAdministration,
    FactorVerifier,
    FailureLimiter,
    Limit,
    MemoryPasskeyStore,
    MemorySignInStore,
    MemoryTwoFactorStore,
    Passkey,
    PasskeyAssertion,
    Passkeys,
    PasswordErrorCode,
    PasswordHasher,
    PasswordPolicy,
    RateLimiter,
    RecoveryCodes,
    RedisPasskeyStore,
    RedisSignInStore,
    RedisTwoFactorStore,
    RememberedDevice,
    SecretBox,
    SignInStore,
    SQLAlchemyTwoFactorStore,
    TOTPMatch,
    TwoFactorManager,
    VerificationResult,
    verify_totp,
)
from mks_hardening.wsgi import SessionHandle, SessionManager

limiter = RateLimiter(
    {"g": "1 per minute", "h": Limit("minute", 1, 60.0), "i": ["1/hour", Limit("x", 1, 1.0)]}
)
RateLimiter({"g": 5})  # type: ignore[dict-item]
RateLimiter({}, strategy="elastic")  # type: ignore[arg-type]
RateLimiter({}, on_unavailable="ignore")  # type: ignore[arg-type]
RateLimiter({}, on_unavailable={"g": "closed"})


# --- the protocols are met from inside


def takes_limiter(limiter: Limiter) -> None: ...
def takes_async_limiter(limiter: AsyncLimiter) -> None: ...
def takes_store(store: TwoFactorStore) -> None: ...


takes_limiter(limiter)
takes_async_limiter(limiter)
takes_store(MemoryTwoFactorStore())
takes_store(RedisTwoFactorStore("redis://127.0.0.1"))


def sql(store: SQLAlchemyTwoFactorStore) -> None:
    takes_store(store)
    assert_type(store.load("u"), StoredFactor | None)


class Halfway:
    """Cannot replace a record."""

    def load(self, user_id: str, /) -> StoredFactor | None:
        return None


takes_store(Halfway())  # type: ignore[arg-type]


# --- decorators keep the signature


def by_name(name: str, **_: object) -> str:
    return name


@limiter.limit("g", key=by_name)
def greet(name: str, *, times: int = 1) -> list[str]:
    return [name] * times


@limiter.limit("g", key=by_name)
async def agreet(name: str) -> bytes:
    return name.encode()


assert_type(greet("x", times=2), list[str])
greeting: Callable[[str], Coroutine[Any, Any, bytes]] = agreet
greet(1)  # type: ignore[arg-type]
greet("x", twice=True)  # type: ignore[call-arg]


# --- answers


def answers(manager: TwoFactorManager) -> None:
    assert_type(limiter.hit("g", "k"), Decision)
    assert_type(limiter.reserve("g", "k").decision.retry_after, float | None)
    assert_type(verify_totp("s", "1"), TOTPMatch | None)
    assert_type(manager.verify("u", "1"), VerificationResult)
    assert_type(manager.confirm_enrolment("u", "1"), RecoveryCodes)
    assert_type(PasswordPolicy().check("x").errors, tuple[PasswordErrorCode, ...])
    manager.verify("u", "1", methods=["sms"])  # type: ignore[list-item]
    manager.disable("u")  # type: ignore[call-arg]
    limiter.hit("g", "k", 2)  # type: ignore[call-arg]
    SecretBox(b"k").encrypt("x", user_id="u")  # type: ignore[call-arg]


def sign_in_parts(
    handle: SessionHandle, manager: TwoFactorManager, sessions: SessionManager, clock: Clock
) -> None:
    """What the library has fits where a sign-in takes protocols."""
    session: SignInSession = handle
    verifier: FactorVerifier = manager
    helper: FactorAdministration = manager
    counter: FailureLimiter = RateLimiter(SIGN_IN_LIMITS)
    stores: list[SignInStore] = [MemorySignInStore(), RedisSignInStore("redis://127.0.0.1")]
    end_sessions: Callable[[str], object] = sessions.end_user
    del session, verifier, helper, counter, stores, end_sessions, clock


# --- passkeys and passwords


def takes_passkey_store(store: PasskeyStore) -> None: ...


takes_passkey_store(MemoryPasskeyStore())
takes_passkey_store(RedisPasskeyStore("redis://127.0.0.1"))
takes_passkey_store(MemoryTwoFactorStore())  # type: ignore[arg-type]


def passkeys(manager: TwoFactorManager) -> None:
    assert_type(manager.passkeys, Passkeys)
    assert_type(manager.passkeys.list("u"), tuple[Passkey, ...])
    assert_type(manager.passkeys.finish_sign_in("{}", session="s").user_id, str)
    assert_type(manager.devices("u"), tuple[RememberedDevice, ...])
    manager.verify("u", PasskeyAssertion({"id": "x"}, session="s"), methods=["passkey"])
    manager.disable("u", proof=PasskeyAssertion("{}", session="s"))
    PasskeyAssertion("{}")  # type: ignore[call-arg]
    manager.passkeys.begin_registration("u", session="s")  # type: ignore[call-arg]


PasswordPolicy(breached=BreachedPasswords("pwned.txt"))
PasswordHasher(scheme="bcrypt")  # type: ignore[arg-type]
assert_type(PasswordHasher().verify("x", None), bool)
