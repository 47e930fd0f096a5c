"""Remembered devices: a random token in a cookie, a keyed digest in the record, and a list for the owner."""

from __future__ import annotations

import secrets
from typing import Final

from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.exceptions import ConfigurationError, InvalidCodeError
from mks_hardening.security.second_factor._component import FactorComponent
from mks_hardening.security.second_factor._factor_record import DeviceRecord, FactorRecord, RecordTime
from mks_hardening.security.second_factor._factor_rules import device_of, is_token
from mks_hardening.security.second_factor._notifications import emit_event
from mks_hardening.security.second_factor.factor_results import RememberedDevice

__all__ = ["RememberedDevices", "shown_name"]

# 256 bits cannot be guessed, so ``check_device`` needs neither a failure budget nor a slow hash.
_TOKEN_BYTES: Final = 32
_ID_BYTES: Final = 8
_LONGEST_NAME: Final = 64
_DAY: Final = 86400.0


class RememberedDevices(FactorComponent):
    """Remember, recognise, list, rename and forget devices."""

    @sync_method
    def remember_device(self, user_id: str, *, name: str = "") -> Op[str]:
        """Issue a token that identifies this device, for a cookie (``Secure``, ``HttpOnly``, ``SameSite=Lax``).

        Call it right after a code was accepted. Only a keyed digest is stored.

        Args:
            user_id: the id of the account.
            name: shown to the owner in the list, for example ``Firefox on Windows``.

        Raises:
            InvalidCodeError: the account has no second factor.
            ConfigurationError: the name is not printable, or longer than 64 characters.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        shown, device_id = shown_name(name), secrets.token_hex(_ID_BYTES)

        # The token is generated outside of ``decide``, which runs again after a conflict: the stored digest must
        # be that of the returned token.
        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, bool]:
            if not record.enabled:
                return record, False
            record, digests = self._rules.keyed(record, user_id)
            now = moment.latest
            expires_at = now + self._options.device_ttl
            device = DeviceRecord(digests.of_device(user_id, token), expires_at, device_id, shown, now, now)
            return _with_device(record, device, now=now, most=self._options.max_devices), True

        if not (yield from self._records.change(user_id, decide)):
            raise InvalidCodeError("not_enrolled")
        emit_event("device_remembered", user_id)
        return token

    @async_method(remember_device)
    def aremember_device(self) -> None:
        """``remember_device`` for asyncio."""

    @sync_method
    def check_device(self, user_id: str, token: str | None) -> Op[bool]:
        """Return whether the token belongs to a remembered device of this user that has not expired."""
        if not is_token(token):
            return False
        record, now = yield from self._records.read(user_id)
        known = self._known(record, user_id, token, now)
        # At most one write a day per device: ``used_at`` is only displayed, and a write on every sign-in would
        # cause conflicts between sign-ins on several devices.
        if known is not None and now - (known.used_at or 0.0) > _DAY:
            yield from self._records.change(
                user_id, lambda record, moment: (_used(record, known, moment), None)
            )
        return known is not None

    @async_method(check_device)
    def acheck_device(self) -> None:
        """``check_device`` for asyncio."""

    @sync_method
    def devices(self, user_id: str, *, token: str | None = None) -> Op[tuple[RememberedDevice, ...]]:
        """Return the remembered devices of a user, newest first.

        Args:
            user_id: the id of the account.
            token: the token of the current browser, so that its own entry is marked ``current``.
        """
        record, now = yield from self._records.read(user_id)
        known = self._known(record, user_id, token, now) if is_token(token) else None
        return tuple(
            RememberedDevice(
                id=device.id,
                name=device.name,
                created_at=device.created_at,
                used_at=device.used_at,
                expires_at=device.expires_at,
                current=known is not None and device.id == known.id,
            )
            # A record of version 1 may still contain devices of a factor that was turned off.
            for device in reversed(record.devices)
            if record.enabled and now < device.expires_at
        )

    @async_method(devices)
    def adevices(self) -> None:
        """``devices`` for asyncio."""

    @sync_method
    def rename_device(self, user_id: str, device_id: str, *, name: str) -> Op[bool]:
        """Rename a device; return whether it exists.

        Raises:
            ConfigurationError: the name is not printable, or longer than 64 characters.
        """
        shown = shown_name(name)

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, bool]:
            devices = tuple(
                device._replace(name=shown) if device.id == device_id else device for device in record.devices
            )
            return record._replace(devices=devices), _has(record, device_id, now=moment.latest)

        return (yield from self._records.change(user_id, decide))

    @async_method(rename_device)
    def arename_device(self) -> None:
        """``rename_device`` for asyncio."""

    @sync_method
    def revoke_device(self, user_id: str, device_id: str) -> Op[bool]:
        """Forget one device by its id in the list; return whether it existed."""

        def decide(record: FactorRecord, moment: RecordTime) -> tuple[FactorRecord, bool]:
            kept = tuple(device for device in record.devices if device.id != device_id)
            return record._replace(devices=kept), _has(record, device_id, now=moment.latest)

        revoked = yield from self._records.change(user_id, decide)
        if revoked:
            emit_event("device_revoked", user_id)
        return revoked

    @async_method(revoke_device)
    def arevoke_device(self) -> None:
        """``revoke_device`` for asyncio."""

    @sync_method
    def forget_devices(self, user_id: str) -> Op[int]:
        """Forget all remembered devices; return their number."""

        def decide(record: FactorRecord, _: RecordTime) -> tuple[FactorRecord, int]:
            return record._replace(devices=()), len(record.devices)

        number = yield from self._records.change(user_id, decide)
        if number:
            emit_event("devices_forgotten", user_id)
        return number

    @async_method(forget_devices)
    def aforget_devices(self) -> None:
        """``forget_devices`` for asyncio."""

    def _known(self, record: FactorRecord, user_id: str, token: str, now: float) -> DeviceRecord | None:
        # Without devices, decrypting the digest key is unnecessary.
        if not record.devices:
            return None
        keyed, digests = self._rules.keyed(record, user_id)
        return device_of(keyed, digests.of_device(user_id, token), now=now)


def shown_name(name: object, *, parameter: str = "name", blank: bool = True) -> str:
    """Validate a display name and strip surrounding blanks.

    Raises:
        ConfigurationError: it is not printable, too long, or blank where a name is required.
    """
    shown = name.strip() if isinstance(name, str) else None
    if shown is None or not shown.isprintable() or len(shown) > _LONGEST_NAME or not (shown or blank):
        raise ConfigurationError(
            f"{parameter} must be printable and at most {_LONGEST_NAME} characters", parameter=parameter
        )
    return shown


def _has(record: FactorRecord, device_id: str, *, now: float) -> bool:
    return any(device.id == device_id and now < device.expires_at for device in record.devices)


def _used(record: FactorRecord, known: DeviceRecord, moment: RecordTime) -> FactorRecord:
    devices = tuple(
        device._replace(used_at=moment.latest) if device.id == known.id else device
        for device in record.devices
    )
    return record._replace(devices=devices)


def _with_device(record: FactorRecord, device: DeviceRecord, *, now: float, most: int) -> FactorRecord:
    """Return the record with one more device, which replaces the one that expires first if there are too many."""
    # Expired devices are removed here, without a job: the record is being written anyway.
    alive = sorted((d for d in record.devices if d.expires_at > now), key=lambda known: known.expires_at)
    kept = alive[max(0, len(alive) - most + 1) :]
    return record._replace(devices=(*kept, device))
