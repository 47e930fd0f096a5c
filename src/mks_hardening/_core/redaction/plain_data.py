"""Convert any Python value to bounded, JSON-compatible data without raising."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, cast

from mks_hardening._core.database.error_text import error_text
from mks_hardening._core.exception_text import CUT, safe_text

__all__ = ["LONGEST_TEXT", "UNKNOWN", "Bounds", "Fields", "UniqueNames", "cut", "is_a", "to_plain"]


#: Maximum number of characters kept of one text.
LONGEST_TEXT: Final = 16_384
#: Result of a ``default`` function that does not handle the value.
UNKNOWN: Final = object()
#: Names and values of unknown types.
Fields: TypeAlias = dict[str, Any]
_LONGEST_KEY: Final = 256
#: Characters kept of a text when the volume is used up: enough for an id, so that later fields remain useful.
_LEAST_TEXT: Final = 64
_CONTAINERS: Final = frozenset((dict, list, tuple, set, frozenset))
_Members: TypeAlias = Mapping[Any, Any] | list[Any] | tuple[Any, ...] | AbstractSet[Any]


class Bounds(NamedTuple):
    """Limits for one value including everything inside it.

    Attributes:
        characters: maximum length of one text.
        members: maximum number of members of one container.
        depth: maximum nesting of containers.
        total: maximum members of all containers together, so that shared structures do not multiply.
        volume: maximum characters of all texts together.
    """

    characters: int = LONGEST_TEXT
    members: int = 256
    depth: int = 12
    total: int = 1_024
    volume: int = 65_536

    def tighter(self) -> Bounds:
        """Return reduced limits, for a record that is too large as a whole."""
        return self._replace(
            characters=max(64, self.characters // 4), members=self.members // 2, depth=max(2, self.depth // 2)
        )


class UniqueNames:
    """Unique names in constant time each: a taken name gets a numeric suffix."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def free(self, name: str, taken: Container[object]) -> str:
        """Return the name itself, or the first of ``name_2``, ``name_3`` … that is not taken."""
        if name not in taken:
            return name
        number = self._last.get(name, 1) + 1
        while f"{name}_{number}" in taken:
            number += 1
        # Counting never restarts: thousands of equal names would otherwise take quadratic time.
        self._last[name] = number
        return f"{name}_{number}"


def is_a(value: object, *kinds: type) -> bool:
    """Return ``isinstance`` for an untyped value, without narrowing it to a partially unknown type."""
    try:
        return isinstance(value, kinds)
    except Exception:  # noqa: BLE001 - a foreign ``__class__`` that raises
        return issubclass(type(value), kinds)


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters, the last one an ellipsis if the text was truncated."""
    return text if len(text) <= limit else f"{text[: limit - 1]}{CUT}"


def to_plain(value: object, bounds: Bounds, *, default: Callable[[Any], Any] | None = None) -> Any:
    """Return the value as text, number, boolean, ``None``, ``dict``, ``list`` or ``tuple``, within the limits.

    Args:
        value: any value.
        bounds: limits.
        default: called first for values that are not plain data; ``UNKNOWN`` falls back to the built-in rules.
    """
    return _PlainDataWalk(bounds, default).plain(value)


# How ``json`` writes object keys that are not strings.
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
        # More digits than the interpreter converts to text (4300), or than the field may have.
        if value.bit_length() > 3 * min(self.bounds.characters, 4_000):
            # A shift extracts the first digits: hex() of a number of 1 MB would need another megabyte.
            shown = hex(abs(value) >> max(0, value.bit_length() // 4 * 4 - 60 * 4))
            return f"{'-' if value < 0 else ''}{shown[: min(self.bounds.characters, 64)]}{CUT}"
        return value

    def other(self, value: Any) -> Any:
        # ``default`` is not called for text and number subclasses: JSON supports them.
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
        # Nested like a container: a default that always returns a new value would recurse forever.
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
        names = UniqueNames()
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
        # Never through ``default``: encoded as Base64, a name would no longer show that its value is secret.
        key = name if type(name) is str else safe_text(to_plain(name, self.bounds))
        if len(key) > _LONGEST_KEY:
            # The end is kept as well: it shows whether the value is a secret.
            key = f"{key[: _LONGEST_KEY // 2]}{CUT}{key[-_LONGEST_KEY // 2 :]}"
        return key


def _members(value: Any) -> _Members | None:
    """Return the members of a container, or the fields of a record-like object."""
    if is_a(value, Mapping, list, AbstractSet):
        return cast("_Members", value)
    if is_a(value, tuple):
        names = getattr(value, "_fields", None)
        return dict(zip(names, value, strict=False)) if names else cast("_Members", value)
    fields: Any = getattr(value, "__dataclass_fields__", None)
    if fields and not is_a(value, type):
        return {name: getattr(value, name, None) for name, field in fields.items() if field.repr}
    return None
