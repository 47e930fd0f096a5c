"""The names of the area, which are those of ``mks_hardening.wsgi``."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening._core.store_calls import acall_store
from mks_hardening.testing import SessionStoreContract
from mks_hardening.wsgi import MemorySessionStore
from on_loop import OnLoop

CLASSES = [name for name in asgi.__all__ if name.endswith("Middleware")]

# WebSockets, and waiting without a thread.
ASGI_ONLY = {"recheck_sockets", "count_sockets", "wait", "most_waiting"}


def test_both_areas_have_the_same_names() -> None:
    assert dir(asgi) == sorted(asgi.__all__)
    assert {*asgi.__all__} == {*wsgi.__all__}
    shared = [name for name in asgi.__all__ if name not in CLASSES]
    assert all(getattr(asgi, name) is getattr(wsgi, name) for name in shared)
    with pytest.raises(AttributeError, match="no attribute 'Middleware'"):
        asgi.Middleware  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_the_parameters_of_the_other(name: str) -> None:
    def parameters(area: Any) -> dict[str, Any]:
        found = inspect.signature(getattr(area, name)).parameters.values()
        return {each.name: (each.default, each.kind) for each in found if each.name not in ASGI_ONLY}

    assert parameters(asgi) == parameters(wsgi)
    assert parameters(asgi)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_the_public_methods_of_the_other(name: str) -> None:
    def public(area: Any) -> set[str]:
        return {method for method in vars(getattr(area, name)) if not method.startswith("_")}

    internal = {"header_lower", "identify", "log"}  # of the WSGI exchange
    assert public(wsgi) - internal <= public(asgi)


def test_no_shell_imports_the_other() -> None:
    names = ", ".join(CLASSES)
    for mine, other in (("asgi", "wsgi"), ("wsgi", "asgi")):
        program = (
            f"from mks_hardening.{mine} import {names}; import sys; "
            f"print([name for name in sys.modules if name.startswith('mks_hardening.{other}')])"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"


class ThroughThreads(OnLoop):
    """A store without asyncio methods, as sessions on a loop call it."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.wrapped, name)

        def call(*args: Any, **options: Any) -> Any:
            import asyncio

            async def play() -> Any:
                return await acall_store(lambda: method(*args, **options))

            return asyncio.run_coroutine_threadsafe(play(), self._loop).result(30)

        return call


class TestPlainStoresOnALoop(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def _loops(self) -> Any:
        self._made: list[OnLoop] = []
        yield
        for store in self._made:
            store.close()

    def make_store(self) -> Any:
        self._made.append(ThroughThreads(MemorySessionStore()))
        return self._made[-1]

    def test_the_async_twins_are_the_same_store(self) -> None:
        """It has none."""
