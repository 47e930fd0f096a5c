"""What is taken from a log record on the caller's thread, and the alert that the worker makes of it."""

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

# datetime ends with the year 9999, and a time zone may add half a day to it.
_LATEST: Final = 253_370_764_800.0  # the year 9999 begins
# An alert is read on a telephone; whoever wants all of it goes to the log.
_MAX_MESSAGE: Final = 8192
_MAX_FIELD: Final = 1000
_MAX_FIELDS: Final = 40
_MAX_EXCEPTION: Final = 4 * _MAX_MESSAGE
_BOUNDS: Final = Bounds(characters=_MAX_FIELD, members=_MAX_FIELDS, volume=2048 * _MAX_FIELDS)


class AlertSnapshot(NamedTuple):
    """What must be read before the log call returns; the rest of the work is left to the worker."""

    kind: Fingerprint
    record: RecordSnapshot
    created: float
    level: str
    logger: str
    place: tuple[str, int, str]
    repeats: int


class AlertOrigin(NamedTuple):
    """Where the alerts of this process come from."""

    host: str
    environment: str


class Alert(NamedTuple):
    """One thing worth reporting, free of secrets and of anything that is not text or number.

    Attributes:
        id: unique, fixed for all tries and copies.
        fingerprint: equal for repetitions of the same trouble.
        created: wall time of the record, or of the last repetition.
        level: level name.
        logger: name of the logger.
        message: formatted message.
        place: file, line and function.
        exception: exceptions with causes and stack, or empty.
        request_id: of the request at hand, or empty.
        fields: context and ``extra``.
        host: name of the machine.
        environment: for example ``production``, or empty.
        repeats: repetitions reported with this alert.
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
        """Records this alert stands for in the sums; repetitions are counted as suppressed already."""
        return 0 if self.digest else 1


def snapshot_of(
    record: LogRecord, taken: RecordSnapshot, *, kind: Fingerprint, repeats: int
) -> AlertSnapshot:
    """What the worker needs besides the text of the record."""
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
    """Turn what was taken into an alert without secrets."""
    record, reader = taken.record, reader.of_one_record()
    message = _plain(reader.clean_text(record.message), _MAX_MESSAGE)
    texts = _texts(reader.clean_fields(record.context, record.fields))
    return Alert(
        id=id,
        fingerprint=taken.kind.digest(),
        # When it was logged and not now: the queue, or a night in the spool, lies in between.
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
    """Reads records within what an alert can show."""
    return RecordText(redactor, bounds=_BOUNDS, longest=_MAX_EXCEPTION)


def moment_of(created: float) -> float:
    """A time that every calendar can show; a record may claim any."""
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
    """Text that can be encoded and shows what it holds: no lone surrogates, no control or direction characters."""
    # Cut before as well: what comes after only makes it longer.
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
