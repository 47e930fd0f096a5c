"""Re-encryption of stored secrets with the first key, in batches, while users sign in."""

from __future__ import annotations

from collections import Counter

from mks_hardening._core.checks import text_of, whole_number
from mks_hardening._core.operation_methods import async_method, sync_method
from mks_hardening._core.operations import Op
from mks_hardening.exceptions import DecodeError
from mks_hardening.security.second_factor._component import FactorComponent
from mks_hardening.security.second_factor._factor_record import FactorRecord, RecordTime
from mks_hardening.security.second_factor._notifications import emit_event
from mks_hardening.security.second_factor.factor_results import ReencryptionProgress

__all__ = ["Reencryption"]


class Reencryption(FactorComponent):
    """Key rotation of the secret box."""

    @sync_method
    def reencrypt(self, *, batch: int = 100, cursor: str | None = None) -> Op[ReencryptionProgress]:
        """Encrypt one batch of records with the first key of the secret box.

        Call it with the cursor of the previous result until the cursor is ``None``. You can start again at any
        time: secrets under the first key are left alone. Users can sign in during the rotation.

        Args:
            batch: approximate number of records to read.
            cursor: where to continue.

        Raises:
            ConfigurationError: ``batch`` is not a whole number of at least 1, or the cursor is not a string.
        """
        limit = whole_number(batch, parameter="batch", minimum=1)
        if cursor is not None:
            text_of(cursor, parameter="cursor")
        user_ids, following = yield from self._records.page(cursor, limit=limit)
        outcomes: Counter[str] = Counter()
        for user_id in user_ids:
            outcomes[(yield from self._resealed(user_id))] += 1
        return ReencryptionProgress(
            examined=outcomes.total(),
            changed=outcomes["changed"],
            failed=outcomes["failed"],
            cursor=following,
        )

    @async_method(reencrypt)
    def areencrypt(self) -> None:
        """``reencrypt`` for asyncio."""

    def _resealed(self, user_id: str) -> Op[str]:
        def decide(record: FactorRecord, _: RecordTime) -> tuple[FactorRecord, str]:
            after = self._rules.resealed(record, user_id)
            return after, "changed" if after != record else "kept"

        try:
            return (yield from self._records.change(user_id, decide))
        except DecodeError:
            emit_event("reencryption_failed", user_id)
            return "failed"
