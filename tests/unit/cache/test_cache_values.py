"""Values of declared types: what comes back as it was, what is refused, and what another declaration means."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from fakeredis import FakeRedis

from mks_hardening.cache import BaseCache, MemoryCache, RedisCache, TieredCache, cached
from mks_hardening.exceptions import ConfigurationError

T = TypeVar("T")
Number = NewType("Number", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    number: int
    name: str
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Order:
    id: UUID
    made: datetime
    price: Decimal
    items: tuple[Item, ...]
    colours: frozenset[Colour]
    note: str | None = None


@dataclass(eq=False)
class ByIdentity:
    number: float


@dataclass
class Page(Generic[T]):
    rows: list[T]
    total: int


@dataclass
class Tree:
    name: str
    below: list[Tree]


@dataclass
class Open:
    anything: Any


class Row(msgspec.Struct):
    id: int
    day: date
    title: str = ""


class Pair(NamedTuple):
    left: int
    right: Row


class Typed(TypedDict):
    id: int
    colour: Colour
    note: NotRequired[str]


class Model(pydantic.BaseModel):
    id: int
    made: datetime
    mail: str = pydantic.Field(default="", alias="eMail")
    rows: list[Item] = []


class Hidden(pydantic.BaseModel):
    id: int
    _secret: int = pydantic.PrivateAttr(default=0)


class Excluded(pydantic.BaseModel):
    id: int
    note: str = pydantic.Field(default="", exclude=True)


class Grows(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    @classmethod
    def _longer(cls, text: str) -> str:
        return text + "!"


MOMENT = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
TOKYO = datetime(2026, 5, 1, 12, 30, tzinfo=ZoneInfo("Asia/Tokyo"))
ID = UUID(int=7)


def _order(made: datetime) -> Order:
    return Order(ID, made, Decimal("1.50"), (Item(1, "鉄筋"), Item(2, "")), frozenset({Colour.RED}))


VALUES: list[tuple[Any, object]] = [
    (Item, Item(1, "鉄筋", ["a"])),
    (list[Item], [Item(number, "x") for number in range(3)]),
    (dict[str, Item], {"a": Item(1, "x")}),
    (Item | None, None),
    (Order, _order(MOMENT)),
    (Order, _order(MOMENT.replace(tzinfo=None))),
    (Order, _order(TOKYO)),
    (ByIdentity, ByIdentity(1.5)),
    (ByIdentity, ByIdentity(float("nan"))),
    (Page[Item], Page([Item(1, "x")], 1)),
    (Tree, Tree("a", [Tree("b", [])])),
    (Open, Open({"a": [1, None, 2.5, "x"]})),
    (Open, Open(True)),
    (Open, Open((1, TOKYO))),
    (Row, Row(1, date(2026, 1, 2))),
    (Pair, Pair(1, Row(2, date(2026, 1, 2)))),
    (Typed, {"id": 1, "colour": Colour.BLUE}),
    (Colour, Colour.RED),
    (list[Colour], [Colour.RED, Colour.BLUE]),
    (dict[Literal["a", "b"], tuple[Number, Row]], {"a": (Number(1), Row(2, date(2026, 1, 2)))}),
    (Model, Model(id=1, made=MOMENT, eMail="a@example.com", rows=[Item(1, "x")])),
    (list[Model], [Model(id=number, made=MOMENT) for number in range(3)]),
    (Model, Model(id=1, made=TOKYO)),
]


@pytest.fixture(params=["memory", "redis", "signed", "compressed", "tiers"])
def cache(request: pytest.FixtureRequest) -> BaseCache:
    keys = ["0123456789abcdef"]
    made: dict[str, Callable[[], BaseCache]] = {
        "memory": MemoryCache,
        "redis": lambda: RedisCache(FakeRedis(), store_budget=30),
        "signed": lambda: RedisCache(FakeRedis(), store_budget=30, signing_keys=keys),
        "compressed": lambda: RedisCache(FakeRedis(), store_budget=30, signing_keys=keys, compress_above=0),
        "tiers": lambda: TieredCache(MemoryCache(), RedisCache(FakeRedis(), store_budget=30)),
    }
    return made[request.param]()


def _typed(function: Callable[..., Any], annotation: Any) -> Callable[..., Any]:
    function.__annotations__["return"] = annotation
    return function


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=lambda one: str(one)[:40])
def test_values_come_back_with_their_types(cache: BaseCache, annotation: Any, value: object) -> None:
    calls: list[int] = []

    def function() -> Any:
        calls.append(1)
        return value

    results = cached(cache=cache, key_prefix="f")(_typed(function, annotation))
    assert all(_same(results(), value) for _ in range(3))
    assert len(calls) == 1


@pytest.mark.parametrize(("annotation", "value"), VALUES[:3], ids=lambda one: str(one)[:40])
def test_an_async_function_declares_its_result_too(cache: BaseCache, annotation: Any, value: object) -> None:
    calls: list[int] = []

    async def function() -> Any:
        calls.append(1)
        return value

    results: Any = cached(cache=cache, key_prefix="f")(_typed(function, annotation))

    async def scenario() -> list[object]:
        return [await results() for _ in range(3)]

    assert asyncio.run(scenario()) == [value] * 3
    assert len(calls) == 1


def test_callers_never_share_an_object() -> None:
    @cached(cache=MemoryCache(), key_prefix="f")
    def function() -> list[Item]:
        return [Item(1, "x")]

    function()[0].tags.append("mine")
    function().append(Item(2, "y"))
    assert function() == [Item(1, "x")]


class Sub(Item):
    pass


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Item, Sub(1, "x")),  # the declaration would make it an Item
        (Item, Row(1, date(2026, 1, 2))),
        (Item, Item("1", "x")),  # type: ignore[arg-type]  # on purpose
        (Open, Open(Colour.RED)),
        (Hidden, Hidden(id=1)),
        (Excluded, Excluded(id=1, note="lost")),
        (Grows, Grows(text="a")),  # each decoding would change it
        (Any, Item(1, "x")),
        (list, [Item(1, "x")]),
        (Item | Order, Item(1, "x")),  # nothing in the bytes would tell them apart
        ("Missing", Item(1, "x")),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_would_not_come_back_is_returned_and_not_kept(
    annotation: Any, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = MemoryCache()
    if isinstance(value, Hidden):
        value._secret = 7

    def function() -> Any:
        return value

    results = cached(cache=cache, key_prefix="f")(_typed(function, annotation))
    assert results() is value
    assert results() is value
    assert cache.stats().bypasses == 2
    assert "is not cached and is computed on every call" in caplog.text


def test_plain_data_is_kept_whatever_the_annotation_says() -> None:
    cache = MemoryCache()
    for annotation in (Item, "Missing", list[Item], Any):

        def function() -> Any:
            return {"a": (1, {2})}

        results = cached(cache=cache, key_prefix=f"{annotation}")(_typed(function, annotation))
        assert [results(), results()] == [{"a": (1, {2})}] * 2
    assert cache.stats().bypasses == 0


def test_another_declaration_and_another_version_are_other_entries() -> None:
    cache = MemoryCache()
    values: list[Any] = [
        make_dataclass("Thing", fields)(one)
        for one, fields in [
            (1, [("id", int)]),
            (1, [("id", int), ("name", str, "")]),
            (1.0, [("id", float)]),
        ]
    ]
    for value in values:
        for version in ("", 1, "1", "2"):
            options: dict[str, Any] = {"version": version, "value_type": type(value)}
            results: Any = cached(cache=cache, key_prefix="f", **options)(partial(lambda one: one, value))
            assert [type(results()), type(results())] == [type(value)] * 2
    assert cache.stats().misses == 12


def test_values_of_another_writer_are_a_miss_and_counted() -> None:
    server = FakeRedis()
    cache = RedisCache(server, store_budget=30)
    calls: list[int] = []

    @cached(cache=cache, key_prefix="f")
    def function() -> Item:
        calls.append(1)
        return Item(1, "x")

    for wrong in (b"\xc1", b"", [{"number": "x"}], [1, 2], "text", {"a": 1}):
        cache.set(function.cache_key(), wrong)
        assert function() == Item(1, "x")
        assert function() == Item(1, "x")
    assert len(calls) == 6
    assert cache.stats().bypasses == 6


def test_the_type_can_be_given_instead() -> None:
    cache = MemoryCache()
    results: Any = cached(cache=cache, key_prefix="f", value_type=list[Item])(lambda: [Item(1, "x")])
    assert results() == results() == [Item(1, "x")]
    assert cache.stats().hits == 1


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("value_type", {"value_type": int}),
        ("value_type", {"value_type": list[dict[str, int]]}),
        ("value_type", {"value_type": Item | Order}),
        ("value_type", {"value_type": object}),
        ("version", {"version": 1.5}),
        ("version", {"version": True}),
    ],
)
def test_impossible_declarations_are_refused(parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cached(**options)
    assert caught.value.parameter == parameter
