"""Variables that an application declares itself, in one object with those of the package."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from mks_hardening.exceptions import ConfigurationError, SettingsError, SettingsWarning
from mks_hardening.settings import ApplicationSettings, HardeningSettings, setting, variables


class ShopSettings(ApplicationSettings, prefix="SHOP_"):
    currency: Literal["JPY", "EUR"] = setting("Currency of all prices.", default="JPY")
    page_size: int = setting("Articles of one page.", default=20, minimum=1, maximum=200)
    discount: float = setting("Part of the price.", default=0.0, minimum=0, maximum=0.9)
    open: bool = setting("Whether orders are accepted.", default=True)
    cart_age: timedelta = setting("How long carts are kept.", default=timedelta(days=7))
    wait: float = setting("Seconds to wait.", default=1.5, kind="duration")
    picture_size: int = setting("Largest picture.", default=1024, kind="size", maximum=10**9)
    pictures: Path | None = setting("Folder of pictures.", default=None)
    bank: str | None = setting("URL of the bank.", default=None, kind="url", name="BANK_URL")
    tags: tuple[str, ...] = setting("Tags to show.", default=())
    languages: frozenset[Literal["ja", "en"]] = setting("Languages.", default=frozenset({"ja"}))
    colour: int = setting(
        "Colour of the page.", default=17, parse=lambda text: int(text, 16), form="a hexadecimal number"
    )
    payment_key: str = setting("Key of the payment provider.", secret=True)
    pin: int = setting("Pin.", default=1, parse=int, form="a pin", secret=True)
    mail: str = setting("Sender of mails.", default="shop@localhost", required_in_production=True)
    started: bool = field(default=False)

    def cross_check_errors(self) -> Iterator[str]:
        if self.discount and self.currency == "JPY":
            yield "SHOP_DISCOUNT must be 0 for SHOP_CURRENCY=JPY"
        if self.hardening.core.redis_url is None and self.page_size == 13:
            yield "MKS_REDIS_URL is missing: it must be set for SHOP_PAGE_SIZE=13"


NEEDED = {"MKS_ENV": "test", "SHOP_PAYMENT_KEY": "key"}


def errors_of(kind: type[ApplicationSettings] = ShopSettings, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        kind.from_env(environ=environ)
    return caught.value.errors


def test_defaults() -> None:
    settings = ShopSettings.from_env(environ=NEEDED)
    assert settings == ShopSettings(
        hardening=HardeningSettings.from_env(environ={"MKS_ENV": "test"}), payment_key="key"
    )
    assert settings.cart_age == timedelta(days=7)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("SHOP_CURRENCY", "eur", "currency", "EUR"),
        ("SHOP_PAGE_SIZE", "200", "page_size", 200),
        ("SHOP_OPEN", "no", "open", False),
        ("SHOP_CART_AGE", "90m", "cart_age", timedelta(minutes=90)),
        ("SHOP_WAIT", "250ms", "wait", 0.25),
        ("SHOP_PICTURE_SIZE", "64KiB", "picture_size", 65_536),
        ("SHOP_PICTURES", "/srv/pictures", "pictures", Path("/srv/pictures")),
        ("BANK_URL", "https://bank.example/pay", "bank", "https://bank.example/pay"),
        ("SHOP_TAGS", "new, sale", "tags", ("new", "sale")),
        ("SHOP_LANGUAGES", "en,ja,en", "languages", frozenset({"ja", "en"})),
        ("SHOP_COLOUR", "ff", "colour", 255),
        ("SHOP_MAIL", "", "mail", "shop@localhost"),
    ],
)
def test_the_type_decides_how_a_text_is_read(name: str, text: str, field: str, value: object) -> None:
    settings = ShopSettings.from_env(environ={**NEEDED, name: text})
    assert getattr(settings, field) == value
    assert type(getattr(settings, field)) is type(value)


def test_the_variables_of_the_package_are_read_too() -> None:
    settings = ShopSettings.from_env(environ={**NEEDED, "MKS_ALLOWED_HOSTS": "shop.example"})
    assert settings.hardening.wsgi.allowed_hosts == ("shop.example",)
    other = ShopSettings.from_env(
        environ={"ACME_ENV": "test", "SHOP_PAYMENT_KEY": "key"}, hardening_prefix="ACME_"
    )
    assert other.hardening.core.environment == "test"


def test_all_errors_of_both_come_at_once_and_show_no_secret() -> None:
    assert errors_of(
        MKS_LOG_LEVEL="LOUD",
        SHOP_CURRENCY="USD",
        SHOP_PAGE_SIZE="201",
        SHOP_DISCOUNT="1",
        SHOP_CART_AGE="7",
        SHOP_LANGUAGES="ja,fr",
        SHOP_COLOUR="red",
        SHOP_PIN="hunter2",
    ) == (
        "MKS_LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
        "SHOP_CURRENCY must be one of JPY, EUR",
        "SHOP_PAGE_SIZE must be a whole number from 1 to 200",
        "SHOP_DISCOUNT must be a number from 0 to 0.9",
        "SHOP_CART_AGE must be a duration such as 250ms, 30s, 15m, 8h or 7d, from 0s to 36500d",
        "SHOP_LANGUAGES must be comma-separated items, each one of ja, en; 'fr' is not",
        "SHOP_COLOUR must be a hexadecimal number: invalid literal for int() with base 16: 'red'",
        "SHOP_PAYMENT_KEY is missing: Key of the payment provider.",
        "SHOP_PIN must be a pin",
        "SHOP_MAIL is missing: Sender of mails.",
    )


def test_combinations_are_checked_with_the_rest() -> None:
    assert errors_of(**NEEDED, SHOP_DISCOUNT="0.5", SHOP_TAGS=",") == (
        "SHOP_TAGS must be comma-separated items, none of them empty",
        "SHOP_DISCOUNT must be 0 for SHOP_CURRENCY=JPY",
    )


def test_a_combination_with_an_invalid_variable_is_not_reported_twice(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    found = errors_of(**NEEDED, SHOP_PAGE_SIZE="13", MKS_REDIS_URL_FILE=str(missing))
    assert [error.split()[0] for error in found] == ["MKS_REDIS_URL_FILE"]


def test_required_in_production_only() -> None:
    production = {"SHOP_PAYMENT_KEY": "key"}
    assert errors_of(**production) == ("SHOP_MAIL is missing: Sender of mails.",)
    settings = ShopSettings.from_env(environ={**production, "SHOP_MAIL": "a@shop.example"})
    assert settings.mail == "a@shop.example"


def test_secrets_come_from_files_and_are_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2\n")
    settings = ShopSettings.from_env(environ={"MKS_ENV": "test", "SHOP_PAYMENT_KEY_FILE": str(file)})
    assert settings.payment_key == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "page_size=20" in repr(settings)
    assert errors_of(**NEEDED, SHOP_PAYMENT_KEY_FILE=str(file)) == (
        "SHOP_PAYMENT_KEY and SHOP_PAYMENT_KEY_FILE are both set; keep one",
    )


def test_unknown_variables_of_both_prefixes_are_warned_about() -> None:
    wrong = {"SHOP_CURENCY": "EUR", "MKS_LOGLEVEL": "INFO", "SHOP_OPEN_FILE": "x"}
    with pytest.warns(SettingsWarning) as caught:
        ShopSettings.from_env(environ={**NEEDED, **wrong})
    assert [str(each.message) for each in caught] == [
        "unknown variable MKS_LOGLEVEL; did you mean MKS_LOG_LEVEL?",
        "unknown variable SHOP_CURENCY; did you mean SHOP_CURRENCY?",
        "unknown variable SHOP_OPEN_FILE; did you mean SHOP_OPEN?",
    ]
    assert {Path(each.filename).name for each in caught} == {Path(__file__).name}


def test_declared_variables_are_known_to_the_settings_of_the_package() -> None:
    class WithTheSamePrefix(ApplicationSettings, prefix="MKS_"):
        cranes: int = setting("Number of cranes.", default=3)
        crane_key: str | None = setting("Key of the cranes.", default=None, secret=True)

    own = {"MKS_CRANES": "4", "MKS_CRANE_KEY_FILE": "/nowhere"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HardeningSettings.from_env(environ=own)
        assert WithTheSamePrefix.from_env(environ={"MKS_CRANES": "4"}).cranes == 4


def test_the_table_has_the_columns_of_ours() -> None:
    rows = {row.name: row for row in ShopSettings.variables()}
    assert [row.name for row in rows.values()][:2] == ["SHOP_CURRENCY", "SHOP_PAGE_SIZE"]
    assert "SHOP_STARTED" not in rows
    size, key, mail = rows["SHOP_PAGE_SIZE"], rows["SHOP_PAYMENT_KEY"], rows["SHOP_MAIL"]
    assert (size.area, size.form, size.default_text) == ("application", "whole number, 1 to 200", "20")
    assert (key.secret, key.required, mail.required, size.required) == (True, "always", "production", "")
    assert {row.required for row in variables()} == {""}
    assert (rows["SHOP_COLOUR"].default, rows["SHOP_COLOUR"].default_text) == (17, "")
    for row in rows.values():
        if row.default_text and not row.secret:
            settings = ShopSettings.from_env(environ={**NEEDED, row.name: row.default_text})
            assert getattr(settings, row.field) == row.default


def test_it_is_a_frozen_value() -> None:
    settings = ShopSettings.from_env(environ=NEEDED)
    changed = replace(settings, page_size=30)
    assert (changed.page_size, settings.page_size) == (30, 20)
    assert changed != settings
    assert hash(replace(changed, page_size=20)) == hash(settings)
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings  # noqa: S301 - our bytes
    with pytest.raises(FrozenInstanceError):
        settings.page_size = 3  # type: ignore[misc]  # what the test is about
    assert [each.name for each in fields(settings)][:2] == ["hardening", "currency"]


def test_a_subclass_inherits_prefix_and_variables() -> None:
    class LargeShopSettings(ShopSettings):
        branches: int = setting("Number of branches.", default=2)

    settings = LargeShopSettings.from_env(environ={**NEEDED, "SHOP_BRANCHES": "5", "SHOP_PAGE_SIZE": "3"})
    assert (settings.branches, settings.page_size) == (5, 3)
    assert "SHOP_BRANCHES" not in {row.name for row in ShopSettings.variables()}


def declare(prefix: str | None = "DECLARED_", annotation: object = int, **options: Any) -> type[Any]:
    options = {"default": 3, **options}
    namespace = {
        "__annotations__": {"size": annotation},
        "size": setting("Size.", **options),
        "__module__": __name__,
    }
    bases = (ApplicationSettings,)
    return type("Declared", bases, namespace) if prefix is None else type(
        "Declared", bases, namespace, prefix=prefix
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "smallest", "largest", "too_small", "too_large"),
    [
        ({"minimum": 2, "maximum": 4}, "2", "4", "1", "5"),
        ({"annotation": float, "default": 3.0, "minimum": 2.5, "maximum": 4.5}, "2.5", "4.5", "2.4", "4.6"),
        ({"kind": "size", "minimum": 2, "maximum": 4096}, "2", "4KiB", "1", "4097"),
        (
            {"annotation": float, "default": 3.0, "kind": "duration", "minimum": 2, "maximum": 60},
            *("2s", "1m", "1999ms", "61s"),
        ),
        (
            {
                "annotation": timedelta,
                "default": timedelta(seconds=3),
                "minimum": timedelta(seconds=2),
                "maximum": 60,
            },
            *("2s", "1m", "1999ms", "61s"),
        ),
    ],
    ids=["int", "float", "size", "duration", "timedelta"],
)
def test_the_bounds_of_each_kind_hold(
    options: dict[str, Any], smallest: str, largest: str, too_small: str, too_large: str
) -> None:
    kind = declare(**options)
    for text in (smallest, largest):
        kind.from_env(environ={"MKS_ENV": "test", "DECLARED_SIZE": text})
    for text in (too_small, too_large):
        (error,) = errors_of(kind, MKS_ENV="test", DECLARED_SIZE=text)
        assert "DECLARED_SIZE" in error


def test_a_declared_url_is_one_of_a_web_server() -> None:
    kind = declare(annotation=str, default="", kind="url")
    kind.from_env(environ={"MKS_ENV": "test", "DECLARED_SIZE": "https://bank.example"})
    assert len(errors_of(kind, MKS_ENV="test", DECLARED_SIZE="ftp://bank.example")) == 1


def test_values_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        declare()(HardeningSettings.from_env(environ={"MKS_ENV": "test"}), 3)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"prefix": "shop"}, "prefix"),
        ({"minimum": 5}, "default"),
        ({"minimum": "1"}, "minimum"),
        ({"kind": "weight"}, "kind"),
        ({"name": "shop_size"}, "name"),
    ],
)
def test_a_wrong_declaration_names_the_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        declare(**options)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": None}, "Declared must have a prefix"),
        ({"prefix": "shop"}, "prefix must be capitals"),
        ({"prefix": ""}, "prefix must be capitals"),
        ({"prefix": 3}, "prefix must be capitals"),
        ({"annotation": complex}, "Declared.size: the type <class 'complex'> has no parser: use bool, int"),
        ({"annotation": int | str}, "has no parser"),
        ({"annotation": dict[str, int]}, "has no parser"),
        ({"annotation": "Unimported"}, "'Unimported' is not defined"),
        ({"minimum": 5}, "the default 3 must be a value of the form: whole number, at least 5"),
        ({"maximum": 2.5}, "whole numbers, not 2.5"),
        ({"minimum": "1"}, "must be numbers, not '1'"),
        ({"annotation": str, "default": "a", "minimum": 1}, "for int, float and timedelta only"),
        ({"annotation": str, "default": 3}, "the default 3 must be"),
        ({"kind": "duration"}, "kind 'duration' has no parser here"),
        ({"kind": "weight"}, "kind must be"),
        ({"parse": int}, "parse and form must be given together"),
        ({"form": "a number"}, "parse and form must be given together"),
        ({"parse": int, "form": "x", "minimum": 1}, "parse replaces kind, minimum and maximum"),
        ({"name": "shop_size"}, "name must be the whole name of a variable"),
        ({"name": "MKS_LOG_LEVEL"}, "MKS_LOG_LEVEL is already that of logging.level of mks_hardening"),
        ({"name": "DATABASE_URL_FILE"}, "DATABASE_URL_FILE is already that of db.url of mks_hardening"),
        ({"prefix": "MKS_SESSION_MAX_", "name": "MKS_SESSION_MAX"}, "is already that of wsgi.session_max"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        declare(**options)
    assert message in str(caught.value)


def test_required_in_production_needs_a_default() -> None:
    required: Any = {"required_in_production": True}
    with pytest.raises(ConfigurationError, match="requires a default"):
        setting("Size.", **required)


def test_two_fields_with_one_variable_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="TWICE_KEY_FILE is already that of another field"):

        class Twice(ApplicationSettings, prefix="TWICE_"):
            key: str = setting("Key.", secret=True)
            key_file: str = setting("File.")


def test_a_variable_of_ours_under_another_prefix_is_refused_when_it_is_read() -> None:
    class Acme(ApplicationSettings, prefix="ACME_"):
        env: str = setting("Environment.", default="x")

    with pytest.raises(ConfigurationError, match=r"ACME_ENV is already that of core\.environment"):
        Acme.from_env(environ={}, hardening_prefix="ACME_")


def test_a_dataclass_decorator_is_refused() -> None:
    with pytest.raises(TypeError):

        @dataclass(frozen=True, kw_only=True)
        class Decorated(ApplicationSettings, prefix="DECORATED_"):
            key: str = setting("Key.", secret=True)


def test_the_environment_is_a_mapping() -> None:
    wrong: Any = ["SHOP_OPEN=1"]
    with pytest.raises(ConfigurationError, match="environ must be a mapping of variables, not list"):
        ShopSettings.from_env(environ=wrong)
