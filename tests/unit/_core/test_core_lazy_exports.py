"""Lazy exports of packages."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from mks_hardening._core.lazy_exports import facade


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    home: Any = ModuleType("shop_errors")
    home.OrderError = type("OrderError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "shop_errors", home)
    made: Any = ModuleType("shop")
    made.__getattr__, made.__dir__, made.__all__ = facade("shop", {"shop_errors": ["OrderError"]})
    monkeypatch.setitem(sys.modules, "shop", made)
    return made


def test_a_listed_name_is_that_of_its_module(package: Any) -> None:
    assert package.__all__ == dir(package) == ["OrderError"]
    assert package.OrderError is sys.modules["shop_errors"].OrderError
    assert package.OrderError.__module__ == "shop"


def test_an_unknown_name_is_an_attribute_error(package: Any) -> None:
    with pytest.raises(AttributeError, match="module 'shop' has no attribute 'other'"):
        _ = package.other
