"""What a sign-in is put together from: accounts, passwords, limits, second factors, a store. Structural types.

The session is ``mks_hardening.protocols.SignInSession``. Of every method there may be a twin for asyncio, named
with an ``a`` in front; without one it is asked in a worker thread there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from mks_hardening.protocols import LimitDecision
    from mks_hardening.security.sign_in.sign_in_results import SignInAccount

__all__ = [
    "Accounts",
    "AloneOutcome",
    "FactorHelp",
    "FactorOutcome",
    "FactorStanding",
    "FactorVerifier",
    "FailureLimiter",
    "HitReservation",
    "PasswordCheck",
    "SignInEntry",
    "SignInStore",
]


class Accounts(Protocol):
    """The application's accounts. What it raises is raised again, and is not counted as a failed attempt.

    Each call must see what was committed before it: read the primary database in a transaction of its own, not a
    cache, a replica or a transaction with an older snapshot. When a sign-in has begun a session, it reads the
    account again, to notice a password that was reset or an account that was disabled meanwhile. To disable an
    account, commit that first and end its sessions afterwards.
    """

    def find(self, name: str, /) -> SignInAccount | None:
        """The account a person means by this text: 1 to 255 characters, without NUL and lone surrogates."""
        ...

    def get(self, user_id: str, /) -> SignInAccount | None:
        """The account with this id."""
        ...

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        """Replace the stored form of the password, if it still is the expected one; whether it was."""
        ...


class PasswordCheck(Protocol):
    """How passwords are stored and checked; by default as ``hash_password`` and ``verify_password`` do."""

    def verify(self, password: str, stored: str | None, /) -> bool:
        """Whether the password belongs to the stored form; the same work for every form and for ``None``."""
        ...

    def hash(self, password: str, /) -> str:
        """The stored form; ``ValueError`` for what cannot be a password."""
        ...

    def needs_rehash(self, stored: str, /) -> bool:
        """Whether the stored form is an old one."""
        ...


class FactorStanding(Protocol):
    """Where the second factor of an account stands."""

    @property
    def enabled(self) -> bool:
        """A second factor is needed to sign in."""
        ...


class FactorOutcome(Protocol):
    """What became of a code or an assertion; ``VerificationResult`` is one."""

    @property
    def ok(self) -> bool:
        """Accepted, and used up."""
        ...

    @property
    def method(self) -> str | None:
        """What it was: ``totp``, ``recovery``, ``passkey``."""
        ...

    @property
    def reason(self) -> str:
        """Why not; ``wrong`` alone is a guess that counts, ``not_enrolled`` ends the sign-in."""
        ...

    @property
    def locked(self) -> bool:
        """No guess of this client is looked at now."""
        ...

    @property
    def retry_after(self) -> float | None:
        """Seconds until one is; ``None`` where waiting does not help."""
        ...


class AloneOutcome(Protocol):
    """What became of a factor that is a whole sign-in; ``PasskeySignIn`` is one."""

    @property
    def user_id(self) -> str:
        """Who it says is there; means nothing unless accepted."""
        ...

    @property
    def result(self) -> FactorOutcome:
        """Whether it was accepted."""
        ...


class FactorVerifier(Protocol):
    """Any second factor: codes, recovery codes, assertions of passkeys; ``TwoFactorManager`` is one."""

    def status(self, user_id: str, /) -> FactorStanding:
        """Whether the account has one."""
        ...

    def verify(self, user_id: str, code: str, /, *, client: str | None = None) -> FactorOutcome:
        """Check what the person or the browser answered, once: a code, or the JSON of a ``PasskeyAssertion``.

        ``client`` is who asks, for a failure budget of its own.
        """
        ...


@runtime_checkable
class FactorHelp(Protocol):
    """A verifier whose factors can be unlocked and taken off; ``TwoFactorManager`` is one."""

    def unlock(self, user_id: str, *, actor: str) -> bool:
        """Forget all wrong codes; whether there were any."""
        ...

    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        """Take the factor off; whether there was one."""
        ...


class HitReservation(Protocol):
    """Hits taken in advance; ``Reservation`` is one."""

    @property
    def decision(self) -> LimitDecision:
        """Whether they were taken, and where the limits stand."""
        ...

    def cancel(self) -> None:
        """Give them back."""
        ...


class FailureLimiter(Protocol):
    """Counts failures: hits are taken before an attempt and given back unless it failed. ``RateLimiter`` does."""

    def reserve(self, group: str, key: str, /) -> HitReservation:
        """Take one hit of ``key`` in ``group``."""
        ...

    def reset(self, group: str, key: str, /) -> None:
        """Forget all hits of a key."""
        ...


class SignInEntry(NamedTuple):
    """An entry as a store keeps it.

    Attributes:
        version: changes with every write.
        data: opaque to the store.
    """

    version: str
    data: bytes


class SignInStore(Protocol):
    """Keeps challenges, tokens and marks until they expire; ``mks_hardening.testing`` has its contract suite.

    Every method raises ``BackendUnavailableError`` when the store did not answer. An entry that is lost early costs
    a sign-in that is begun again; one that lives longer is harmless, as it holds its own time.
    """

    def load(self, key: str, /) -> SignInEntry | None:
        """The entry as last written, unless it has expired."""
        ...

    def replace(self, key: str, data: bytes, /, *, expected: str | None, version: str, ttl: float) -> bool:
        """Write an entry if its version is still the expected one (``None``: no entry); whether it was. Atomic.

        ``version`` is a new random text; a write that finds it in place already is a repetition and true, so that
        a write whose answer was lost may be sent again. ``ttl`` is in seconds.
        """
        ...

    def ping(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...
