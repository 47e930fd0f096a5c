"""Protocols of the parts of a sign-in: accounts, passwords, limits, second factors, store.

The session is ``mks_hardening.protocols.SignInSession``. Every method may have an asyncio version with the
prefix ``a``; without one, asyncio code calls the method in a worker thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount

__all__ = [
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
]


class Accounts(Protocol):
    """The application's accounts.

    Exceptions raised here propagate and are not counted as failed attempts.

    Each call must see what was committed before it: read the primary database in a transaction of its own, not
    a cache, a replica or a transaction with an older snapshot. After a sign-in has started a session, it reads
    the account again, to notice a password reset or a disabled account. To disable an account, commit that
    first and end its sessions afterwards.
    """

    def find(self, name: str, /) -> SignInAccount | None:
        """Return the account with this name: 1 to 255 characters, without NUL and lone surrogates."""
        ...

    def get(self, user_id: str, /) -> SignInAccount | None:
        """Return the account with this id."""
        ...

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        """Replace the password hash if it still equals ``expected``; return whether it did.

        Falsy means that another change was faster; ``None`` is refused, because it tells nothing.
        """
        ...


class PasswordCheck(Protocol):
    """How passwords are hashed and checked; by default with ``hash_password`` and ``verify_password``."""

    def verify(self, password: str, stored: str | None, /) -> bool:
        """Return whether the password matches the hash; must do the same work for every hash and for ``None``."""
        ...

    def hash(self, password: str, /) -> str:
        """Return the hash to store; raise ``ValueError`` for an unacceptable password."""
        ...

    def needs_rehash(self, stored: str, /) -> bool:
        """Return whether the hash is outdated."""
        ...


class FactorStatus(Protocol):
    """Status of the second factor of an account."""

    @property
    def enabled(self) -> bool:
        """Whether a second factor is required to sign in."""
        ...


class FactorOutcome(Protocol):
    """Result of checking a code or an assertion, such as ``VerificationResult``."""

    @property
    def ok(self) -> bool:
        """Whether it was accepted, and thereby consumed."""
        ...

    @property
    def method(self) -> str | None:
        """The kind of factor: ``totp``, ``recovery``, ``passkey``."""
        ...

    @property
    def reason(self) -> str:
        """Why it was refused; only ``wrong`` is counted as a guess, and ``not_enrolled`` ends the sign-in."""
        ...

    @property
    def locked(self) -> bool:
        """Whether guesses of this client are refused without being checked."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds until guesses are checked again; ``None`` if waiting does not help."""
        ...


class FactorVerifier(Protocol):
    """Verifier of second factors: codes, recovery codes, passkey assertions; for example ``TwoFactorManager``.

    If it has a method ``is_current(user_id, outcome)`` like ``TwoFactorManager``, a factor that is removed during a
    sign-in does not complete it, even if the account has others.
    """

    def status(self, user_id: str, /) -> FactorStatus:
        """Return whether the account has a second factor."""
        ...

    def verify(self, user_id: str, code: str, /, *, client: str | None = None) -> FactorOutcome:
        """Check a code, or the JSON of a ``PasskeyAssertion``, and consume it.

        ``client`` identifies the client, which has a failure budget of its own.
        """
        ...


@runtime_checkable
class FactorAdministration(Protocol):
    """Verifier whose factors an administrator can unlock and remove, such as ``TwoFactorManager``."""

    def unlock(self, user_id: str, *, actor: str) -> bool:
        """Reset the count of wrong codes; return whether there were any."""
        ...

    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        """Remove the second factor; return whether there was one."""
        ...


class HitReservation(Protocol):
    """Hits counted in advance, such as a ``Reservation``."""

    @property
    def decision(self) -> LimitDecision:
        """Whether the hits were accepted, and the state of the limits."""
        ...

    def cancel(self) -> None:
        """Give the hits back."""
        ...


class FailureLimiter(Protocol):
    """Counter of failures, such as ``RateLimiter``.

    Hits are reserved before an attempt and given back unless the attempt fails.
    """

    def reserve(self, group: str, key: str, /) -> HitReservation:
        """Reserve one hit of ``key`` in ``group``."""
        ...

    def reset(self, group: str, key: str, /) -> None:
        """Forget all hits of a key."""
        ...


class SignInEntry(NamedTuple):
    """An entry of a ``SignInStore``.

    Attributes:
        version: changes with every write.
        data: opaque to the store.
    """

    version: str
    data: bytes


class SignInStore(Protocol):
    """Store of challenges, tokens and markers until they expire.

    ``mks_hardening.testing`` has its contract suite. Every method raises ``BackendUnavailableError`` if the
    store does not respond. If an entry is lost early, its user has to start the sign-in again. An entry that is
    stored for too long is harmless, because it contains its own expiry time.
    """

    def load(self, key: str, /) -> SignInEntry | None:
        """Return the entry as last written, unless it has expired."""
        ...

    def replace(self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float) -> bool:
        """Write an entry atomically if its version is still ``expected``; return whether it was.

        ``expected`` is ``None`` if there must be no entry. ``version`` is a new random string. If it is in
        place already, the write is a retry and returns true, so that a write whose response was lost can be
        sent again. ``ttl`` is in seconds.
        """
        ...

    def ping(self) -> bool:
        """Return whether the store responds."""
        ...

    def close(self) -> None:
        """Release connections; can be called more than once."""
        ...
