"""Snapshot of a log record taken on the caller's thread, and the alert that the worker creates from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.redaction.plain_data import Bounds
from mks_hardening._core.redaction.record_text import RecordText
from mks_hardening._core.trace_text import safe_text

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening._core.redaction.record_text import RecordSnapshot
    from mks_hardening.notify.engine._fingerprint import Fingerprint
    from mks_hardening.protocols import Redactor

__all__ = ["Alert", "AlertOrigin", "AlertSnapshot", "alert_from", "moment_of", "reader_for", "snapshot_of"]

# datetime ends in the year 9999, and a time zone may add half a day.
_LATEST: Final = 253_370_764_800.0  # start of the year 9999
# Alerts are read on phones; the log contains the full text.
_MAX_MESSAGE: Final = 8192
_MAX_FIELD: Final = 1000
_MAX_FIELDS: Final = 40
_MAX_EXCEPTION: Final = 4 * _MAX_MESSAGE
_BOUNDS: Final = Bounds(characters=_MAX_FIELD, members=_MAX_FIELDS, volume=2048 * _MAX_FIELDS)


class AlertSnapshot(NamedTuple):
    """Data that must be read before the log call returns; the worker does the rest."""

    kind: Fingerprint
    record: RecordSnapshot
    created: float
    level: str
    logger: str
    place: tuple[str, int, str]
    repeats: int


class AlertOrigin(NamedTuple):
    """Origin of the alerts of this process."""

    host: str
    environment: str


class Alert(NamedTuple):
    """One alert, without secrets and with text and numbers only.

    Attributes:
        id: unique id, the same for all attempts and copies.
        fingerprint: equal for repetitions of the same problem.
        created: wall time of the record, or of the last repetition.
        level: level name.
        logger: name of the logger.
        message: formatted message.
        place: file, line and function.
        exception: exceptions with causes and stack, or empty.
        request_id: id of the current request, or empty.
        fields: context and ``extra`` fields.
        host: host name.
        environment: for example ``production``, or empty.
        repeats: number of repetitions reported with this alert.
        since: wall time of the first repetition.
        digest: whether the alert only reports repetitions.
    """

    id: str
    fingerprint: str
    created: float
    level: str
    logger: str
    message: str
    place: str = ""
    exception: str = ""
    request_id: str = ""
    fields: Mapping[str, str] = {}
    host: str = ""
    environment: str = ""
    repeats: int = 0
    since: float = 0.0
    digest: bool = False

    @property
    def weight(self) -> int:
        """Number of log records that this alert counts for; repetitions are already counted as suppressed."""
        return 0 if self.digest else 1


def snapshot_of(
    record: LogRecord, taken: RecordSnapshot, *, kind: Fingerprint, repeats: int
) -> AlertSnapshot:
    """Collect the data that the worker needs besides the text of the record."""
    return AlertSnapshot(
        kind,
        taken,
        record.created,
        record.levelname,
        record.name,
        (record.pathname, record.lineno, record.funcName or ""),
        repeats,
    )


def alert_from(taken: AlertSnapshot, *, id: str, origin: AlertOrigin, reader: RecordText) -> Alert:  # noqa: A002
    """Convert a snapshot to an alert without secrets."""
    record, reader = taken.record, reader.of_one_record()
    message = _plain(reader.clean_text(record.message), _MAX_MESSAGE)
    texts = _texts(reader.clean_fields(record.context, record.fields))
    return Alert(
        id=id,
        fingerprint=taken.kind.digest(),
        # Time of the log call, not the current time: the alert may have been queued, or spooled for hours.
        created=moment_of(taken.created),
        level=_plain(taken.level, 40),
        logger=_plain(reader.clean_text(taken.logger), 200),
        message=message,
        place=_plain("{}:{} {}".format(*taken.place), 400),
        exception=_exception_text(record, reader),
        request_id=texts.pop("request_id", ""),
        fields=texts,
        host=_plain(origin.host, 100),
        environment=_plain(origin.environment, 100),
        repeats=taken.repeats,
    )


def reader_for(redactor: Redactor) -> RecordText:
    """Return a reader that limits records to what an alert can show."""
    return RecordText(redactor, bounds=_BOUNDS, longest=_MAX_EXCEPTION)


def moment_of(created: float) -> float:
    """Return a time that every calendar can represent; a record may contain any number."""
    return created if 0.0 <= created <= _LATEST else 0.0


def _exception_text(record: RecordSnapshot, reader: RecordText) -> str:
    parts: list[str] = []
    if record.error is not None:
        parts.append(reader.clean_exception(record.error).text)
    if record.stack:
        parts.append(reader.clean_text(record.stack))
    return _plain("\n".join(parts), _MAX_EXCEPTION)


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    some = list(fields.items())[:_MAX_FIELDS]
    return {_plain(safe_text(name), 100): _plain(safe_text(value), _MAX_FIELD) for name, value in some}


def _plain(text: str, limit: int) -> str:
    """Return text that can be encoded and displayed: without lone surrogates, control and direction characters."""
    # Truncate first as well: the following steps only make the text longer.
    kept = _cut(text.replace("\r\n", "\n"), limit).encode("utf-8", "backslashreplace").decode()
    return _cut(kept.translate(_INVISIBLE), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# C0 and C1 without tab and newline, line and paragraph separators, bidirectional controls.
_INVISIBLE: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0))},
    **{
        code: f"\\u{code:04x}"
        for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
    },
}
