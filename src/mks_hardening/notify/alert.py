"""What is taken from a log record on the caller's thread, and the alert that the worker makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from mks_hardening._core.context import fields_var
from mks_hardening._core.trace_text import describe_exception, safe_text

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening._core.redact import SecretRedactor
    from mks_hardening.notify.fingerprint import Fingerprint

__all__ = ["Alert", "Origin", "Snapshot", "alert_from", "message_of", "moment_of", "snapshot_of"]

_LATEST: Final = 253_370_764_800.0  # the year 9999 begins
_MAX_MESSAGE: Final = 8192
_MAX_FIELD: Final = 1000
_MAX_FIELDS: Final = 40
_PLAIN: Final = (str, int, float, bool, type(None))
# What logging itself puts into a record; everything else came with extra= or from a filter.
_STANDARD: Final = frozenset(
    {"name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "lineno", "funcName"}
    | {"exc_info", "exc_text", "stack_info", "created", "msecs", "relativeCreated", "thread", "threadName"}
    | {"processName", "process", "taskName", "message", "asctime"}
)


class Snapshot(NamedTuple):
    """What must be read before the log call returns; the rest of the work is left to the worker."""

    kind: Fingerprint
    message: str
    created: float
    level: str
    logger: str
    place: str
    error: BaseException | None
    stack: str | None
    fields: Mapping[str, object]
    context: Mapping[str, object]
    repeats: int


class Origin(NamedTuple):
    """Where the alerts of this process come from."""

    host: str
    environment: str


class Alert(NamedTuple):
    """One thing worth telling, free of secrets and of anything that is not text or number.

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
        repeats: repetitions told with this alert.
        since: wall time of the first repetition.
        digest: whether the alert only tells of repetitions.
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


def message_of(record: LogRecord) -> str:
    """The formatted message; a record whose arguments do not fit keeps its template and its arguments."""
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - foreign code formats here, and the alert must come out
        args = record.args if isinstance(record.args, tuple) else (record.args,)
        return " ".join(map(safe_text, (record.msg, *args)))


def snapshot_of(
    record: LogRecord, *, kind: Fingerprint, message: str, repeats: int, redactor: SecretRedactor
) -> Snapshot:
    """Copy what could change after the log call: values of ``extra`` and the context."""
    exc_info = record.exc_info
    return Snapshot(
        kind,
        message,
        record.created,
        record.levelname,
        record.name,
        f"{record.pathname}:{record.lineno} {record.funcName}",
        exc_info[1] if exc_info else None,
        record.stack_info,
        {
            name: value if type(value) in _PLAIN else _copy(value, redactor)
            for name, value in record.__dict__.items()
            if name not in _STANDARD
        },
        fields_var.get(),
        repeats,
    )


def _copy(value: object, redactor: SecretRedactor) -> object:
    try:
        return redactor.redact(value)
    except Exception as error:  # noqa: BLE001 - foreign objects; the other fields and the alert must come out
        return f"<{type(value).__name__} that raises {type(error).__name__}>"


def alert_from(taken: Snapshot, *, id: str, origin: Origin, redactor: SecretRedactor) -> Alert:  # noqa: A002
    """Turn what was taken into an alert without secrets."""
    clean = redactor.redact_text
    texts = _texts(cast("Mapping[str, object]", redactor.redact({**taken.context, **taken.fields})))
    return Alert(
        id=id,
        fingerprint=taken.kind.digest(),
        created=moment_of(taken.created),
        level=_plain(taken.level, 40),
        logger=_plain(taken.logger, 200),
        message=_plain(clean(_cut(taken.message, 4 * _MAX_MESSAGE)), _MAX_MESSAGE),
        place=_plain(taken.place, 400),
        exception=_exception_text(taken, clean),
        request_id=texts.pop("request_id", ""),
        fields=texts,
        host=_plain(origin.host, 100),
        environment=_plain(origin.environment, 100),
        repeats=taken.repeats,
    )


def moment_of(created: float) -> float:
    """A time that every calendar can show; a record may claim any."""
    return created if 0.0 <= created <= _LATEST else 0.0


def _exception_text(taken: Snapshot, clean: Callable[[str], str]) -> str:
    parts: list[str] = []
    if taken.error is not None:
        parts.append(describe_exception(taken.error, redact_text=clean).text)
    if taken.stack:
        parts.append(clean(taken.stack))
    return _plain("\n".join(parts), 4 * _MAX_MESSAGE)


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    some = list(fields.items())[:_MAX_FIELDS]
    return {_plain(safe_text(name), 100): _plain(safe_text(value), _MAX_FIELD) for name, value in some}


def _plain(text: str, limit: int) -> str:
    """Text that can be encoded and shows what it holds: no lone surrogates, no control or direction characters."""
    kept = text.replace("\r\n", "\n").encode("utf-8", "backslashreplace").decode()
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
