from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

from mks_hardening.settings import ApplicationSettings, setting


class ShopSettings(ApplicationSettings, prefix="SHOP_"):
    currency: Literal["JPY", "EUR"] = setting("Currency of all prices.", default="JPY")
    page_size: int = setting("Articles of one page.", default=20, minimum=1, maximum=200)
    cart_age: timedelta = setting("How long carts are kept.", default=timedelta(days=7))
    picture_size: int = setting("Largest picture.", default=10_000_000, kind="size")
    pictures: Path = setting("Folder of pictures.", default=Path("pictures"), required_in_production=True)
    payment_key: str = setting("Key of the payment provider.", secret=True)

    def cross_check_errors(self) -> Iterator[str]:
        if self.hardening.db.url is None:
            yield "DATABASE_URL is missing: the shop needs a database"
