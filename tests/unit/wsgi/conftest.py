"""Runs the tests of a module over both shells if it has ``WSGI_ONLY``: names of those without meaning in ASGI.

With ``IN_THREAD``, its applications run in worker threads over ASGI, as ``def`` views of frameworks do.
"""

from __future__ import annotations

import pytest

from edge_shells import shells_of, use_shell


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the shells it can run over."""
    shells = shells_of(metafunc.module, metafunc.function.__name__)
    if len(shells) > 1:
        metafunc.parametrize("shell", shells, indirect=True)


@pytest.fixture(autouse=True)
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shell of this test."""
    chosen: str = getattr(request, "param", "wsgi")
    use_shell(chosen, request.module, monkeypatch, in_thread=getattr(request.module, "IN_THREAD", False))
    return chosen
