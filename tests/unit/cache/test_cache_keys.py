"""Keys of calls: what shares, what does not, what is refused."""

from __future__ import annotations

import asyncio
import copy
import enum
import functools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest

from mks_hardening._core.canonical_text import canonical, digest
from mks_hardening.cache import CacheKeyError, MemoryCache, cached, set_default_cache
from mks_hardening.exceptions import ConfigurationError


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Number(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


class Spot(NamedTuple):
    x: int
    y: int


class Article:
    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> object:
        return self.number


class Page(Article):
    pass


class Liar:
    def __repr__(self) -> str:
        return "1"


@dataclass
class Order:
    number: int
    lines: list[str] = field(default_factory=list)
    cached: float = field(default=0.0, compare=False)


@dataclass
class OtherOrder:
    number: int
    lines: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Handle:
    number: int


class Extended(Order):
    """Not decorated: it may have state that is no field."""


class Struct(msgspec.Struct):
    number: int
    inner: Order | None = None


class Unequal(msgspec.Struct, eq=False):
    number: int


class Query(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    text: str
    page: int = 1
    _user: int = pydantic.PrivateAttr(default=0)


class Text(str):
    __slots__ = ()


NOON = datetime(2024, 1, 1, 12)  # noqa: DTZ001 - a naive one on purpose
DISTINCT: list[Any] = [
    1, "1", True, 1.0, b"1", Decimal(1), Decimal("1.0"), Number.ONE, (1,), [1], {1}, frozenset({1}), {1: 1},
    {"1": 1},
    0, False, None, "", "None", "null", 0.0, -0.0, b"", (), [], {}, set(), frozenset(), ((),), [[]], ([],), (None,),
    "a", "a ", "A", "あ", "か\u3099", "が", "a,b", ("a", "b"), ("a,b",), ["a", "b"], "('a', 'b')", ("a'", "b"),
    ("a", "'b"),
    (1, (2, 3)), ((1, 2), 3), (1, 2, 3), [1, [2, 3]], {"a": {"b": 1}}, {"a": 1, "b": 1}, {"a b": 1},
    Colour.RED, Colour.BLUE, "Colour.RED", Point(1, 2), Spot(1, 2), (1, 2),
    date(2024, 1, 1), NOON, NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
    NOON.replace(tzinfo=timezone(timedelta(hours=9))), NOON.replace(fold=1), time(12), "2024-01-01", timedelta(1),
    timedelta(seconds=1), 86400, UUID(int=1), str(UUID(int=1)), Article(1), Article(2), Page(1), float("inf"),
    float("nan"),
    2**70, 1e300, int, str, Point, "int", "\ud800", "\x00", "\n",
]  # fmt: skip


def test_values_that_differ_in_value_or_type_never_share() -> None:
    texts = [canonical((value,)) for value in DISTINCT]
    assert len(set(texts)) == len(texts)
    assert len({digest(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2, 3}, {3, 2, 1}),
        (float("nan"), float("nan")),
        (Article(7), Article(7)),
        ({"a": [1, {"b": {2, 1}}]}, {"a": [1, {"b": {1, 2}}]}),
    ],
)
def test_equal_values_share(one: Any, other: Any) -> None:
    assert canonical((one,)) == canonical((other,))


def _deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(50):
        nested = [nested]
    return nested


class Local:
    pass


def _local_class() -> type:
    class Inner:
        pass

    return Inner


@pytest.mark.parametrize(
    "refused",
    [
        object(), Liar(), Local(), Text("a"), lambda: 1, [object()], {"a": Liar()}, (Text("a"),), OrderedDict(a=1),
        bytearray(b"a"), memoryview(b"a"), range(3), iter([1]), _deep(), _local_class(), 1j, Ellipsis,
        type("Made", (), {"__module__": __name__, "__qualname__": "<locals>.Made"}),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_safely_is_refused(refused: Any) -> None:
    with pytest.raises(CacheKeyError, match="cache key"):
        canonical((refused,))


def _counted(cache: MemoryCache, **options: Any) -> tuple[Any, list[Any]]:
    calls: list[Any] = []

    @cached(cache=cache, key_prefix="counted", **options)
    def function(a: Any, /, b: Any, c: Any = 3, *rest: Any, d: Any, e: Any = None, **more: Any) -> Any:
        calls.append((a, b, c, rest, d, e, more))
        return len(calls)

    return function, calls


def test_every_spelling_of_a_call_shares() -> None:
    function, calls = _counted(MemoryCache())
    function(1, 2, d=4)
    function(1, b=2, d=4)
    function(1, d=4, c=3, b=2)
    function(1, 2, 3, d=4, e=None)
    assert len(calls) == 1


def test_different_calls_do_not() -> None:
    function, calls = _counted(MemoryCache())
    for _ in range(2):
        function(1, 2, d=4)
        function(1, 2, 3, 4, d=4)
        function(1, 2, d=4, f=4)
        function(1, 2, d=4, g=4)
        function(1, 2, d="4")
        function(2, 1, d=4)
        function(1, 2, (3,), d=4)
    assert len(calls) == 7


def test_a_call_that_is_wrong_fails_as_without_a_cache() -> None:
    function, calls = _counted(MemoryCache())
    for wrong in (function, lambda: function(1, 2), lambda: function(a=1, b=2, d=3)):
        with pytest.raises(TypeError):
            wrong()
    assert calls == []


def module_level(a: int) -> int:
    return a


def test_functions_of_one_name_do_not_share() -> None:
    cache = MemoryCache()
    made = [cached(cache=cache)(function) for function in _two_locals()]
    assert [function(1) for function in made] == ["first", "second"]


def _two_locals() -> list[Callable[[int], str]]:
    def same(_a: int) -> str:
        return "first"

    first = same

    def same(_a: int) -> str:  # type: ignore[no-redef]  # the point of the test
        return "second"

    return [first, same]


KEPT = MemoryCache()


@functools.singledispatch
def shown(value: object) -> str:
    return "anything"


@shown.register
@cached(cache=KEPT)
def _(value: int) -> str:
    return f"int {value}"


@shown.register
@cached(cache=KEPT)
def _(value: bool) -> str:
    return f"bool {value}"


def test_functions_of_one_name_in_one_module_have_keys_of_their_own() -> None:
    assert [shown(1), shown(True), shown(1), shown(True)] == ["int 1", "bool True"] * 2
    first, second = (shown.registry[kind].cache_key(1) for kind in (int, bool))
    assert first.partition(":")[0] == f"{__name__}._"
    assert re.fullmatch(rf"{__name__}\._#\d+:.*", second)


def test_a_module_that_is_read_again_keeps_its_keys() -> None:
    source = "from mks_hardening.cache import cached\n@cached()\ndef again(n: int) -> int:\n    return n\n"
    keys = []
    for file in ("one.py", "one.py", "cell 2"):
        names: dict[str, Any] = {"__name__": "read_again"}
        exec(compile(source, file, "exec"), names)  # noqa: S102 - what importlib and notebooks do
        keys.append(names["again"].cache_key(1))
    assert len(set(keys)) == 1


def _closure(captured: int) -> Callable[[int], int]:
    def function(_a: int) -> int:
        return captured

    return function


def _plain_decorator(function: Callable[[int], int]) -> Callable[[int], int]:
    @functools.wraps(function)
    def wrapper(a: int) -> int:
        return function(a)

    return wrapper


def _scaled(by: int, function: Callable[[int], int]) -> Callable[[int], int]:
    @functools.wraps(function)
    def wrapper(a: int) -> int:
        return by * function(a)

    return wrapper


def _recursive() -> Any:
    def same(a: int) -> int:
        return same(a - 1) if a else 0

    return same


class _Base:
    def name(self) -> str:
        return "base"

    @classmethod
    def kind(cls) -> str:
        return cls.__name__


class _Derived(_Base):
    def name(self) -> str:
        return super().name()


@pytest.mark.parametrize(
    ("why", "function"),
    [
        ("lambda in line", lambda a: a),
        ("captures captured", _closure(1)),
        ("captures by", _scaled(2, module_level)),
        ("captures captured", _plain_decorator(_closure(1))),
        ("no name of its own", functools.partial(module_level, 1)),
        ("is bound to an object", _Base().name),
        ("is bound to an object", _Derived.kind),
    ],
)
def test_what_code_does_not_name_needs_a_prefix(why: str, function: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{why}.*key_prefix") as caught:
        cached()(function)
    assert caught.value.parameter == "key_prefix"
    assert cached(key_prefix="mine")(function)


@pytest.mark.parametrize("function", [_plain_decorator(module_level), _recursive(), _Derived.name])
def test_what_it_does_name_does_not(function: Any) -> None:
    assert cached()(function)


def test_a_module_function_has_one_key_in_every_process() -> None:
    keys = {cached()(module_level).cache_key(1) for _ in range(2)}
    assert len(keys) == 1
    assert keys.pop().startswith(f"{__name__}.module_level:")


def test_methods_need_an_identity() -> None:
    cache = MemoryCache()

    class Service:
        @cached(cache=cache)
        def answer(self, a: int) -> int:
            return a

    with pytest.raises(CacheKeyError):
        Service().answer(1)

    class Keyed:
        def __init__(self, number: int) -> None:
            self.number = number

        @cached(cache=cache, key_func=lambda self, a: (self.number, a))
        def answer(self, a: int) -> tuple[int, int]:
            return (self.number, a)

    assert (Keyed(1).answer(5), Keyed(2).answer(5)) == ((1, 5), (2, 5))  # type: ignore[call-arg, arg-type]  # a method


def test_key_prefix_lets_functions_share_on_purpose() -> None:
    cache = MemoryCache()
    one = cached(cache=cache, key_prefix="shared")(lambda _a: "one")
    other = cached(cache=cache, key_prefix="shared")(lambda _a: "other")
    assert (one(1), other(1)) == ("one", "one")


def _as_user(user: int) -> Query:
    query = Query(text="a")
    query._user = user
    return query


def test_objects_that_declare_their_fields_are_keys() -> None:
    different: list[object] = [
        Order(1),
        Order(2),
        Order(1, ["a"]),
        OtherOrder(1),
        Struct(1),
        Struct(1, Order(1)),
        Struct(1, Order(2)),
        Query(text="a"),
        Query(text="a", page=2),
        Query(text="a", more="b"),  # type: ignore[call-arg]  # what the model was given beyond its fields
        _as_user(7),
        (1, []),
        {"number": 1, "lines": []},
    ]
    keys = [canonical((one,)) for one in different]
    assert len(set(keys)) == len(different)
    assert keys == [canonical((copy.deepcopy(one),)) for one in different]
    assert canonical((Order(1, cached=2.5),)) == keys[0]  # the class says that it does not count


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        (Handle(1), "order"),
        (Extended(1), "order"),
        (Unequal(1), "order"),
        (Order(1, [object()]), "order"),  # type: ignore[list-item]  # on purpose
        (Struct(1, Handle(1)), "order"),  # type: ignore[arg-type]  # on purpose
        (object(), "order"),
    ],
)
def test_a_refusal_names_the_argument(argument: object, name: str) -> None:
    @cached(cache=MemoryCache(), key_prefix="f")
    def price(number: int, order: object = None, *rest: object, **options: object) -> int:
        return 1

    assert price(1) == 1
    with pytest.raises(CacheKeyError, match=rf"argument {name} of .*price: .*cannot be part of a cache key"):
        price(1, argument)
    with pytest.raises(CacheKeyError, match="argument rest of "):
        price(1, None, argument)
    with pytest.raises(CacheKeyError, match="argument options of "):
        price(1, other=argument)


@dataclass(frozen=True)
class Report:
    year: int

    def __call__(self, page: int) -> tuple[int, int]:
        return (self.year, page)


class AsyncReport(NamedTuple):
    year: int

    async def __call__(self, page: int) -> tuple[int, int]:
        return (self.year, page)


def test_callable_objects_have_names_by_their_fields() -> None:
    cache = MemoryCache()
    reports = [cached(cache=cache)(Report(year)) for year in (2025, 2026, 2025)]
    assert [report(1) for report in reports] == [(2025, 1), (2026, 1), (2025, 1)]
    assert cache.stats().misses == 2
    later = cached(cache=cache)(AsyncReport(2026))
    assert [asyncio.run(later(1)) for _ in range(2)] == [(2026, 1)] * 2  # type: ignore[arg-type]  # a coroutine
    with pytest.raises(ConfigurationError, match="key_prefix"):
        cached(cache=cache)(functools.partial(Report(1)))


class Catalogue:
    """Its methods need no prefix: it says what it is."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.calls = 0

    def __cache_key__(self) -> object:
        return self.tenant

    @cached()
    def price(self, number: int) -> tuple[str, int]:
        self.calls += 1
        return (self.tenant, number)

    @classmethod
    @cached()
    def kind(cls, number: int) -> tuple[str, int]:
        return (cls.__name__, number)

    @staticmethod
    @cached()
    def plain(number: int) -> int:
        return number


class Special(Catalogue):
    pass


def test_methods_of_every_kind_need_no_prefix() -> None:
    set_default_cache(MemoryCache())
    try:
        one, other = Catalogue("one"), Catalogue("other")
        special = Special("one")
        for _ in range(2):
            prices = [shop.price(1) for shop in (one, other, special)]
            assert prices == [("one", 1), ("other", 1), ("one", 1)]
            assert [Catalogue.kind(1), Special.kind(1)] == [("Catalogue", 1), ("Special", 1)]
            assert one.plain(1) == 1
        assert [one.calls, other.calls, special.calls] == [1, 1, 1]
        Catalogue.price.invalidate(one, 1)
        assert one.price(1) == ("one", 1)
        assert [one.calls, other.calls] == [2, 1]
    finally:
        set_default_cache(None)


def test_remembered_keys_are_those_that_are_made() -> None:
    @cached(cache=MemoryCache(), key_prefix="remembered")
    def function(value: object, other: object = None) -> None: ...

    calls: list[tuple[Any, ...]] = [(1,), (True,), ("1",), (b"1",), (1.0,), (0.0,), (-0.0,), (None,), ("",)]
    calls += [(1, True), (True, 1), (1, 1), ("x" * 5000,), ("\udc80",)]
    keys = [function.cache_key(*call) for call in calls]
    assert len({*keys}) == len(keys)
    for number in range(2000):  # more than are remembered
        function.cache_key(number, "flood")
    assert [function.cache_key(*call) for call in calls] == keys
    assert [function.cache_key(*call) for call in calls] == keys
