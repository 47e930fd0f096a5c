"""Any Python value as bounded data that JSON can say; nothing in here raises."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, cast

from mks_hardening._core.database.error_text import error_text
from mks_hardening._core.trace_text import CUT, safe_text

__all__ = ["LONGEST_TEXT", "UNKNOWN", "Bounds", "Fields", "FreeNames", "cut", "is_a", "to_plain"]


#: Characters of one text that are kept.
LONGEST_TEXT: Final = 16_384
#: The answer of a ``default`` that does not know the value.
UNKNOWN: Final = object()
#: Names and what they hold, of which nothing is known.
Fields: TypeAlias = dict[str, Any]
_LONGEST_KEY: Final = 256
#: What a text keeps when the volume is used up: enough for an id, so that later fields stay of use.
_LEAST_TEXT: Final = 64
_CONTAINERS: Final = frozenset((dict, list, tuple, set, frozenset))
_Members: TypeAlias = Mapping[Any, Any] | list[Any] | tuple[Any, ...] | AbstractSet[Any]


class Bounds(NamedTuple):
    """How much is kept of one value with all that is inside.

    Attributes:
        characters: of one text.
        members: of one container.
        depth: containers within containers.
        total: members of all containers together, so that shared structures do not multiply.
        volume: characters of all texts together.
    """

    characters: int = LONGEST_TEXT
    members: int = 256
    depth: int = 12
    total: int = 1_024
    volume: int = 65_536

    def tighter(self) -> Bounds:
        """Less of everything, for a record that is too large as a whole."""
        return self._replace(
            characters=max(64, self.characters // 4), members=self.members // 2, depth=max(2, self.depth // 2)
        )


class FreeNames:
    """Names that are not taken, with a number behind them where they would be; in constant time each."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def free(self, name: str, taken: Container[object]) -> str:
        """The name itself, or the first of ``name_2``, ``name_3`` … that is free."""
        if name not in taken:
            return name
        number = self._last.get(name, 1) + 1
        while f"{name}_{number}" in taken:
            number += 1
        # Never counted from the start again: thousands of equal names would cost the square of their number.
        self._last[name] = number
        return f"{name}_{number}"


def is_a(value: object, *kinds: type) -> bool:
    """``isinstance`` for values of which nothing is known: the type checker learns no half-known type from it."""
    try:
        return isinstance(value, kinds)
    except Exception:  # noqa: BLE001 - a foreign ``__class__`` that raises
        return issubclass(type(value), kinds)


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last of them the mark when something is missing."""
    return text if len(text) <= limit else f"{text[: limit - 1]}{CUT}"


def to_plain(value: object, bounds: Bounds, *, default: Callable[[Any], Any] | None = None) -> Any:
    """The value as text, number, boolean, ``None``, ``dict``, ``list`` or ``tuple``, cut where it is too much.

    Args:
        value: anything.
        bounds: how much is kept.
        default: asked first about what is no plain data; ``UNKNOWN`` leaves it to us.
    """
    return _PlainDataWalk(bounds, default).plain(value)


# How ``json`` writes what is no text before a colon.
_JSON_NAMES: Final = {None: "null", True: "true", False: "false"}


class _PlainDataWalk:
    __slots__ = ("bounds", "default", "left", "path", "volume")

    def __init__(self, bounds: Bounds, default: Callable[[Any], Any] | None) -> None:
        self.bounds = bounds
        self.default = default
        self.left = bounds.total
        self.volume = bounds.volume
        self.path: list[int] = []

    def plain(self, value: object) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)  # type: ignore[arg-type]  # exact type checked above
        if kind is bool or value is None:
            return value
        if kind is int:
            return self.number(value)  # type: ignore[arg-type]  # as above
        if kind is float:
            return value if isfinite(value) else repr(value)  # type: ignore[arg-type]  # as above
        try:
            return self.enclosed(value, value) if kind in _CONTAINERS else self.other(value)
        except Exception:  # noqa: BLE001 - foreign code behind any of the calls
            return self.spoken(value)

    def text(self, text: str) -> str:
        limit = min(self.bounds.characters, max(_LEAST_TEXT, self.volume))
        self.volume -= min(len(text), limit)
        return cut(text, limit)

    def spoken(self, value: object) -> str:
        return self.text(safe_text(value, limit=self.bounds.characters))

    def number(self, value: int) -> int | str:
        # More digits than the interpreter turns into text at once (4300), or than the field may have.
        if value.bit_length() > 3 * min(self.bounds.characters, 4_000):
            # The first digits by a shift: hex() of the whole number would take a megabyte for a megabyte.
            shown = hex(abs(value) >> max(0, value.bit_length() // 4 * 4 - 60 * 4))
            return f"{'-' if value < 0 else ''}{shown[: min(self.bounds.characters, 64)]}{CUT}"
        return value

    def other(self, value: Any) -> Any:
        # Of those that are text or numbers themselves nobody is asked: JSON can say them.
        if is_a(value, Enum) and (self.default is None or is_a(value, str, int, float)):
            return self.plain(value.value)
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if isinstance(value, int):
            return self.number(int(value))
        if isinstance(value, float):
            return self.plain(float(value))
        if self.default is not None and not is_a(value, Mapping, list, tuple):
            answer = self.default(value)
            if answer is not UNKNOWN:
                return self.answered(answer)
            if is_a(value, Enum):
                return self.plain(value.value)
        if is_a(value, bytes, bytearray, memoryview):
            return self.text(bytes(value[: self.bounds.characters]).decode("utf-8", "backslashreplace"))
        if isinstance(value, (dt.datetime, dt.date, dt.time)):
            return value.isoformat()
        if isinstance(value, BaseException):
            return self.text(f"{type(value).__name__}: {error_text(value, limit=self.bounds.characters)}")
        members = _members(value)
        return self.spoken(value) if members is None else self.enclosed(members, value)

    def answered(self, answer: Any) -> Any:
        # As deep as a container: a default that always gives something new would never end.
        if len(self.path) >= self.bounds.depth:
            return CUT
        self.path.append(0)
        try:
            return self.plain(answer)
        finally:
            self.path.pop()

    def enclosed(self, members: Any, owner: object) -> Any:
        if len(self.path) >= self.bounds.depth or id(owner) in self.path:
            return CUT
        self.path.append(id(owner))
        try:
            if is_a(members, dict, Mapping):
                return self.mapping(members)
            items = self.items(members)
            return tuple(items) if isinstance(members, tuple) else items
        finally:
            self.path.pop()

    def mapping(self, members: Mapping[Any, Any]) -> Fields:
        result: Fields = {}
        names = FreeNames()
        for number, (name, member) in enumerate(members.items()):
            if number >= self.bounds.members or self.left <= 0:
                result[CUT] = f"{len(members) - number} more"
                break
            self.left -= 1
            result[names.free(self.key(name), result)] = self.plain(member)
        return result

    def items(self, members: Any) -> list[Any]:
        items: list[Any] = []
        for number, member in enumerate(members):
            if number >= self.bounds.members or self.left <= 0:
                items.append(f"{CUT} {len(members) - number} more")
                break
            self.left -= 1
            items.append(self.plain(member))
        return items

    def key(self, name: object) -> str:
        if self.default is not None and (name is None or name is True or name is False):
            return _JSON_NAMES[name]
        # Never by the default: as Base64 a name would no longer tell that its value is secret.
        key = name if type(name) is str else safe_text(to_plain(name, self.bounds))
        if len(key) > _LONGEST_KEY:
            # The end is kept too: it tells whether the value is a secret.
            key = f"{key[: _LONGEST_KEY // 2]}{CUT}{key[-_LONGEST_KEY // 2 :]}"
        return key


def _members(value: Any) -> _Members | None:
    """What is inside, for containers and for objects that are records of fields."""
    if is_a(value, Mapping, list, AbstractSet):
        return cast("_Members", value)
    if is_a(value, tuple):
        names = getattr(value, "_fields", None)
        return dict(zip(names, value, strict=False)) if names else cast("_Members", value)
    fields: Any = getattr(value, "__dataclass_fields__", None)
    if fields and not is_a(value, type):
        return {name: getattr(value, name, None) for name, field in fields.items() if field.repr}
    return None
