"""The names of the area."""

from __future__ import annotations

import pytest

from mks_hardening import wsgi


def test_every_name_can_be_had() -> None:
    assert dir(wsgi) == sorted(wsgi.__all__)
    assert all(getattr(wsgi, name).__name__ == name for name in wsgi.__all__)


def test_other_names_cannot() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Middleware'"):
        wsgi.Middleware  # type: ignore[attr-defined]  # noqa: B018
