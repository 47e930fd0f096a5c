"""Any Python value as bounded data that JSON can say; nothing in here raises."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, cast

from mks_hardening._core.trace_text import CUT, safe_text

__all__ = ["Bounds", "Fields", "cut", "is_a", "to_plain"]


#: Names and what they hold, of which nothing is known.
Fields: TypeAlias = dict[str, Any]
_LONGEST_KEY: Final = 256
_CONTAINERS: Final = frozenset((dict, list, tuple, set, frozenset))
_Members: TypeAlias = Mapping[Any, Any] | list[Any] | tuple[Any, ...] | AbstractSet[Any]


class Bounds(NamedTuple):
    """How much of one field is kept."""

    characters: int = 16_384
    members: int = 256
    depth: int = 12

    def tighter(self) -> Bounds:
        """Less of everything, for a record that is too large as a whole."""
        return Bounds(max(64, self.characters // 4), self.members // 2, max(2, self.depth // 2))


def is_a(value: object, *kinds: type) -> bool:
    """``isinstance`` for values of which nothing is known: the type checker learns no half-known type from it."""
    return isinstance(value, kinds)


def cut(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last of them the mark when something is missing."""
    return text if len(text) <= limit else f"{text[: limit - 1]}{CUT}"


def to_plain(value: object, bounds: Bounds, path: tuple[int, ...] = ()) -> Any:
    """The value as text, number, boolean, ``None``, ``dict``, ``list`` or ``tuple``, cut where it is too much."""
    kind = type(value)
    if kind is str:
        return cut(value, bounds.characters)  # type: ignore[arg-type]  # exact type checked above
    if kind is bool or value is None:
        return value
    if kind is int:
        return _number(value, bounds)  # type: ignore[arg-type]  # as above
    if kind is float:
        return value if isfinite(value) else repr(value)  # type: ignore[arg-type]  # as above
    try:
        return _enclosed(value, value, bounds, path) if kind in _CONTAINERS else _other(value, bounds, path)
    except Exception:  # noqa: BLE001 - foreign code behind any of the calls
        return cut(safe_text(value, limit=bounds.characters), bounds.characters)


def _number(value: int, bounds: Bounds) -> int | str:
    # More digits than the interpreter turns into text at once (4300), or than the field may have.
    if value.bit_length() > 3 * min(bounds.characters, 4_000):
        return f"{'-' if value < 0 else ''}{hex(abs(value))[: min(bounds.characters, 64)]}{CUT}"
    return value


def _other(value: Any, bounds: Bounds, path: tuple[int, ...]) -> Any:
    if isinstance(value, Enum):
        return to_plain(value.value, bounds, path)
    if isinstance(value, str):
        return cut(str.__str__(value), bounds.characters)
    if isinstance(value, int):
        return _number(int(value), bounds)
    if isinstance(value, float):
        return to_plain(float(value), bounds)
    if is_a(value, bytes, bytearray, memoryview):
        return cut(bytes(value[: bounds.characters]).decode("utf-8", "backslashreplace"), bounds.characters)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, BaseException):
        return cut(f"{type(value).__name__}: {safe_text(value, limit=bounds.characters)}", bounds.characters)
    members = _members(value)
    if members is None:
        return cut(safe_text(value, limit=bounds.characters), bounds.characters)
    return _enclosed(members, value, bounds, path)


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


def _enclosed(members: Any, owner: object, bounds: Bounds, path: tuple[int, ...]) -> Any:
    if len(path) >= bounds.depth or id(owner) in path:
        return CUT
    path = (*path, id(owner))
    if is_a(members, dict, Mapping):
        result: Fields = {}
        for number, (name, member) in enumerate(members.items()):
            if number >= bounds.members:
                result[CUT] = f"{len(members) - number} more"
                break
            result[_key(name, result, bounds, path)] = to_plain(member, bounds, path)
        return result
    items: list[Any] = []
    for number, member in enumerate(members):
        if number >= bounds.members:
            items.append(f"{CUT} {len(members) - number} more")
            break
        items.append(to_plain(member, bounds, path))
    return tuple(items) if isinstance(members, tuple) else items


def _key(name: object, taken: Mapping[str, object], bounds: Bounds, path: tuple[int, ...]) -> str:
    key = name if type(name) is str else safe_text(to_plain(name, bounds, path))
    if len(key) > _LONGEST_KEY:
        # The end is kept too: it tells whether the value is a secret.
        key = f"{key[: _LONGEST_KEY // 2]}{CUT}{key[-_LONGEST_KEY // 2 :]}"
    while key in taken:
        key += "_"
    return key
