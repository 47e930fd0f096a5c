"""The second factor of one user as one immutable value, and its stored form (JSON, versioned).

A store keeps these bytes and replaces them by compare-and-set; nothing but this module reads them.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple, cast

from mks_hardening.exceptions import DecodeError
from mks_hardening.security.failure_budget import NO_FAILURES, ClientFailures, Failures

__all__ = ["EMPTY", "Device", "FactorRecord", "Pending", "decode_record", "encode_record"]

_VERSION: Final = 1


class Pending(NamedTuple):
    """A secret that was shown and waits for its first code."""

    secret: str
    expires_at: float


class Device(NamedTuple):
    """A remembered device, by the digest of its token."""

    digest: str
    expires_at: float


class FactorRecord(NamedTuple):
    """All that is known of one user's second factor.

    Attributes:
        secret: the active secret, encrypted; ``None`` while the factor is off.
        last_step: the step of the code accepted last; it only grows.
        salt: salt of the recovery hashes.
        recovery: hashes of the recovery codes not used yet.
        verified_at: wall time of the last success.
        pending: the enrolment that waits for confirmation.
        failures: wrong codes.
        enrolment_failures: wrong codes at confirmation.
        devices: remembered devices.
        touched: latest wall time seen; a clock that steps back does not revive what had expired.
    """

    secret: str | None = None
    last_step: int = -1
    salt: str = ""
    recovery: tuple[str, ...] = ()
    verified_at: float | None = None
    pending: Pending | None = None
    failures: Failures = NO_FAILURES
    enrolment_failures: Failures = NO_FAILURES
    devices: tuple[Device, ...] = ()
    touched: float = 0.0


EMPTY: Final = FactorRecord()


def encode_record(record: FactorRecord) -> bytes:
    """The stored form."""
    return json.dumps({"v": _VERSION, **record._asdict()}, separators=(",", ":")).encode("ascii")


def decode_record(data: bytes) -> FactorRecord:
    """The record behind stored bytes.

    Raises:
        DecodeError: damaged, or of a newer version. It is never taken for "no second factor".
    """
    try:
        fields = json.loads(data)
        version = fields.pop("v")
        if version == _VERSION:
            return _record(**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DecodeError("the stored second factor is damaged") from None
    raise DecodeError("the stored second factor has another version", newer=isinstance(version, int))


def _record(
    *,
    secret: object,
    last_step: object,
    salt: object,
    recovery: object,
    verified_at: object,
    pending: object,
    failures: object,
    enrolment_failures: object,
    devices: object,
    touched: object,
) -> FactorRecord:
    return FactorRecord(
        secret=None if secret is None else _text(secret),
        last_step=_whole(last_step),
        salt=_text(salt),
        recovery=tuple(_text(known) for known in _list(recovery)),
        verified_at=None if verified_at is None else _number(verified_at),
        pending=None if pending is None else _pending(*_list(pending)),
        failures=_failures(*_list(failures)),
        enrolment_failures=_failures(*_list(enrolment_failures)),
        devices=tuple(_device(*_list(device)) for device in _list(devices)),
        touched=_number(touched),
    )


def _pending(secret: object, expires_at: object) -> Pending:
    return Pending(_text(secret), _number(expires_at))


def _device(digest: object, expires_at: object) -> Device:
    return Device(_text(digest), _number(expires_at))


def _failures(total: object, clients: object) -> Failures:
    return Failures(_whole(total), tuple(_client(*_list(client)) for client in _list(clients)))


def _client(
    client: object, wrong: object, locks: object, locked_until: object, last_at: object
) -> ClientFailures:
    return ClientFailures(
        _text(client), _whole(wrong), _whole(locks), _number(locked_until), _number(last_at)
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
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
