"""The second factor of one user as one immutable value, and its stored form (JSON, versioned).

A store keeps these bytes and replaces them by compare-and-set; nothing but this module reads them.
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
    "moved",
]

# Raised whenever an older release could misread what a newer one wrote; both run side by side during a roll-out.
_VERSION: Final = 2
_FIRST_VERSION: Final = 1


class PendingSecret(NamedTuple):
    """A secret that was shown and waits for its first code."""

    secret: str
    expires_at: float


class DeviceRecord(NamedTuple):
    """A remembered device.

    Attributes:
        digest: keyed digest of its token.
        expires_at: wall time from which it is a stranger again.
        id: what it is called in lists and revocations; tells nothing of the token.
        name: what its owner calls it.
        created_at: wall time; ``None`` where the first form of records did not keep it.
        used_at: wall time of its last use, kept by the day.
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
        handle: what it was told to call its owner, in base64url; random, so that it tells nothing.
        sign_count: its counter at the last use; a clone falls behind.
        backup_eligible: it may be copied; this never changes (WebAuthn level 3, section 6.1.3).
        backed_up: a copy existed at the last use.
        user_verified: it verified its user once, as part of a sign-in with another factor.
        name: what its owner calls it.
        created_at: wall time.
        used_at: wall time of the last use.
        aaguid: model of the authenticator.
        transports: how it may be reached.
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
    """All that is known of one user's second factor.

    Attributes:
        secret: the active secret, encrypted; ``None`` while the factor is off.
        last_step: the step of the code accepted last; it only grows.
        key: key of the digests below, encrypted; empty in a record that was written before there were keys.
        salt: salt of the recovery codes.
        recovery: digests of the recovery codes not used yet.
        used: digests of those that were used, so that a repetition is known for what it is.
        verified_at: wall time of the last success.
        pending: the enrolment that waits for confirmation.
        failures: wrong codes of every kind.
        devices: remembered devices.
        passkeys: passkeys.
        touched: latest wall time seen; a clock that steps back does not revive what had expired.
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
        """Whether a second factor is needed to sign in."""
        return self.secret is not None or bool(self.passkeys)


EMPTY: Final = FactorRecord()


class FactorMoment(NamedTuple):
    """Now, twice.

    Attributes:
        wall: the wall clock, for the time step of a code.
        latest: the latest wall time the record has seen, for everything that expires.
    """

    wall: float
    latest: float


def moved(record: FactorRecord, by: float) -> FactorRecord:
    """The record with all its times later (or earlier) by so many seconds; used steps stay used."""
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
    """The stored form."""
    # `default=sorted` turns the frozen sets into lists in a fixed order, so that equal records are equal bytes.
    return json.dumps({"v": _VERSION, **record._asdict()}, separators=(",", ":"), default=sorted).encode(
        "ascii"
    )


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
        if version == _FIRST_VERSION:
            return _record_of_first_version(**fields)
    # RecursionError: whoever can write the row could otherwise end the process by ten thousand brackets.
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


def _record_of_first_version(*, enrolment_failures: object, **fields: object) -> FactorRecord:
    """Confirmation had a budget of its own, and digests no key: ``_factor_rules`` adds one on the next change."""
    return _record(**fields, key="", used=[], passkeys=[])._replace(
        failures=_together(_failures(*_list(fields["failures"])), _failures(*_list(enrolment_failures)))
    )


def _together(failures: Failures, others: Failures) -> Failures:
    clients = {entry.client: entry for entry in (*others.clients, *failures.clients)}
    # Two budgets become one without lifting a lock that either of them holds.
    for entry in others.clients:
        if entry.locked_until > clients[entry.client].locked_until:
            clients[entry.client] = entry
    return Failures(failures.total + others.total, tuple(clients.values()))


def _pending(secret: object, expires_at: object) -> PendingSecret:
    return PendingSecret(_text(secret), _number(expires_at))


def _device(digest: object, expires_at: object, *rest: object) -> DeviceRecord:
    known, until = _text(digest), _number(expires_at)
    if not rest:
        # Devices of the first form had no id. A part of the digest stays the same on every read, which a new
        # random one would not.
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
    # `True` is an int in Python, and a `last_step` of 1 would let a code be used again.
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
