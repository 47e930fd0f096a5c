"""Invalidations that are delayed until the end of a transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self

from mks_hardening._core.checks import function as check_function
from mks_hardening._core.operations import require_sync_result

__all__ = ["AfterCommit"]

P = ParamSpec("P")


class AfterCommit:
    """Calls to make after a transaction has ended, for example invalidations of what it changes.

    An invalidation before the COMMIT has no lasting effect: a reader in between computes the old value and stores
    it again. Enter the context manager around the transaction, or call ``run`` after it::

        with AfterCommit() as later, connection.begin():
            connection.execute(change)
            later.add(cache.invalidate_tags, "articles")
            later.add(article.invalidate, 7)

    With asyncio, use ``async with``, methods that begin with ``a``, and ``arun``. For a session of SQLAlchemy, use
    ``mks_hardening.contrib.sqlalchemy_session.after_commit``. The calls are made after an error too: an unnecessary
    invalidation costs one computation. If the process dies between the COMMIT and the calls, the old value remains
    until its ``ttl`` expires.
    """

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []

    def add(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call the function with these arguments after the transaction has ended."""
        self._calls.append(
            partial(check_function(function, parameter="function", may_be_async=True), *args, **kwargs)
        )

    def run(self) -> None:
        """Make the calls once, in order; all of them, even if one raises an error.

        Raises:
            ConfigurationError: a function was ``async def``; use ``arun``.
        """
        error = None
        while self._calls:
            try:
                require_sync_result(self._calls.pop(0)())
            except Exception as raised:  # noqa: BLE001 - the first one is raised below
                error = error or raised
        if error is not None:
            raise error

    async def arun(self) -> None:
        """``run`` for asyncio; awaits awaitable results."""
        error = None
        while self._calls:
            try:
                answer = self._calls.pop(0)()
                if isinstance(answer, Awaitable):
                    await answer
            except Exception as raised:  # noqa: BLE001 - as in run
                error = error or raised
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.arun()

    def __repr__(self) -> str:
        return f"AfterCommit({len(self._calls)} waiting)"
