"""Cache invalidations after the COMMIT of a Django transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import strings
from mks_hardening.cache import BaseCache, CacheTransaction
from mks_hardening.contrib.django_app._django import FromDjango, connection_of
from mks_hardening.exceptions import ConfigurationError

__all__ = ["invalidate_on_commit"]

_CHANGES: Final = "_mks_hardening_cache_changes"


def invalidate_on_commit(
    *keys: str, cache: FromDjango, tags: Iterable[str] = (), using: str | None = None
) -> None:
    """Invalidate entries of a cache when the transaction of Django has been committed; at once if there is none.

    Call it in ``transaction.atomic()``, before or after the change::

        with transaction.atomic():
            article.save()
            invalidate_on_commit(cache=pages, tags=["articles"])

    Until the transaction ends, cached functions called in this context compute what it changes, and store nothing
    (see ``CacheTransaction``). A ROLLBACK, also to a savepoint, discards what was called after it began. Hooks that
    you registered earlier with ``transaction.on_commit`` run before the invalidation. If the connection is lost
    during the COMMIT, Django runs no hooks: enter ``cache.transaction()`` around ``atomic()`` to invalidate then as
    well.

    Args:
        keys: keys, for example ``function.cache_key(7)``; for a cache of Django, its keys without prefix.
        cache: a cache of ``mks_hardening.cache``, or one of Django with the backend ``HardenedCache``.
        tags: tags of entries.
        using: alias of the database; by default the default one.

    Raises:
        ConfigurationError: not such a cache, or an invalid key or tag.
    """
    inner: object = getattr(cache, "inner", cache)
    if not isinstance(inner, BaseCache):
        raise ConfigurationError(
            "cache must be a cache of this package, or one of Django whose backend is HardenedCache, not "
            f"{type(cache).__name__}",
            parameter="cache",
        )
    named = strings(keys, parameter="keys")
    if inner is not cache:
        named = tuple(cache.make_and_validate_key(key) for key in named)
    connection = connection_of(using)

    def is_waiting() -> bool:
        # Django reports no ROLLBACK, but drops the hooks.
        return any(function is end for _savepoints, function, _robust in connection.run_on_commit)

    def end() -> None:
        change.end()

    change = CacheTransaction(inner, is_active=is_waiting)
    change.invalidate(*named, tags=tags)
    present = _open_change(connection, inner)
    if present is not None:
        present.invalidate(*named, tags=tags)
        return
    connection.on_commit(end, robust=True)
    if connection.in_atomic_block:
        getattr(connection, _CHANGES).append((inner, tuple(connection.savepoint_ids), change))
        change.begin()


def _open_change(connection: FromDjango, cache: BaseCache) -> CacheTransaction | None:
    """Return the change of a cache in the current transaction and savepoint, if there is one."""
    known: list[tuple[BaseCache, tuple[str, ...], CacheTransaction]] = [
        entry for entry in getattr(connection, _CHANGES, ()) if entry[2].is_open
    ]
    setattr(connection, _CHANGES, known)
    inside = tuple(connection.savepoint_ids)
    for of, savepoints, change in known:
        if of is cache and savepoints == inside:
            return change
    return None
