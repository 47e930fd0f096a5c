"""Protocols for stores of second factors and passkeys."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["PasskeyStore", "StoredFactor", "TwoFactorStore"]


class StoredFactor(NamedTuple):
    """Stored second-factor record of one user.

    Attributes:
        version: changes with every write.
        data: the record; opaque to the store.
    """

    version: str
    data: bytes


class TwoFactorStore(Protocol):
    """Stores second factors; every store must pass the contract suite in ``mks_hardening.testing``.

    One opaque record per user, changed by compare-and-set. Every method raises ``BackendUnavailableError`` if the
    store does not respond. The store must never remove a record on its own (no expiry, no eviction). A store may
    implement ``aload``, ``areplace`` and ``ascan`` for asyncio; without them, it is called in a worker thread.
    """

    def load(self, user_id: str, /) -> StoredFactor | None:
        """Return the last written record of a user, or ``None``."""
        ...

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write a record (``None`` deletes it) if its version is ``expected``; return whether it was written.

        Atomic. ``expected=None`` means that there must be no record. ``version`` is a new random string for the
        record. If the stored record already has that version, the call is a repetition and returns ``True``, so
        that a write whose response was lost can be retried.
        """
        ...

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """Return about ``limit`` user ids and the cursor for the next call; ``None`` at the end.

        Every user that has a record from the first call to the last is returned at least once.
        """
        ...

    def ping(self) -> bool:
        """Return whether the store responds."""
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...


class PasskeyStore(Protocol):
    """Stores passkey challenges and owners; every store must pass the contract suite in ``mks_hardening.testing``.

    Keys and credentials are strings of at most 64 ASCII characters. Every method raises ``BackendUnavailableError``
    if the store does not respond. The store must never remove an owner on its own. A store may implement an
    asynchronous version of each method (``asave_challenge`` and so on); without them, it is called in a worker
    thread.
    """

    def save_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Store the data of a challenge for ``ttl`` seconds."""
        ...

    def consume_challenge(self, key: str, /) -> bytes | None:
        """Return and delete the data of a challenge, for one caller only; ``None`` if it is gone."""
        ...

    def assign_owner(self, credential: str, user_id: str, /) -> str:
        """Make a user the owner of a credential that has none, atomically; return the owner."""
        ...

    def owner(self, credential: str, /) -> str | None:
        """Return the owner of a credential, or ``None``."""
        ...

    def release(self, credential: str, user_id: str, /) -> bool:
        """Delete a credential if it belongs to this user; return whether it did."""
        ...

    def ping(self) -> bool:
        """Return whether the store responds."""
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...
