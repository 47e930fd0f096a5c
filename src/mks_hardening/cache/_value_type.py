"""Values of declared types: dataclasses, msgspec structs, Pydantic models, named tuples, typed mappings and enums.

The declaration (usually the return annotation of a cached function) decides how stored bytes are decoded; the bytes
name no class. A value is stored only if it comes back with the same types and contents, so nothing that a
declaration leaves out is lost silently.
"""

from __future__ import annotations

import types
import typing
from collections import abc
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from hashlib import blake2b
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from mks_hardening._core.canonical_text import exact_type, field_names
from mks_hardening._core.codec import TypedCodec, check_items, typed_codec
from mks_hardening.exceptions import DecodeError, MksHardeningError

__all__ = ["UndeclaredTypeError", "ValueType", "return_type_of", "value_type_of"]

Annotation: TypeAlias = Any
"""What stands in an annotation: a class, a union, an alias of either."""
Declared: TypeAlias = Any
"""A value of the declared type."""
Package: TypeAlias = Any
"""An optional package, or an object of it, without types for the parts that we use."""

_LEAVES: Final = frozenset({str, int, float, bool, bytes, date, datetime, time, timedelta, Decimal, UUID})
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict, abc.Sequence, abc.Mapping})
# Larger values are decoded without their types first, so that the items of forged bytes are counted.
_LARGEST_UNCOUNTED: Final = 1 << 21


class UndeclaredTypeError(MksHardeningError, TypeError):
    """An annotation leaves the type of a part open, or has a type that cannot be decoded."""


class ValueType:
    """Packs values of one declared type into plain data, and unpacks them.

    Args:
        annotation: the type; see ``value_type_of``.
        description: text that is equal for equal declarations.
        uses_pydantic: whether Pydantic decodes it.

    Attributes:
        fingerprint: digest of the declaration; another one means that stored values have other fields.
    """

    __slots__ = ("_decode", "_dump", "_encode", "_form", "_load", "fingerprint")

    def __init__(self, annotation: Annotation, description: str, *, uses_pydantic: bool) -> None:
        self.fingerprint: str = blake2b(description.encode(), digest_size=6).hexdigest()
        self._form: Literal["msgpack", "json"] = "json" if uses_pydantic else "msgpack"
        codec = _pydantic_codec(annotation) if uses_pydantic else typed_codec(annotation)
        self._encode, self._decode, self._dump, self._load = codec

    def pack(self, value: Declared) -> object:
        """Return plain data for a value: bytes, or a list for values whose parts the fast format changes.

        A value that does not come back as it was is returned in a tuple, to be stored as it is, or refused.
        """
        try:
            encoded = self._encode(value)
            if _is_same(self._decode(encoded), value):
                return encoded
            # For example a datetime with a named zone, which MessagePack and JSON reduce to its offset.
            data = self._dump(value)
            if _is_same(self._load(data), value):
                return [data]
        except Exception:  # noqa: BLE001 - validators of the caller: the value is not of the declared type
            return (value,)
        return (value,)

    def unpack(self, packed: Declared) -> Declared:
        """Return the value that ``pack`` was given.

        Raises:
            DecodeError: other data, or data of another declaration.
        """
        kind = exact_type(packed)
        if kind is bytes:
            return self._read(packed)
        if kind is tuple and len(packed) == 1:
            return packed[0]
        if kind is list and len(packed) == 1:
            try:
                return self._load(packed[0])
            except Exception as error:
                raise DecodeError(f"not of the declared type: {type(error).__name__}") from error
        raise DecodeError("not a packed value")

    def _read(self, packed: bytes) -> Declared:
        if len(packed) > _LARGEST_UNCOUNTED:
            check_items(packed, form=self._form)
        try:
            return self._decode(packed)
        except Exception as error:
            raise DecodeError(f"not of the declared type: {type(error).__name__}") from error


def _pydantic_codec(annotation: Annotation) -> TypedCodec:
    import pydantic

    # Built once: building it takes a hundred times as long as decoding a record.
    adapter: Package = pydantic.TypeAdapter(annotation)
    options = {"round_trip": True, "by_alias": True, "warnings": "error"}
    dump_json, dump = partial(adapter.dump_json, **options), partial(adapter.dump_python, **options)
    return TypedCodec(dump_json, adapter.validate_json, dump, adapter.validate_python)


def _is_same(one: Declared, other: Declared) -> bool:
    """Return whether two values have the same types and contents, at every level."""
    kind = exact_type(one)
    if kind is not exact_type(other):
        return False
    if kind in {list, tuple}:
        return len(one) == len(other) and all(map(_is_same, one, other))
    if kind is dict:
        return _is_same([*one], [*other]) and _is_same([*one.values()], [*other.values()])
    if kind in {set, frozenset}:
        return sorted(map(repr, one)) == sorted(map(repr, other)) if one == other else False
    if isinstance(one, Enum):
        return one is other
    names = field_names(kind)
    if names is not None:
        # What a Pydantic model holds beyond its fields is not stored.
        names += ("__pydantic_extra__", "__pydantic_private__")
        return all(_is_same(getattr(one, name, None), getattr(other, name, None)) for name in names)
    # Their repr is exact: the zone of a datetime, and NaN, which does not equal itself.
    return kind in _LEAVES | {type(None)} and repr(one) == repr(other)


def return_type_of(function: Callable[..., object]) -> ValueType | None:
    """Return how to pack what a function returns, or None if its annotation declares no class with fields.

    Raises:
        UndeclaredTypeError: it declares one that cannot be decoded.
    """
    own: Any = function
    while hasattr(own, "__wrapped__"):
        own = own.__wrapped__
    called = own if isinstance(own, types.FunctionType) else exact_type(own).__call__  # of a callable object
    try:
        hints = typing.get_type_hints(called, include_extras=True)
    except Exception as error:  # annotations may name anything
        raise UndeclaredTypeError(f"its annotations cannot be resolved: {error}") from error
    return value_type_of(hints.get("return", Any))


def value_type_of(annotation: Annotation) -> ValueType | None:
    """Return how to pack values of an annotation, or None if it is plain data.

    Raises:
        UndeclaredTypeError: a part is left open (``Any``, ``object``, ``list`` without items), or no package can
            decode it.
    """
    described = _Description()
    try:
        text = described.text(annotation)
    except UndeclaredTypeError:
        if described.has_fields:
            raise
        return None
    if not described.has_fields:
        return None
    try:
        return ValueType(annotation, text, uses_pydantic=described.uses_pydantic)
    except ModuleNotFoundError:
        raise UndeclaredTypeError("msgspec is not installed") from None
    except Exception as error:  # for example a union of two dataclasses
        raise UndeclaredTypeError(str(error)) from error


class _Description:
    """Describes annotations as text, each class once.

    Attributes:
        has_fields: whether one of the classes is not plain data.
        uses_pydantic: whether one of them is a model of Pydantic.
    """

    def __init__(self) -> None:
        self.has_fields = False
        self.uses_pydantic = False
        self._seen: set[object] = set()

    def text(self, annotation: Annotation) -> str:
        if annotation is None or annotation is type(None):
            return "None"
        if exact_type(annotation).__hash__ is None:
            raise UndeclaredTypeError(f"a {exact_type(annotation).__name__} is no type")
        origin = _origin(annotation)
        arguments = typing.get_args(annotation)
        if origin is typing.Annotated:
            return self.text(arguments[0])
        if origin in {typing.Union, types.UnionType}:
            return " | ".join(map(self.text, arguments))
        if origin is typing.Literal:
            return f"Literal{[*arguments]!r}"
        if origin in _CONTAINERS:
            return f"{origin.__name__}[{', '.join('...' if one is ... else self.text(one) for one in arguments)}]"
        if origin is not None and isinstance(origin, type):  # a generic class with its arguments
            return f"{self._class(annotation, origin)}[{', '.join(map(self.text, arguments))}]"
        if isinstance(annotation, typing.TypeVar):
            return f"~{annotation.__name__}"
        if hasattr(annotation, "__supertype__"):  # typing.NewType
            return self.text(annotation.__supertype__)
        if hasattr(annotation, "__value__"):  # a type statement
            return self.text(annotation.__value__)
        if annotation in _LEAVES:
            return str(annotation.__name__)
        if isinstance(annotation, type):
            return self._class(annotation, annotation)
        raise UndeclaredTypeError(f"{annotation!r} leaves open what it contains")

    def _class(self, annotation: Annotation, kind: Any) -> str:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if issubclass(kind, Enum):
            self.has_fields = True
            return f"{name}({', '.join(f'{one.name}={one.value!r}' for one in kind)})"
        if not typing.is_typeddict(kind) and field_names(kind) is None:
            raise UndeclaredTypeError(f"{name} declares no fields")
        self.has_fields = True
        self.uses_pydantic |= hasattr(kind, "__pydantic_fields__")
        if annotation in self._seen:
            return f"{name}(...)"
        self._seen.add(annotation)
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except Exception as error:  # as in return_type_of
            raise UndeclaredTypeError(f"the annotations of {name} cannot be resolved: {error}") from error
        return f"{name}({', '.join(self._fields(kind, hints))})"

    def _fields(self, kind: Any, hints: dict[str, Annotation]) -> Iterable[str]:
        required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
        models: Any = getattr(kind, "__pydantic_fields__", {})
        for name in field_names(kind) or hints:
            hint = hints.get(name, Any)
            while _origin(hint) in {typing.Required, typing.NotRequired, typing.ClassVar}:
                (hint,) = typing.get_args(hint)
            alias = getattr(models.get(name), "alias", None)
            # A field that is left open is compared after decoding, as all of them are.
            text = "Any" if hint in {Any, object} else self.text(hint)
            yield f"{name}{'' if name in required else '?'}:{alias or ''}:{text}"


def _origin(annotation: Annotation) -> Any:
    """Return the origin as ``Any``: its declared type says that it is none of the special forms."""
    return typing.get_origin(annotation)
