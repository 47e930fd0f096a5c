"""Values of Django's cache as plain data: responses, model instances, query sets and safe strings."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Final, TypeAlias, cast

from mks_hardening._core.canonical_text import canonical, digest, exact_type
from mks_hardening.contrib.django_app._django import (
    FromDjango,
    HttpResponse,
    HttpResponseBase,
    SafeString,
    cached_property,
    model_classes,
    model_of,
)
from mks_hardening.exceptions import DecodeError, EncodeError

__all__ = ["needs_packing", "pack_value", "unpack_value"]

Value: TypeAlias = Any
"""A value of the caller."""

# The first item of every tuple that stands for something else; tuples of callers that begin with it are packed too.
_MARK: Final = "\0mks_hardening.django"
_Packed: TypeAlias = tuple[Any, ...]
_Model, _QuerySet = model_classes()


def pack_value(value: Value) -> object:
    """Return plain data for a value; what the codec rejects itself is returned as it is.

    Raises:
        EncodeError: a response that is not complete, or a field whose value is not plain data.
    """
    return (_MARK, "value", _packed(value, frozenset()))


def unpack_value(stored: Value) -> Value:
    """Return the value for stored data.

    Raises:
        DecodeError: it is of another version of a model, or of an unknown kind.
    """
    return _unpacked(stored) if exact_type(stored) is tuple and _is_marked(stored) else stored


def needs_packing(value: Value) -> bool:
    """Return whether a value must be packed, without looking into containers."""
    return isinstance(value, HttpResponseBase | _Model | _QuerySet | SafeString) or (
        exact_type(value) is tuple and _is_marked(value)
    )


def _is_marked(value: _Packed) -> bool:
    return value[:1] == (_MARK,)


def _packed(value: Value, outer: frozenset[int]) -> object:
    """Return plain data; ``outer`` are the ids of the instances that contain the value."""
    kind = exact_type(value)
    if kind is list:
        return [_packed(item, outer) for item in value]
    if kind is set or kind is frozenset:  # what stands for an instance is not hashable
        return (_MARK, kind.__name__, [_packed(item, outer) for item in value])
    if kind is tuple:
        items = tuple(_packed(item, outer) for item in value)
        return (_MARK, "tuple", *items) if _is_marked(items) else items
    if kind is dict:
        return {key: _packed(item, outer) for key, item in value.items()}
    if isinstance(value, SafeString):
        return (_MARK, "safe", str.__str__(value))
    if isinstance(value, _QuerySet):
        return [_packed(item, outer) for item in value]
    if isinstance(value, _Model):
        return _packed_instance(value, outer)
    return _packed_response(value) if isinstance(value, HttpResponseBase) else value


def _unpacked(stored: Value) -> Value:
    kind = exact_type(stored)
    if kind is list:
        return [_unpacked(item) for item in stored]
    if kind is dict:
        return {key: _unpacked(item) for key, item in stored.items()}
    if kind is not tuple:
        return stored
    if not _is_marked(stored):
        return tuple(_unpacked(item) for item in stored)
    try:
        return _KINDS[stored[1]](stored)
    except (KeyError, IndexError, TypeError, ValueError, LookupError) as error:
        raise DecodeError(f"not a value of this application: {type(error).__name__}") from None


# --- model instances -----------------------------------------------------------------------------


def _packed_instance(instance: FromDjango, outer: frozenset[int]) -> _Packed:
    meta, held = instance._meta, instance.__dict__  # noqa: SLF001 - documented by Django
    inside = outer | {id(instance)}
    fields = [field for field in meta.concrete_fields if field.attname in held]
    values = [_packed(_field_value(field, held[field.attname]), inside) for field in fields]
    others = {
        name: _packed(value, inside)
        for name, value in held.items()
        if not name.startswith("_")
        and name not in _attnames(instance.__class__)
        and not _is_derived(instance, name)
    }
    related = {
        field.name: _packed(of, inside)
        for field in fields
        if field.is_relation
        and field.is_cached(instance)
        and (of := field.get_cached_value(instance)) is not None
        and id(of) not in inside  # a cycle: it is read again
    }
    state = instance._state  # noqa: SLF001 - documented by Django
    names = [field.attname for field in fields]
    version = _model_version(instance.__class__)
    return (_MARK, "model", meta.label_lower, version, state.db, state.adding, names, values, others, related)


def _unpacked_instance(stored: _Packed) -> object:
    _mark, _kind, label, version, db, adding, names, values, others, related = stored
    model = model_of(label)
    if _model_version(model) != version:
        raise DecodeError(f"an instance of another version of {label}")
    instance: FromDjango = model.from_db(db, names, [_unpacked(value) for value in values])
    instance._state.adding = adding  # noqa: SLF001 - documented by Django
    instance.__dict__.update({name: _unpacked(value) for name, value in others.items() if name[0] != "_"})
    for name, of in related.items():
        instance._meta.get_field(name).set_cached_value(instance, _unpacked(of))  # noqa: SLF001
    return instance


def _field_value(field: FromDjango, value: Value) -> object:
    """Return what a field has after it is read from the database, as plain data."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, memoryview):
        return bytes(cast("memoryview[int]", value))
    if isinstance(value, str):
        return str.__str__(value)
    # Files are stored by name; other classes of fields tell what they store.
    return str(field.get_prep_value(value)) if hasattr(value, "storage") else value


def _is_derived(instance: object, name: str) -> bool:
    return isinstance(getattr(type(instance), name, None), cached_property)


@cache
def _attnames(model: FromDjango) -> frozenset[str]:
    return frozenset(field.attname for field in model._meta.concrete_fields)  # noqa: SLF001


@cache
def _model_version(model: FromDjango) -> str:
    """Return a digest of the fields of a model."""
    fields = [
        (field.attname, type(field).__module__, type(field).__qualname__)
        for field in model._meta.concrete_fields  # noqa: SLF001 - documented by Django
    ]
    return digest(canonical(tuple(fields)))


# --- responses -----------------------------------------------------------------------------------


def _packed_response(response: FromDjango) -> _Packed:
    if response.streaming or not getattr(response, "is_rendered", True):
        raise EncodeError(
            "a response can be cached when it is complete: not a streaming one, nor one to be rendered"
        )
    if response.cookies:
        raise EncodeError("a response that sets a cookie is for one visitor only")
    headers = [(name, value) for name, value in response.headers.items()]
    return (_MARK, "response", response.status_code, response.reason_phrase, headers, bytes(response.content))


def _unpacked_response(stored: _Packed) -> object:
    _mark, _kind, status, reason, headers, content = stored
    return HttpResponse(content, status=status, reason=reason, headers=dict(headers))


_KINDS: Final[dict[str, Callable[[_Packed], object]]] = {
    "value": lambda stored: _unpacked(stored[2]),
    "tuple": lambda stored: tuple(_unpacked(item) for item in stored[2:]),
    "set": lambda stored: {_unpacked(item) for item in stored[2]},
    "frozenset": lambda stored: frozenset(_unpacked(item) for item in stored[2]),
    "safe": lambda stored: SafeString(stored[2]),
    "model": _unpacked_instance,
    "response": _unpacked_response,
}
