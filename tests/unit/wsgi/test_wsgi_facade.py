"""The names of the area."""

from __future__ import annotations

import pytest

from mks_hardening import wsgi
from mks_hardening.wsgi import environ_keys


def test_every_name_can_be_had() -> None:
    assert dir(wsgi) == sorted(wsgi.__all__)
    things = {name: getattr(wsgi, name) for name in wsgi.__all__}
    assert all(isinstance(thing, (str, tuple)) or thing.__name__ == name for name, thing in things.items())


def test_every_key_of_the_environ_is_listed_once() -> None:
    assert set(environ_keys.__all__) == {name for name in wsgi.__all__ if name.endswith("_KEY")}
    assert len({getattr(environ_keys, name) for name in environ_keys.__all__}) == len(environ_keys.__all__)


def test_other_names_cannot() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Middleware'"):
        wsgi.Middleware  # type: ignore[attr-defined]  # noqa: B018
