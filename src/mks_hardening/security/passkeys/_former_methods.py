"""Former method names of ``PasskeyStore``: still offered by our stores, and accepted from stores of users."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final, Protocol, cast

from mks_hardening._core.checks import offers
from mks_hardening._core.store_calls import acall_store

if TYPE_CHECKING:
    from mks_hardening.protocols import PasskeyStore

__all__ = ["FormerMethods", "with_current_methods"]


_FORMER: Final = ("keep_challenge", "take_challenge", "claim")
_ADVICE: Final = (
    "keep_challenge is now called save_challenge, take_challenge is now called consume_challenge, "
    "claim is now called assign_owner"
)


class FormerMethods:
    """Mixin with the former method names of a ``PasskeyStore``; each emits a ``DeprecationWarning``."""

    __slots__ = ()

    def keep_challenge(self: PasskeyStore, key: str, data: bytes, /, *, ttl: float) -> None:
        """Former name of ``save_challenge``; deprecated."""
        _warn("keep_challenge", "save_challenge")
        self.save_challenge(key, data, ttl=ttl)

    def take_challenge(self: PasskeyStore, key: str, /) -> bytes | None:
        """Former name of ``consume_challenge``; deprecated."""
        _warn("take_challenge", "consume_challenge")
        return self.consume_challenge(key)

    def claim(self: PasskeyStore, credential: str, user_id: str, /) -> str:
        """Former name of ``assign_owner``; deprecated."""
        _warn("claim", "assign_owner")
        return self.assign_owner(credential, user_id)

    async def akeep_challenge(self: PasskeyStore, key: str, data: bytes, /, *, ttl: float) -> None:
        """Former name of ``asave_challenge``; deprecated."""
        _warn("akeep_challenge", "asave_challenge")
        await acall_store(self.save_challenge, key, data, ttl=ttl)

    async def atake_challenge(self: PasskeyStore, key: str, /) -> bytes | None:
        """Former name of ``aconsume_challenge``; deprecated."""
        _warn("atake_challenge", "aconsume_challenge")
        return await acall_store(self.consume_challenge, key)

    async def aclaim(self: PasskeyStore, credential: str, user_id: str, /) -> str:
        """Former name of ``aassign_owner``; deprecated."""
        _warn("aclaim", "aassign_owner")
        return await acall_store(self.assign_owner, credential, user_id)


def with_current_methods(store: PasskeyStore) -> PasskeyStore:
    """Return a store with the current method names.

    A store that defines the former ones, or a subclass of our stores that overrides them, is wrapped.

    Raises:
        ConfigurationError: it has neither.
    """
    if not _defines_former_methods(store):
        return offers(
            store,
            "save_challenge",
            "consume_challenge",
            "assign_owner",
            parameter="passkey_store",
            kind="a PasskeyStore",
        )
    message = f"{type(store).__name__} is a PasskeyStore with former method names: {_ADVICE}"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return _StoreWithFormerMethods(cast("_FormerPasskeyStore", store))


def _defines_former_methods(store: object) -> bool:
    if isinstance(store, FormerMethods):
        ours, theirs = vars(FormerMethods), type(store)
        return any(
            getattr(theirs, name) is not ours[name] for name in (*_FORMER, *(f"a{one}" for one in _FORMER))
        )
    current = hasattr(store, "save_challenge")
    return not current and all(callable(getattr(store, name, None)) for name in _FORMER)


class _FormerPasskeyStore(Protocol):
    def keep_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None: ...

    def take_challenge(self, key: str, /) -> bytes | None: ...

    def claim(self, credential: str, user_id: str, /) -> str: ...

    def owner(self, credential: str, /) -> str | None: ...

    def release(self, credential: str, user_id: str, /) -> bool: ...

    def ping(self) -> bool: ...

    def close(self) -> None: ...


class _StoreWithFormerMethods:
    """A ``PasskeyStore`` that calls the former methods of another one."""

    def __init__(self, store: _FormerPasskeyStore) -> None:
        self._store = store

    def save_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        self._store.keep_challenge(key, data, ttl=ttl)

    def consume_challenge(self, key: str, /) -> bytes | None:
        return self._store.take_challenge(key)

    def assign_owner(self, credential: str, user_id: str, /) -> str:
        return self._store.claim(credential, user_id)

    def owner(self, credential: str, /) -> str | None:
        return self._store.owner(credential)

    def release(self, credential: str, user_id: str, /) -> bool:
        return self._store.release(credential, user_id)

    def ping(self) -> bool:
        return self._store.ping()

    def close(self) -> None:
        self._store.close()

    async def asave_challenge(self, key: str, data: bytes, /, *, ttl: float) -> None:
        await acall_store(self._store.keep_challenge, key, data, ttl=ttl)

    async def aconsume_challenge(self, key: str, /) -> bytes | None:
        return await acall_store(self._store.take_challenge, key)

    async def aassign_owner(self, credential: str, user_id: str, /) -> str:
        return await acall_store(self._store.claim, credential, user_id)

    async def aowner(self, credential: str, /) -> str | None:
        return await acall_store(self._store.owner, credential)

    async def arelease(self, credential: str, user_id: str, /) -> bool:
        return await acall_store(self._store.release, credential, user_id)


def _warn(former: str, current: str) -> None:
    warnings.warn(f"{former} is now called {current}", DeprecationWarning, stacklevel=3)
