"""Second factors at rest."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["PasskeyStore", "StoredFactor", "TwoFactorStore"]


class StoredFactor(NamedTuple):
    """The record of one user's second factor, as a store keeps it.

    Attributes:
        version: changes with every write.
        data: the record; opaque to the store.
    """

    version: str
    data: bytes


class TwoFactorStore(Protocol):
    """Keeps second factors; see ``mks_hardening.testing`` for the contract suite every store must pass.

    One opaque record a user, changed by compare-and-set. Every method raises ``BackendUnavailableError`` when the
    store did not answer; a record must never be dropped by itself (no expiry, no eviction). A store may have
    ``aload``, ``areplace`` and ``ascan`` for asyncio; without them it is asked in a worker thread there.
    """

    def load(self, user_id: str, /) -> StoredFactor | None:
        """The record of a user as last written, or ``None``."""
        ...

    def replace(self, user_id: str, data: bytes | None, /, *, expected: str | None, version: str) -> bool:
        """Write a record (``None`` removes it) if its version is still the expected one (``None``: no record).

        Atomic. ``version`` is a new random text for what is written; a write that finds it in place already is a
        repetition and true, so that a write whose answer was lost may be sent again.
        """
        ...

    def scan(self, cursor: str | None, /, *, limit: int) -> tuple[list[str], str | None]:
        """Some user ids, about ``limit``, and the cursor to go on with; ``None`` at the end.

        Every user that has a record from the first call to the last is seen at least once.
        """
        ...

    def ping(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...


class PasskeyStore(Protocol):
    """Keeps challenges and owners of passkeys; see ``mks_hardening.testing`` for the contract suite.

    Keys and credentials are texts of at most 64 ASCII characters. Every method raises ``BackendUnavailableError``
    when the store did not answer; an owner must never be dropped by itself. A store may have a twin for asyncio of
    each method (``akeep_challenge`` and so on); without them it is asked in a worker thread there.
    """

    def keep_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        """Keep what belongs to a challenge for so many seconds."""
        ...

    def take_challenge(self, key: str, /) -> bytes | None:
        """What belongs to a challenge, once: of many that ask, one gets it. ``None`` when it is gone."""
        ...

    def claim(self, credential: str, user_id: str, /) -> str:
        """Make a user the owner of a credential that has none, atomically; who the owner is."""
        ...

    def owner(self, credential: str, /) -> str | None:
        """Whose a credential is."""
        ...

    def release(self, credential: str, user_id: str, /) -> bool:
        """Forget a credential if it is this user's; whether it was."""
        ...

    def ping(self) -> bool:
        """Whether the store answers."""
        ...

    def close(self) -> None:
        """Release connections; harmless when called twice."""
        ...
