"""A database transaction as a cache sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.checks import function as check_function
from mks_hardening._core.checks import offers, strings
from mks_hardening.cache._transaction_scope import TransactionScope, enter_scope, leave_scope

if TYPE_CHECKING:
    from mks_hardening.cache.base_cache import BaseCache

__all__ = ["CacheTransaction"]


class CacheTransaction:
    """Invalidates what a database transaction changes when it has ended; made by ``cache.transaction()``.

    Enter it around the transaction::

        with cache.transaction() as change, session.begin():
            article.title = "New"
            change.invalidate(tags=["articles"])

    Until it ends, cached functions called in this context compute what the transaction changes, and store nothing:
    their results may be rolled back, or come from a snapshot that is older than the last commit. A computation of
    another caller that began before the end is not stored. The invalidation is sent after an error too, because a
    COMMIT whose response was lost may have succeeded. If the process dies between the COMMIT and the invalidation,
    the old values remain until their ``ttl`` expires.

    With asyncio, use ``async with``.

    Args:
        cache: the cache.
        is_active: returns whether the database transaction is still active, for a database that does not report a
            ROLLBACK. By default, the transaction lasts until the end of the block, or until ``end``.

    Raises:
        ConfigurationError: it is not a cache of this package, or ``is_active`` is not a function.
    """

    def __init__(self, cache: BaseCache, *, is_active: Callable[[], object] | None = None) -> None:
        self._cache = offers(
            cache,
            "delete",
            "invalidate_tags",
            "adelete",
            "ainvalidate_tags",
            parameter="cache",
            kind="a cache",
        )
        if is_active is not None:
            check_function(is_active, parameter="is_active")
        self._scope = TransactionScope(is_active)
        self._tokens: list[Token[tuple[TransactionScope, ...]]] = []

    def invalidate(self, *keys: str, tags: Iterable[str] = ()) -> None:
        """Invalidate keys and tags at the end of the transaction; in this context, from now on.

        Args:
            keys: keys, for example ``function.cache_key(7)``.
            tags: tags of entries.

        Raises:
            ConfigurationError: a key or a tag is invalid.
        """
        named, tagged = strings(keys, parameter="keys"), check_tags(tags)
        self._scope.keys.update(named)
        self._scope.tags.update(tagged)

    @property
    def is_open(self) -> bool:
        """Whether the transaction has not ended."""
        return self._scope.is_open

    def begin(self) -> None:
        """Begin in this context, until ``end`` is called in any context."""
        enter_scope(self._scope)

    def end(self) -> None:
        """Invalidate; the transaction has ended. Calling it twice is safe."""
        self._scope.close()
        keys, tags = self._taken()
        if tags:
            self._cache.invalidate_tags(*tags)
        if keys:
            self._cache.delete(*keys)

    async def aend(self) -> None:
        """``end`` for asyncio."""
        self._scope.close()
        keys, tags = self._taken()
        if tags:
            await self._cache.ainvalidate_tags(*tags)
        if keys:
            await self._cache.adelete(*keys)

    def _taken(self) -> tuple[list[str], list[str]]:
        keys, tags = sorted(self._scope.keys), sorted(self._scope.tags)
        self._scope.keys.clear()
        self._scope.tags.clear()
        return keys, tags

    def _leave(self) -> None:
        if self._tokens:
            leave_scope(self._tokens.pop())

    def __enter__(self) -> Self:
        self._tokens.append(enter_scope(self._scope))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        self.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        await self.aend()

    def __repr__(self) -> str:
        return f"CacheTransaction({len(self._scope.keys)} keys, {len(self._scope.tags)} tags)"
