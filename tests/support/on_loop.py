"""Calls asynchronous methods (prefix ``a``) from threads, so that suites for ``def`` also test ``async def``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest


class OnLoop:
    """Forwards each call to the asynchronous version of the method, on an event loop in a separate thread."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        twin = getattr(self.wrapped, "a" + name)

        def call(*args: Any, **options: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(twin(*args, **options), self._loop).result(30)

        return call

    def close(self) -> None:
        """Close what belongs to the loop, and the loop."""
        if self._loop.is_closed():
            return
        if hasattr(self.wrapped, "aclose"):
            asyncio.run_coroutine_threadsafe(self.wrapped.aclose(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


class _StoreOnLoop(OnLoop):
    """A store; methods without an asynchronous version are called directly."""

    def ping(self) -> bool:
        return bool(self.wrapped.ping())

    def count(self) -> int:
        return int(self.wrapped.count())


class TwinsOfStores:
    """Extends a contract suite: calls the asynchronous methods of each store from ``over``, and closes it."""

    @pytest.fixture(autouse=True)
    def _loops(self) -> Iterator[None]:
        self.made: list[OnLoop] = []
        yield
        for store in self.made:
            store.close()

    def over(self) -> Any:
        raise NotImplementedError

    def make_store(self) -> Any:
        self.made.append(_StoreOnLoop(self.over()))
        return self.made[-1]
