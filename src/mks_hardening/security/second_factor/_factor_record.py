"""Record of the second factors of one user, as an immutable value, and its versioned JSON form.

A store keeps these bytes and replaces them with a compare-and-set; only this module reads them.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple, cast

from mks_hardening.exceptions import DecodeError
from mks_hardening.security.second_factor.failure_budget import NO_FAILURES, ClientFailures, Failures

__all__ = [
    "EMPTY",
    "DeviceRecord",
    "FactorMoment",
    "FactorRecord",
    "PendingSecret",
    "StoredPasskey",
    "decode_record",
    "encode_record",
    "shift_times",
]

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


class FactorMoment(NamedTuple):
    """The current time, as wall time and as the time of the record.

    Attributes:
        wall: the wall clock, for the time step of a code.
        latest: the latest wall time the record has seen, for everything that expires.
    """

    wall: float
    latest: float


def shift_times(record: FactorRecord, by: float) -> FactorRecord:
    """Return the record with all times shifted by ``by`` seconds; used steps remain used."""
    return record._replace(
        verified_at=_later(record.verified_at, by),
        pending=record.pending and record.pending._replace(expires_at=record.pending.expires_at + by),
        failures=_moved_failures(record.failures, by),
        devices=tuple(_moved_device(device, by) for device in record.devices),
        passkeys=tuple(
            passkey._replace(created_at=passkey.created_at + by, used_at=_later(passkey.used_at, by))
            for passkey in record.passkeys
        ),
        touched=record.touched + by,
    )


def _moved_failures(failures: Failures, by: float) -> Failures:
    clients = [
        client._replace(locked_until=client.locked_until + by, last_at=client.last_at + by)
        for client in failures.clients
    ]
    return failures._replace(clients=tuple(clients))


def _moved_device(device: DeviceRecord, by: float) -> DeviceRecord:
    return device._replace(
        expires_at=device.expires_at + by,
        created_at=_later(device.created_at, by),
        used_at=_later(device.used_at, by),
    )


def _later(moment: float | None, by: float) -> float | None:
    return None if moment is None else moment + by


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
        if version == _VERSION:
            return _record(**fields)
        if version == _FIRST_VERSION:
            return _record_of_version_1(**fields)
    # RecursionError: otherwise anyone who can write the row could end the process with ten thousand brackets.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # `from None`: the message of the cause would quote the record.
        raise DecodeError("the stored second factor is damaged") from None
    raise DecodeError("the stored second factor has another version", newer=isinstance(version, int))


def _record(
    *,
    secret: object,
    last_step: object,
    key: object,
    salt: object,
    recovery: object,
    used: object,
    verified_at: object,
    pending: object,
    failures: object,
    devices: object,
    passkeys: object,
    touched: object,
) -> FactorRecord:
    return FactorRecord(
        secret=None if secret is None else _text(secret),
        last_step=_whole(last_step),
        key=_text(key),
        salt=_text(salt),
        recovery=frozenset(_text(known) for known in _list(recovery)),
        used=frozenset(_text(known) for known in _list(used)),
        verified_at=_moment(verified_at),
        pending=None if pending is None else _pending(*_list(pending)),
        failures=_failures(*_list(failures)),
        devices=tuple(_device(*_list(device)) for device in _list(devices)),
        passkeys=tuple(_passkey(*_list(passkey)) for passkey in _list(passkeys)),
        touched=_number(touched),
    )


def _record_of_version_1(*, enrolment_failures: object, **fields: object) -> FactorRecord:
    """Convert a record of version 1, which counted wrong confirmations separately and had no digest key.

    ``_factor_rules`` adds the key on the next change.
    """
    return _record(**fields, key="", used=[], passkeys=[])._replace(
        failures=_together(_failures(*_list(fields["failures"])), _failures(*_list(enrolment_failures)))
    )


def _together(failures: Failures, others: Failures) -> Failures:
    clients = {entry.client: entry for entry in (*others.clients, *failures.clients)}
    # Merges two budgets without lifting a lock of either.
    for entry in others.clients:
        if entry.locked_until > clients[entry.client].locked_until:
            clients[entry.client] = entry
    return Failures(failures.total + others.total, tuple(clients.values()))


def _pending(secret: object, expires_at: object) -> PendingSecret:
    return PendingSecret(_text(secret), _number(expires_at))


def _device(digest: object, expires_at: object, *rest: object) -> DeviceRecord:
    known, until = _text(digest), _number(expires_at)
    if not rest:
        # Devices in records of version 1 have no id. A part of the digest is stable across reads, unlike a new
        # random id.
        return DeviceRecord(known, until, known[:16])
    device_id, name, created_at, used_at = rest
    return DeviceRecord(known, until, _text(device_id), _text(name), _moment(created_at), _moment(used_at))


def _passkey(*parts: object) -> StoredPasskey:
    credential, public_key, handle, sign_count, eligible, backed_up, verified, name, *rest = parts
    created_at, used_at, aaguid, transports = rest
    return StoredPasskey(
        credential=_text(credential),
        public_key=_text(public_key),
        handle=_text(handle),
        sign_count=_whole(sign_count),
        backup_eligible=_truth(eligible),
        backed_up=_truth(backed_up),
        user_verified=_truth(verified),
        name=_text(name),
        created_at=_number(created_at),
        used_at=_moment(used_at),
        aaguid=_text(aaguid),
        transports=tuple(_text(transport) for transport in _list(transports)),
    )


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


def _moment(value: object) -> float | None:
    return None if value is None else _number(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return cast(list[object], value)
