"""The values that the response cache stores: the entry of a URL, and the responses that depend on request fields.

Values are bytes: a head in JSON, then the body. Caches in memory hand bytes out without a copy, and decoding a head
costs a fraction of decoding nested data.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mks_hardening._core.codec import json_dumps, json_loads
from mks_hardening._edge.response_cache.response_choice import StoredResponse
from mks_hardening.exceptions import DecodeError

__all__ = ["ResponseIndex", "ResponseVariant", "index_of", "index_value", "response_in_slot", "slot_value"]

_LENGTH: Final = 4  # bytes that hold the length of the head


class ResponseVariant(NamedTuple):
    """Where the response for some values of the request fields is.

    Attributes:
        digest: of the values.
        slot: number of the value that holds the response.
        version: of the value in the slot.
        until: when the response is of no more use.
        response: the response, if it is in the entry itself.
    """

    digest: str
    slot: int
    version: str
    until: float
    response: StoredResponse | None


class ResponseIndex(NamedTuple):
    """The entry of a URL: the request fields its responses depend on, and where the responses are.

    A response that depends on no field is in the entry itself, so that reading it takes one round trip. The others
    have one value each. The entry is written under a lease and has the tags; a response in a slot is valid only if
    the entry names its version, so that one lease and one invalidation are enough for all of them.
    """

    names: tuple[str, ...]
    variants: tuple[ResponseVariant, ...]
    route: str | None

    def variant(self, digest: str) -> ResponseVariant | None:
        """Return where the response for these values is."""
        for each in self.variants:
            if each.digest == digest:
                return each
        return None


def index_value(index: ResponseIndex) -> bytes:
    """Return the value of an entry."""
    body = b""
    variants: list[object] = []
    for digest, slot, version, until, response in index.variants:
        fields: list[object] | None = None
        if response is not None:  # it is the only one
            fields, body = _fields(response), response.body
        variants.append([digest, slot, version, until, fields])
    return _packed([index.names, variants, index.route], body)


def index_of(value: object) -> ResponseIndex | None:
    """Return the entry, or ``None``."""
    found = _unpacked(value)
    if found is None:
        return None
    (names, variants, route), body = found
    return ResponseIndex(
        tuple(names),
        tuple(
            ResponseVariant(digest, slot, version, until, None if fields is None else _response(fields, body))
            for digest, slot, version, until, fields in variants
        ),
        route,
    )


def slot_value(version: str, response: StoredResponse) -> bytes:
    """Return the value of a response that depends on request fields."""
    return _packed([version, *_fields(response)], response.body)


def response_in_slot(value: object, variant: ResponseVariant) -> StoredResponse | None:
    """Return the response; None if the slot belongs to another one by now, or this one was invalidated."""
    found = _unpacked(value)
    if found is None:
        return None
    (version, *fields), body = found
    return _response(fields, body) if version == variant.version else None


def _fields(response: StoredResponse) -> list[object]:
    headers, _, *rest = response
    return [headers, *rest]


def _response(fields: list[Any], body: bytes) -> StoredResponse:
    headers, *rest = fields
    return StoredResponse(headers, body, *rest)


def _packed(head: list[object], body: bytes) -> bytes:
    text = json_dumps(head)
    return b"".join((len(text).to_bytes(_LENGTH, "big"), text, body))


def _unpacked(value: object) -> tuple[list[Any], bytes] | None:
    if not isinstance(value, bytes):
        return None
    end = _LENGTH + int.from_bytes(value[:_LENGTH], "big")
    try:
        return json_loads(value[_LENGTH:end]), value[end:]
    except DecodeError:
        return None
