"""Lazy exports of packages, and public names that were renamed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from mks_hardening._core.lazy_exports import deprecated_names, facade


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    home: Any = ModuleType("shop_errors")
    home.OrderError = type("OrderError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "shop_errors", home)
    made: Any = ModuleType("shop")
    made.__getattr__, made.__dir__, made.__all__ = facade(
        "shop", {"shop_errors": ["OrderError"]}, renamed={"OrderMistake": "OrderError"}
    )
    monkeypatch.setitem(sys.modules, "shop", made)
    return made


def test_a_former_name_is_the_current_one_with_a_warning(package: Any) -> None:
    with pytest.warns(DeprecationWarning, match=r"OrderMistake is now called OrderError") as caught:
        assert package.OrderMistake is package.OrderError
    assert [warning.filename for warning in caught] == [__file__]


def test_a_former_name_is_not_listed(package: Any) -> None:
    assert package.__all__ == dir(package) == ["OrderError"]


def test_an_unknown_name_is_an_attribute_error_without_a_warning(package: Any) -> None:
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = package.other


def test_a_module_without_lazy_names_has_former_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("shop_window")
    module.Notifier = object()
    module.__getattr__ = deprecated_names("shop_window", {"Bell": "Notifier"})
    monkeypatch.setitem(sys.modules, "shop_window", module)
    with pytest.warns(DeprecationWarning, match=r"shop_window\.Bell is now called Notifier") as caught:
        from shop_window import Bell  # type: ignore[import-not-found] # made above
    assert Bell is module.Notifier
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(AttributeError, match="no attribute 'Ball'"):
        _ = module.Ball
