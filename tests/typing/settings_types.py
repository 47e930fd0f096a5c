"""What type checkers know of the settings that an application declares; never run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, assert_type

from mks_hardening.settings import ApplicationSettings, HardeningSettings, setting


class ShopSettings(ApplicationSettings, prefix="SHOP_"):
    currency: Literal["JPY", "EUR"] = setting("Currency of all prices.", default="JPY")
    page_size: int = setting("Articles of one page.", default=20, minimum=1, maximum=200)
    cart_age: timedelta = setting("How long carts are kept.", default=timedelta(days=7))
    pictures: Path | None = setting("Folder of pictures.", default=None)
    languages: frozenset[str] = setting("Languages.", default=frozenset({"ja"}))
    colour: int = setting("Colour.", default=0, parse=lambda text: int(text, 16), form="a number")
    payment_key: str = setting("Key of the payment provider.", secret=True)


class WrongSettings(ApplicationSettings, prefix="WRONG_"):
    page_size: int = setting("Articles of one page.", default="20")  # type: ignore[assignment]
    colour: int = setting("Colour.", default=0, parse=str, form="a number")  # type: ignore[arg-type]


settings = ShopSettings.from_env(environ={})
assert_type(settings, ShopSettings)
assert_type(settings.hardening, HardeningSettings)
assert_type(settings.currency, Literal["JPY", "EUR"])
assert_type(settings.page_size, int)
assert_type(settings.pictures, Path | None)
settings.page_size = 3  # type: ignore[misc]
ShopSettings(payment_key="key", page_size=3)
ShopSettings()  # type: ignore[call-arg]
ShopSettings(payment_key="key", page_size="3")  # type: ignore[arg-type]
