"""Forms of an alert, in the order in which they are created.

On the logging thread: the ``Fingerprint`` of a log record, which repetitions of the same problem share, and an
``AlertSnapshot``. In the worker: the ``Alert``, without secrets; one or more of them in an ``OutgoingMessage``; and
the rendered ``AlertMessage`` for a transport.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from mks_hardening._core.exception_text import safe_text
from mks_hardening._core.redaction.plain_data import Bounds
from mks_hardening._core.redaction.record_text import RecordText

if TYPE_CHECKING:
    from logging import LogRecord
    from types import TracebackType

    from mks_hardening._core.redaction.record_text import RecordSnapshot
    from mks_hardening.notify.engine._spool import LockedEntry
    from mks_hardening.protocols import Redactor

__all__ = [
    "Alert", "AlertMessage", "AlertReader", "AlertSnapshot", "Fingerprint", "OutgoingMessage", "Render",
    "fingerprint_of", "message_without_numbers", "valid_time",
]  # fmt: skip

# Long enough to distinguish messages, short enough to be cheap on the caller's thread.
_MAX_WORDS: Final = 300
_MAX_FRAMES: Final = 200
# UUIDs, memory addresses, other long hexadecimal ids, and decimal digits of any script.
_HEX: Final = "[0-9a-fA-F]"
_NUMBERS: Final = re.compile(
    rf"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}|0x{_HEX}+|(?=[a-fA-F]*[0-9]){_HEX}{{8,}}|\d+"
)
# Without a match of this and without "0x", only digits need replacing, in half the time while the caller waits.
_LONG_HEX: Final = re.compile(rf"{_HEX}{{8}}")
_DIGITS: Final = re.compile(r"\d+")
# datetime ends in the year 9999, and a time zone may add half a day.
_LATEST: Final = 253_370_764_800.0  # start of the year 9999
# Alerts are read on phones; the log contains the full text.
_MAX_MESSAGE: Final = 8192
_MAX_FIELD: Final = 1000
_MAX_FIELDS: Final = 40
_MAX_EXCEPTION: Final = 4 * _MAX_MESSAGE
_BOUNDS: Final = Bounds(characters=_MAX_FIELD, members=_MAX_FIELDS, volume=2048 * _MAX_FIELDS)


class Fingerprint(NamedTuple):
    """Equal for records that are repetitions of each other."""

    logger: str
    error: str
    place: str
    line: int
    words: str

    def digest(self) -> str:
        """Return 32 hexadecimal digits, the same in every process."""
        text = "\0".join(map(str, self))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class AlertSnapshot(NamedTuple):
    """Data that must be read before the log call returns; the worker does the rest."""

    kind: Fingerprint
    record: RecordSnapshot
    created: float
    level: str
    logger: str
    place: tuple[str, int, str]
    repeats: int


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


class OutgoingMessage(NamedTuple):
    """Alerts that are sent as one message, and the number of failed attempts.

    Attributes:
        id: set before the first attempt, so that duplicates can be detected.
        alerts: at least one alert.
        tries: number of failed attempts.
        entries: locked entries of the spool, if the alerts come from it, in the order of the alerts.
    """

    id: str
    alerts: tuple[Alert, ...]
    tries: int = 0
    entries: tuple[LockedEntry, ...] = ()

    @property
    def weight(self) -> int:
        """Number of log records in the counts that this message stands for; spooled alerts were counted before."""
        return 0 if self.entries else sum(alert.weight for alert in self.alerts)


class AlertMessage(NamedTuple):
    """Rendered message for a transport.

    Attributes:
        id: the same for every attempt.
        subject: one line.
        text: complete message as plain text.
        headers: header fields of the e-mail or the HTTP request.
        body: bytes to send: a complete e-mail or a JSON document.
    """

    id: str
    subject: str
    text: str
    headers: Mapping[str, str]
    body: bytes


Render: TypeAlias = Callable[[OutgoingMessage], AlertMessage]


def fingerprint_of(record: LogRecord, message: str) -> Fingerprint:
    """Return the fingerprint of a record whose arguments are already part of ``message``.

    The place is where the exception was raised, otherwise where the record was logged.
    """
    exc_info = record.exc_info
    if exc_info is None or exc_info[0] is None:
        return Fingerprint(record.name, "", record.pathname, record.lineno, message_without_numbers(message))
    # The raising code: a single `logger.exception` in a middleware may report every error of an application.
    place, line = _raised_at(exc_info[2]) or (record.pathname, record.lineno)
    return Fingerprint(record.name, exc_info[0].__qualname__, place, line, message_without_numbers(message))


def message_without_numbers(message: str) -> str:
    """Return the beginning of a message with its numbers replaced."""
    start = message[:_MAX_WORDS]
    pattern = _NUMBERS if "0x" in start or _LONG_HEX.search(start) else _DIGITS
    return pattern.sub("#", start)


class AlertReader:
    """Reads log records on the logging thread, and converts their snapshots to alerts in the worker.

    Args:
        redactor: redacts secrets.
        host: host name of this machine.
        environment: for example ``production``, or empty.

    Attributes:
        message: returns the message of a record without secret arguments.
    """

    def __init__(self, redactor: Redactor, *, host: str, environment: str) -> None:
        self._text = RecordText(redactor, bounds=_BOUNDS, longest=_MAX_EXCEPTION)
        self.message: Callable[[LogRecord], str] = self._text.message
        self._host, self._environment = _plain(host, 100), _plain(environment, 100)

    def snapshot(self, record: LogRecord, message: str, *, kind: Fingerprint, repeats: int) -> AlertSnapshot:
        """Return everything that must be read before the log call returns."""
        return AlertSnapshot(
            kind,
            self._text.snapshot(record, message),
            record.created,
            record.levelname,
            record.name,
            (record.pathname, record.lineno, record.funcName or ""),
            repeats,
        )

    def alert(self, snapshot: AlertSnapshot, *, alert_id: str) -> Alert:
        """Convert a snapshot to an alert without secrets."""
        record, text = snapshot.record, self._text.of_one_record()
        message = _plain(text.clean_text(record.message), _MAX_MESSAGE)
        fields = _texts(text.clean_fields(record.context, record.fields))
        exception = [] if record.error is None else [text.clean_exception(record.error).text]
        if record.stack:
            exception.append(text.clean_text(record.stack))
        return Alert(
            id=alert_id,
            fingerprint=snapshot.kind.digest(),
            # Time of the log call, not the current time: the alert may have been queued, or spooled for hours.
            created=valid_time(snapshot.created),
            level=_plain(snapshot.level, 40),
            logger=_plain(text.clean_text(snapshot.logger), 200),
            message=message,
            place=_plain("{}:{} {}".format(*snapshot.place), 400),
            exception=_plain("\n".join(exception), _MAX_EXCEPTION),
            request_id=fields.pop("request_id", ""),
            fields=fields,
            host=self._host,
            environment=self._environment,
            repeats=snapshot.repeats,
        )


def valid_time(created: float) -> float:
    """Return a time that every calendar can represent, otherwise 0; a record may contain any number."""
    return created if 0.0 <= created <= _LATEST else 0.0


def _raised_at(trace: TracebackType | None) -> tuple[str, int] | None:
    if trace is None:
        return None
    # A RecursionError has a thousand frames, and this runs on the logging thread.
    for _ in range(_MAX_FRAMES):
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    return {
        _plain(safe_text(name), 100): _plain(safe_text(value), _MAX_FIELD)
        for name, value in islice(fields.items(), _MAX_FIELDS)
    }


def _plain(text: str, limit: int) -> str:
    """Return text that can be encoded and displayed: without lone surrogates, control and direction characters."""
    # Truncate first as well: the following steps only make the text longer.
    encodable = _cut(text.replace("\r\n", "\n"), limit).encode("utf-8", "backslashreplace").decode()
    return _cut(encodable.translate(_INVISIBLE), limit)


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
