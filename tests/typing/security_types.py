"""Never run: what type checkers see of the security area."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from mks_hardening.protocols import Limiter, StoredFactor, TwoFactorStore
from mks_hardening.security import (
    Decision,
    Limit,
    MemoryTwoFactorStore,
    RateLimiter,
    RecoveryCodes,
    RedisTwoFactorStore,
    SecretBox,
    SQLAlchemyTwoFactorStore,
    TOTPMatch,
    TwoFactorManager,
    VerificationResult,
    verify_totp,
)
from mks_hardening.security.password_policy import PasswordFault, PasswordPolicy

limiter = RateLimiter(
    {"g": "1 per minute", "h": Limit("minute", 1, 60.0), "i": ["1/hour", Limit("x", 1, 1.0)]}
)
RateLimiter({"g": 5})  # type: ignore[dict-item]
RateLimiter({}, strategy="elastic")  # type: ignore[arg-type]
RateLimiter({}, on_unavailable="ignore")  # type: ignore[arg-type]
RateLimiter({}, on_unavailable={"g": "closed"})


# --- the protocols are met from inside


def takes_limiter(limiter: Limiter) -> None: ...
def takes_store(store: TwoFactorStore) -> None: ...


takes_limiter(limiter)
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
    assert_type(PasswordPolicy().check("x").faults, tuple[PasswordFault, ...])
    manager.verify("u", "1", methods=["sms"])  # type: ignore[list-item]
    manager.disable("u")  # type: ignore[call-arg]
    limiter.hit("g", "k", 2)  # type: ignore[call-arg]
    SecretBox(b"k").encrypt("x", user_id="u")  # type: ignore[call-arg]
