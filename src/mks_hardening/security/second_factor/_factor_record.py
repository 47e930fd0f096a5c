"""Record of the second factors of one user, as an immutable value, and its versioned JSON form.

A store keeps these bytes and replaces them with a compare-and-set; only this module reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

from mks_hardening.exceptions import DecodeError
from mks_hardening.security.second_factor.failure_budget import NO_FAILURES, ClientFailures, Failures

__all__ = [
    "EMPTY",
    "DeviceRecord",
    "FactorRecord",
    "PendingSecret",
    "RecordTime",
    "StoredPasskey",
    "decode_record",
    "encode_record",
    "shift_times",
]

T = TypeVar("T")

# To be increased whenever an older release could misread what a newer one wrote: both run during a roll-out.
_VERSION: Final = 2
_FIRST_VERSION: Final = 1


class PendingSecret(NamedTuple):
    """A secret that was shown to the user and awaits its first code."""

    secret: str
    expires_at: float


class DeviceRecord(NamedTuple):
    """A remembered device.

    Attributes:
        digest: keyed digest of its token.
        expires_at: wall time from which it is no longer remembered.
        id: used in lists and revocations; reveals nothing about the token.
        name: the owner's name for it.
        created_at: wall time; ``None`` if it comes from a record of version 1.
        used_at: wall time of its last use, updated once a day.
    """

    digest: str
    expires_at: float
    id: str
    name: str = ""
    created_at: float | None = None
    used_at: float | None = None


class StoredPasskey(NamedTuple):
    """A passkey of this user.

    Attributes:
        credential: its id, in base64url.
        public_key: COSE in base64url.
        handle: its user handle, in base64url; random, so that it reveals nothing.
        sign_count: its counter at the last use; the counter of a clone falls behind.
        backup_eligible: it may be copied; this never changes (WebAuthn level 3, section 6.1.3).
        backed_up: a copy existed at the last use.
        user_verified: it verified its user once, as part of a sign-in with another factor.
        name: the owner's name for it.
        created_at: wall time.
        used_at: wall time of the last use.
        aaguid: model of the authenticator.
        transports: how the authenticator may be reached.
    """

    credential: str
    public_key: str
    handle: str
    sign_count: int
    backup_eligible: bool
    backed_up: bool
    user_verified: bool
    name: str
    created_at: float
    used_at: float | None
    aaguid: str
    transports: tuple[str, ...]


class FactorRecord(NamedTuple):
    """All data about the second factors of one user.

    Attributes:
        secret: the active secret, encrypted; ``None`` without TOTP.
        last_step: the step of the last accepted code; it never decreases.
        key: key of the digests below, encrypted; empty in a record of version 1.
        salt: salt of the recovery codes.
        recovery: digests of the unused recovery codes.
        used: digests of the used ones, so that a replay is recognised.
        verified_at: wall time of the last success.
        pending: the enrolment that awaits confirmation.
        failures: wrong codes of every kind.
        devices: remembered devices.
        passkeys: passkeys.
        touched: latest wall time seen, so that setting back a clock does not revive expired data.
    """

    secret: str | None = None
    last_step: int = -1
    key: str = ""
    salt: str = ""
    recovery: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    verified_at: float | None = None
    pending: PendingSecret | None = None
    failures: Failures = NO_FAILURES
    devices: tuple[DeviceRecord, ...] = ()
    passkeys: tuple[StoredPasskey, ...] = ()
    touched: float = 0.0

    @property
    def enabled(self) -> bool:
        """Whether a second factor is required to sign in."""
        return self.secret is not None or bool(self.passkeys)


EMPTY: Final = FactorRecord()


class RecordTime(NamedTuple):
    """The current time, as wall time and as the time of the record.

    Attributes:
        wall: the wall clock, for the time step of a code.
        latest: the latest wall time the record has seen, for everything that expires.
    """

    wall: float
    latest: float


def shift_times(record: FactorRecord, by: float) -> FactorRecord:
    """Return the record with all times shifted by ``by`` seconds; used steps remain used."""

    def shifted(moment: float | None) -> float | None:
        return None if moment is None else moment + by

    clients = tuple(
        client._replace(locked_until=client.locked_until + by, last_at=client.last_at + by)
        for client in record.failures.clients
    )
    return record._replace(
        verified_at=shifted(record.verified_at),
        pending=record.pending and record.pending._replace(expires_at=record.pending.expires_at + by),
        failures=record.failures._replace(clients=clients),
        devices=tuple(
            device._replace(
                expires_at=device.expires_at + by,
                created_at=shifted(device.created_at),
                used_at=shifted(device.used_at),
            )
            for device in record.devices
        ),
        passkeys=tuple(
            passkey._replace(created_at=passkey.created_at + by, used_at=shifted(passkey.used_at))
            for passkey in record.passkeys
        ),
        touched=record.touched + by,
    )


def encode_record(record: FactorRecord) -> bytes:
    """Return the stored form."""
    # ``default=sorted`` converts the frozen sets to lists in a fixed order, so that equal records are equal
    # bytes.
    return json.dumps({"v": _VERSION, **record._asdict()}, separators=(",", ":"), default=sorted).encode(
        "ascii"
    )


def decode_record(data: bytes) -> FactorRecord:
    """Return the record of stored bytes.

    Raises:
        DecodeError: damaged, or of a newer version. Such a record never counts as "no second factor".
    """
    try:
        fields = json.loads(data)
        version = fields.pop("v")
        if version == _FIRST_VERSION:
            return _record_of_version_1(fields)
        if version == _VERSION:
            return _record(fields)
    # RecursionError: otherwise anyone who can write the row could end the process with ten thousand brackets.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # `from None`: the message of the cause would quote the record.
        raise DecodeError("the stored second factor is damaged") from None
    raise DecodeError("the stored second factor has an unknown version", newer=isinstance(version, int))


def _record_of_version_1(fields: dict[str, object]) -> FactorRecord:
    """Convert a record of version 1, which counted wrong confirmations separately and had no digest key.

    ``_factor_rules`` adds the key on the next change.
    """
    others = _FAILURES(fields.pop("enrolment_failures"))
    record = _record({**fields, "key": "", "used": [], "passkeys": []})
    clients = {entry.client: entry for entry in (*others.clients, *record.failures.clients)}
    # Merges two budgets without lifting a lock of either.
    for entry in others.clients:
        if entry.locked_until > clients[entry.client].locked_until:
            clients[entry.client] = entry
    total = record.failures.total + others.total
    return record._replace(failures=Failures(total, tuple(clients.values())))


def _record(fields: dict[str, object]) -> FactorRecord:
    if fields.keys() != _RECORD.keys():
        raise ValueError
    return FactorRecord(**{name: parse(fields[name]) for name, parse in _RECORD.items()})


def _device(value: object) -> DeviceRecord:
    parts = _list(value)
    if len(parts) == 2:
        # Devices in records of version 1 have no id. A part of the digest is stable across reads, unlike a new
        # random id.
        return DeviceRecord(_text(parts[0]), _number(parts[1]), _text(parts[0])[:16])
    return _DEVICE(parts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    # ``True`` is an int in Python, and a ``last_step`` of 1 would let a code be used again.
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return cast(list[object], value)


def _optional(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else parse(value)


def _items(parse: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    return lambda value: tuple([parse(item) for item in _list(value)])


def _fields(make: Callable[..., T], *parsers: Callable[[object], object]) -> Callable[[object], T]:
    """Return a parser for a list with one item for each field of a value."""
    return lambda value: make(*[parse(item) for parse, item in zip(parsers, _list(value), strict=True)])


_TEXTS: Final = _items(_text)
_CLIENT: Final = _fields(ClientFailures, _text, _whole, _whole, _number, _number)
_FAILURES: Final = _fields(Failures, _whole, _items(_CLIENT))
_DEVICE: Final = _fields(DeviceRecord, _text, _number, _text, _text, _optional(_number), _optional(_number))
_PASSKEY: Final = _fields(
    StoredPasskey,
    *(_text, _text, _text, _whole, _truth, _truth, _truth, _text),
    *(_number, _optional(_number), _text, _TEXTS),
)
_RECORD: Final[dict[str, Callable[[object], Any]]] = {
    "secret": _optional(_text),
    "last_step": _whole,
    "key": _text,
    "salt": _text,
    "recovery": lambda value: frozenset(_TEXTS(value)),
    "used": lambda value: frozenset(_TEXTS(value)),
    "verified_at": _optional(_number),
    "pending": _optional(_fields(PendingSecret, _text, _number)),
    "failures": _FAILURES,
    "devices": _items(_device),
    "passkeys": _items(_PASSKEY),
    "touched": _number,
}
