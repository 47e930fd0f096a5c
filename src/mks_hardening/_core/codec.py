"""Serialization of values to bytes: data only, typed, bounded, versioned. The only module with orjson and msgspec.

MessagePack if msgspec is installed, JSON otherwise; both can be decoded. Types that neither format supports
(tuples, sets, dates, decimals, big integers, keys that are not strings) are encoded as a tagged mapping; other
types (objects, subclasses except as keys, functions) are rejected. Decoding never executes code.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache, partial
from math import isfinite
from types import GenericAlias
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast
from uuid import UUID

from mks_hardening._core.optional_imports import optional
from mks_hardening.exceptions import ConfigurationError, DecodeError, EncodeError

__all__ = ["Codec", "TypedCodec", "check_items", "json_dumps", "json_loads", "orjson_dumps", "typed_codec"]

_VERSION: Final = 1
_TAG: Final = "\x00"  # marks a mapping as a tagged value; a user's mapping with this key is itself tagged
# Three times as fast as a search for the same bytes, whose first one is frequent in Japanese text.
_find_tag_in_msgpack: Final = re.compile(b"\xa1\x00").search
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})
_PLAIN_TAGS: Final = frozenset({"int", "float", "bytes"})  # plain values that a format does not support
_MAX_INT: Final = 2**63 - 1
_MAX_ITEMS: Final = 1 << 21  # 100,000 rows of 20 columns; decoded in seconds even as the smallest containers

_SHALLOW: Final = 5
_CONTAINER_STARTS: Final = frozenset(
    {*range(0x80, 0xA0), *range(0xDC, 0xE0)}
)  # of arrays and maps in MessagePack

Form = Literal["auto", "msgpack", "json"]


Stored: TypeAlias = Any
"""Data of any type: what another process has written is known only after decoding."""
Package: TypeAlias = Any
"""An optional package without types for the parts that we use."""


@cache
def _orjson() -> Package | None:
    try:
        import orjson
    except ModuleNotFoundError:
        return None
    return orjson


def orjson_dumps() -> Callable[..., bytes] | None:
    """Return the fast JSON encoder, or ``None`` if orjson is not installed."""
    module = _orjson()
    return None if module is None else module.dumps


def json_dumps(value: object) -> bytes:
    """Return compact strict JSON in UTF-8.

    Raises:
        EncodeError: a value that JSON does not support (including NaN and infinity).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodeError(f"not JSON: {type(error).__name__}") from error


def json_loads(data: bytes | str, *, max_bytes: int = 1_048_576, max_depth: int = 32) -> Stored:
    """Decode strict JSON: no NaN, no infinity, no duplicate keys, bounded in size and depth.

    Raises:
        DecodeError: the data is not strict JSON, or is beyond a limit.
    """
    if len(data) > max_bytes:
        raise DecodeError(f"more than {max_bytes} bytes")
    try:
        value = json.loads(
            data if isinstance(data, str) else data.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not strict JSON: {type(error).__name__}") from error
    if excess := _excess(value, max_depth, max_items=max_bytes):
        raise DecodeError(excess)
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number


def _unique(pairs: list[tuple[str, Stored]]) -> dict[str, Stored]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


class Codec:
    """Encodes and decodes values within limits that apply in both directions.

    Args:
        form: ``msgpack`` (requires msgspec), ``json``, or ``auto`` for msgpack if msgspec is installed.
        max_bytes: maximum size of an encoded value in bytes.
        max_depth: maximum nesting of containers.
        max_items: maximum number of items of all lists and mappings of the encoded value together. Sets, tuples and
            other types that the format does not support are encoded as mappings with lists inside, and counted as
            such.

    Raises:
        ConfigurationError: a limit is out of range.
        MissingDependencyError: ``msgpack`` was requested and msgspec is not installed.
    """

    __slots__ = ("_form", "_max_bytes", "_max_depth", "_max_items")

    def __init__(
        self,
        *,
        form: Form = "auto",
        max_bytes: int = 1_048_576,
        max_depth: int = 32,
        max_items: int = _MAX_ITEMS,
    ) -> None:
        if form not in ("auto", "msgpack", "json"):
            raise ConfigurationError("form must be 'auto', 'msgpack' or 'json'", parameter="form")
        if max_bytes < 16 or not 1 <= max_depth <= 100:
            raise ConfigurationError(
                "max_bytes must be at least 16, max_depth 1 to 100", parameter="max_bytes"
            )
        if max_items < 1:
            raise ConfigurationError("max_items must be at least 1", parameter="max_items")
        if form == "msgpack":
            with optional("msgspec", extra="cache"):
                import msgspec  # noqa: F401 - only to fail early
        self._form = ("json" if _msgpack() is None else "msgpack") if form == "auto" else form
        self._max_bytes = max_bytes
        self._max_depth = max_depth
        self._max_items = max_items

    def encode(self, value: object) -> bytes:
        """Return the value as bytes.

        Raises:
            EncodeError: a type that cannot be stored, or more bytes, levels or items than the limits allow.
        """
        binary = self._form == "msgpack"
        tagged = _to_tagged(value, self._max_depth, binary)
        try:
            body = _msgpack_encode(tagged) if binary else json_dumps(tagged)
        except UnicodeEncodeError as error:
            raise EncodeError("text with a lone surrogate cannot be stored") from error
        if len(body) + 2 > self._max_bytes:
            raise EncodeError(f"encoded value is larger than {self._max_bytes} bytes")
        # An item takes at least one byte, so most values need not be counted.
        if len(body) > self._max_items and (excess := self._excess(tagged)):
            raise EncodeError(excess)
        return bytes((_VERSION, ord("m" if binary else "j"))) + body

    def decode(self, data: bytes, *, trusted: bool = False) -> Stored:
        """Return the value that was passed to ``encode``, with its types.

        Args:
            data: result of ``encode``.
            trusted: whether the bytes certainly come from ``encode`` (their signature was verified, or they never
                left this process), so that small values without tags need not be checked recursively.

        Raises:
            DecodeError: other bytes, or more bytes, levels or items than the limits allow; ``newer`` is set if a
                newer version wrote them.
        """
        if len(data) > self._max_bytes:
            raise DecodeError(f"more than {self._max_bytes} bytes")
        if len(data) < 3:
            raise DecodeError("too short")
        if data[0] != _VERSION:
            raise DecodeError("another version", newer=data[0] > _VERSION)
        if not trusted and self._max_depth >= _SHALLOW and len(data) - 2 <= self._max_items:
            # Most values have few levels: decoding checks them on the way, at no cost.
            with suppress(ValueError):
                if (shallow := _read_shallow(data)) is not None:
                    return shallow
        raw = self._read(data[1], data[2:])
        if type(raw) in _PLAIN:
            return raw
        # Without this byte, which UTF-8 does not have, there is no timestamp: the only extension that is decoded.
        no_extension = trusted or b"\xff" not in data
        plain = no_extension and _is_plain(data)
        if plain and trusted and len(data) - 2 <= self._max_items:
            return raw
        # With tags, a level of the value takes up to two levels of containers.
        levels = self._max_depth - 1 if plain else 2 * self._max_depth + 2
        if excess := _excess(raw, levels, self._max_items, text_keys=plain):
            raise DecodeError(excess)
        if plain:
            return raw
        try:
            return _from_tagged(raw, self._max_depth)
        except Exception as error:  # each reader is a constructor that receives arbitrary data
            raise DecodeError(f"damaged value: {type(error).__name__}") from error

    def encode_copy(self, value: object) -> tuple[bytes, Callable[[bytes], Stored]]:
        """Return the value as bytes that never leave this process, and the fastest function to decode them.

        Raises:
            EncodeError: as for ``encode``.
        """
        data = self.encode(value)
        unpack = _msgpack_decoder()
        if unpack is not None and _is_plain(data) and len(data) - 2 <= self._max_items:
            return data[2:], unpack
        return data, partial(self.decode, trusted=True)

    def _excess(self, raw: object) -> str:
        return _excess(raw, 2 * self._max_depth + 2, self._max_items)

    def _read(self, form: int, body: bytes) -> Stored:
        if form == ord("j"):
            return json_loads(body, max_bytes=self._max_bytes, max_depth=2 * self._max_depth + 2)
        if form != ord("m"):
            raise DecodeError("unknown form")
        decode = _msgpack_decoder()
        if decode is None:
            raise DecodeError("MessagePack, but msgspec is not installed", newer=True)
        try:
            return decode(body)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"damaged MessagePack: {type(error).__name__}") from error


def check_items(data: bytes, *, form: Literal["msgpack", "json"]) -> None:
    """Count the items in MessagePack or JSON that is going to be decoded elsewhere.

    Raises:
        DecodeError: damaged, or with more items than a value may have.
    """
    decode = json.loads if form == "json" else _msgpack_decoder()
    if decode is None:
        raise DecodeError("MessagePack, but msgspec is not installed", newer=True)
    try:
        raw = decode(data)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"damaged {form}: {type(error).__name__}") from error
    if excess := _excess(raw, 100, _MAX_ITEMS):
        raise DecodeError(excess)


class TypedCodec(NamedTuple):
    """How values of one declared type are encoded and decoded.

    Attributes:
        encode: returns MessagePack.
        decode: decodes it, and checks the types.
        dump: returns plain data, with dates, decimals and UUIDs as they are.
        load: the reverse.
    """

    encode: Callable[[Stored], bytes]
    decode: Callable[[bytes], Stored]
    dump: Callable[[Stored], Stored]
    load: Callable[[Stored], Stored]


def typed_codec(declared: Stored) -> TypedCodec:
    """Return how values of a type are encoded and decoded.

    Raises:
        ModuleNotFoundError: msgspec is not installed.
        TypeError: it does not support the type.
    """
    import msgspec

    kept = (bytes, date, datetime, time, timedelta, Decimal, UUID)
    return TypedCodec(
        msgspec.msgpack.Encoder().encode,
        msgspec.msgpack.Decoder(declared).decode,
        partial(msgspec.to_builtins, builtin_types=kept),
        partial(msgspec.convert, type=declared, builtin_types=kept),
    )


@cache
def _msgpack() -> Package | None:
    try:
        import msgspec.msgpack
    except ModuleNotFoundError:
        return None
    return msgspec.msgpack


def _msgpack_decoder() -> Callable[[bytes], Stored] | None:
    return None if _msgpack() is None else _strict_decoder()


def _read_shallow(data: bytes) -> Stored | None:
    """Return the container in encoded bytes if it has few levels, only text as keys, and neither tags nor bytes.

    Raises:
        ValueError: it has something else, or is damaged.
    """
    if data[1] != ord("m") or data[2] not in _CONTAINER_STARTS or not _is_plain(data) or _msgpack() is None:
        return None
    return _shallow_decoder()(data[2:])


@cache
def _shallow_decoder() -> Callable[[bytes], Stored]:
    import msgspec

    scalar: Package = str | int | float | bool | None  # msgspec does not tell bytes from text in a union
    kind = scalar
    for _ in range(_SHALLOW - 1):
        kind = scalar | GenericAlias(list, (kind,)) | GenericAlias(dict, (str, kind))
    return msgspec.msgpack.Decoder(kind).decode


@cache
def _strict_decoder() -> Callable[[bytes], Stored]:
    import msgspec

    return msgspec.msgpack.Decoder(ext_hook=_refuse_extension).decode


def _refuse_extension(code: int, _data: object) -> object:
    raise ValueError(f"extension {code}")


def _msgpack_encode(value: object) -> bytes:
    encoded: bytes = _msgpack().encode(value)  # type: ignore[union-attr]  # "msgpack" is chosen only with msgspec
    return encoded


def _is_plain(data: bytes) -> bool:
    """Return whether encoded bytes are MessagePack without tags."""
    return data[1] == ord("m") and _find_tag_in_msgpack(data) is None


# --- tagging ---------------------------------------------------------------------------------


def _to_tagged(value: object, depth: int, binary: bool) -> object:  # noqa: FBT001 - inner loop
    """Return the value itself if the format supports it, else a tagged mapping."""
    kind = type(value)
    if kind in _PLAIN:
        return _plain(value, binary)
    if depth <= 0:
        raise EncodeError("nested too deeply")
    if kind is dict:
        return _mapping(value, depth, binary)  # type: ignore[arg-type]  # exact type checked above
    if kind is list:
        return [_to_tagged(item, depth - 1, binary) for item in value]  # type: ignore[attr-defined]  # as above
    if kind in (tuple, set, frozenset):
        items = [_to_tagged(item, depth - 1, binary) for item in value]  # type: ignore[attr-defined]  # as above
        return {_TAG: kind.__name__, "v": items}
    write = _WRITERS.get(kind)
    if write is None:
        raise EncodeError(f"{kind.__module__}.{kind.__qualname__} cannot be stored")
    return {_TAG: kind.__name__, "v": write(value)}


def _plain(value: Stored, binary: bool) -> object:  # noqa: FBT001 - inner loop
    kind = cast("type[object]", type(value))
    if kind is int and not -_MAX_INT <= value <= _MAX_INT:
        return {_TAG: "int", "v": hex(value)}
    if not binary:
        if kind is bytes:
            return {_TAG: "bytes", "v": b64encode(value).decode()}
        if kind is float and not isfinite(value):
            return {_TAG: "float", "v": repr(value)}
    return value


def _mapping(value: dict[object, object], depth: int, binary: bool) -> object:  # noqa: FBT001 - inner loop
    texts = all(type(key) is str for key in value)
    if not texts:
        # SQLAlchemy names columns with a subclass of str: dict(row._mapping). As a key, it is stored as a str.
        value = {str.__str__(key) if isinstance(key, str) else key: item for key, item in value.items()}
        texts = all(type(key) is str for key in value)
    if texts and _TAG not in value:
        return {
            key: item if type(item) is str else _to_tagged(item, depth - 1, binary)
            for key, item in value.items()
        }
    pairs = [
        [_to_tagged(key, depth - 1, binary), _to_tagged(item, depth - 1, binary)]
        for key, item in value.items()
    ]
    return {_TAG: "dict", "v": pairs}


def _from_tagged(value: Stored, depth: int) -> Stored:
    kind = cast("type[object]", type(value))
    if kind in _PLAIN:
        return value
    if depth <= 0 and not (kind is dict and value.get(_TAG) in _PLAIN_TAGS):
        raise ValueError("nested too deeply")
    if kind is list:
        if _PLAIN.issuperset(map(type, value)):
            return value
        return [item if type(item) is str else _from_tagged(item, depth - 1) for item in value]
    if kind is not dict:  # a MessagePack extension, which we never write
        raise ValueError(kind.__name__)
    if _TAG not in value:
        if not all(type(key) is str for key in value):
            raise ValueError("a key that is not text")
        return {
            key: item if type(item) is str else _from_tagged(item, depth - 1) for key, item in value.items()
        }
    tag, inner = value[_TAG], value["v"]
    container = _CONTAINERS.get(tag)
    if container is not None:
        kind = cast("type[object]", type(inner))
        if kind is not list:  # a string or bytes would expand to more items than were counted
            raise ValueError(kind.__name__)
        return container(_from_tagged(item, depth - 1) for item in inner)
    if tag == "dict":
        return {_from_tagged(key, depth - 1): _from_tagged(item, depth - 1) for key, item in inner}
    return _READERS[tag](inner)


def _write_datetime(value: datetime) -> list[object]:
    zone = value.tzinfo
    key = getattr(zone, "key", None)
    if zone is not None and key is None and type(zone) is not timezone:
        raise EncodeError("a datetime with this kind of time zone cannot be stored")
    naive = value.replace(tzinfo=None) if isinstance(key, str) else value
    return [naive.isoformat(), value.fold, key if isinstance(key, str) else None]


def _read_datetime(value: Stored) -> datetime:
    text, fold, key = value
    result = datetime.fromisoformat(text).replace(fold=int(fold))
    if key is None:
        return result
    from zoneinfo import ZoneInfo

    return result.replace(tzinfo=ZoneInfo(key))


def _write_time(value: time) -> list[object]:
    if value.tzinfo is not None and type(value.tzinfo) is not timezone:
        raise EncodeError("a time with this kind of time zone cannot be stored")
    return [value.isoformat(), value.fold]


_WRITERS: Final[dict[type, Callable[[Stored], object]]] = {
    datetime: _write_datetime,
    date: date.isoformat,
    time: _write_time,
    timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    Decimal: str,
    UUID: str,
}

_CONTAINERS: Final[dict[str, Callable[[Stored], Stored]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}

_READERS: Final[dict[str, Callable[[Stored], Stored]]] = {
    "int": lambda value: int(value, 16),
    "float": float,
    "bytes": lambda value: b64decode(value, validate=True),
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "time": lambda value: time.fromisoformat(value[0]).replace(fold=int(value[1])),
    "timedelta": lambda value: timedelta(*value),
    "Decimal": Decimal,
    "UUID": UUID,
}


_CONTAINERS_READ: Final = frozenset({dict, list, tuple})  # msgspec reads an array that is a key as a tuple
_TEXT: Final = frozenset({str})


def _excess(value: object, max_depth: int, max_items: int, *, text_keys: bool = False) -> str:
    """Return which limit the containers in a value exceed, or an empty string; not recursive.

    With ``text_keys``, a key of another type is an excess too: ``encode`` writes such a mapping with a tag.
    """
    layer: list[Stored] = [value] if type(value) in _CONTAINERS_READ else []
    for _ in range(max_depth + 2):
        if not layer:
            return ""
        max_items -= sum(map(len, layer))
        if max_items < 0:
            return "too many items"
        inner: list[Stored] = []
        for container in layer:
            items: Iterable[Stored] = container
            if cast("type[object]", type(container)) is dict:
                if not _TEXT.issuperset(map(type, container)):
                    if text_keys:
                        return "a key that is not text"
                    inner += [key for key in items if type(key) is tuple]
                items = container.values()
            inner += [item for item in items if type(item) in _CONTAINERS_READ]
        layer = inner
    return "nested too deeply"
