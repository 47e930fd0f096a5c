"""From a log record to clean text: the one way, of log lines and of alerts alike.

It has two halves, since a queue may lie between them. ``message`` and ``snapshot`` run on the thread that logs:
what may change afterwards (arguments, containers, objects) is rendered, and arguments that are secret by their
place are left out. The methods that begin with ``clean`` take the secrets out of what was taken. Both are bounded
in depth, members and characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from mks_hardening._core.database.error_text import told_of
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.message_templates import Templates
from mks_hardening._core.redaction.plain_data import Bounds, Fields, cut, is_a, to_plain
from mks_hardening._core.redaction.record_attributes import CONTEXT_ATTRIBUTE, STANDARD_NAMES, exception_of
from mks_hardening._core.redaction.redactor import RecordRedactor, SecretRedactor, default_redactor
from mks_hardening._core.trace_text import ExceptionDescription, describe_exception, safe_text

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening.protocols import Redactor

__all__ = ["RecordSnapshot", "RecordText"]

# Of a text that will be cut: so much longer that a secret at the cut is still seen as a whole.
_SLACK: Final = 1_024
_SCALARS: Final = frozenset((str, int, float, bool, type(None)))


class RecordSnapshot(NamedTuple):
    """What a record says at the moment of the log call; not yet free of secrets.

    Attributes:
        message: rendered, without arguments that are secret by their place.
        fields: what came with ``extra`` or from a filter, as plain data.
        context: the fields bound in the thread that logged.
        error: the exception itself.
        stack: the stack as text, or the exception where only its text is left.
    """

    message: str
    fields: Mapping[str, object]
    context: Mapping[str, object]
    error: BaseException | None
    stack: str


class RecordText:
    """Reads records for one redactor within bounds.

    Args:
        redactor: takes the secrets out.
        bounds: how much of the fields is kept.
        longest: characters of the message, of the exception and of the stack.
        frames: frames kept of one traceback.

    Attributes:
        templates: what may go into which message.
        loose: the bounds before redaction, by which a secret at a cut is still seen as a whole.
    """

    __slots__ = ("_bounds", "_frames", "_longest", "_redactor", "_stable", "loose", "templates")

    def __init__(self, redactor: Redactor, *, bounds: Bounds, longest: int, frames: int = 40) -> None:
        own = redactor if isinstance(redactor, SecretRedactor) else default_redactor()
        self._redactor = self._stable = redactor
        self._bounds = bounds
        self._longest = longest
        self.loose = bounds._replace(characters=bounds.characters + _SLACK)
        self._frames = frames
        self.templates = Templates(own.is_secret_key)

    def of_one_record(self) -> RecordText:
        """The same for the parts of one record, which together may take as much work as one text."""
        one = copy(self)
        # Of a redactor of another make nothing is known.
        if type(self._stable) is SecretRedactor:
            one._redactor = RecordRedactor(self._stable)  # noqa: SLF001 - same class
        return one

    def snapshot(self, record: LogRecord, message: str) -> RecordSnapshot:
        """What must be read before the log call returns; the message as ``message`` has given it."""
        error = exception_of(record)
        exc_text, stack = record.exc_text if error is None else "", record.stack_info
        context = record.__dict__.get(CONTEXT_ATTRIBUTE)
        return RecordSnapshot(
            message,
            self._taken(record),
            fields_var.get() if context is None else context,
            error,
            self._joined(exc_text, stack) if exc_text or stack else "",
        )

    def message(self, record: LogRecord) -> str:
        """The message without arguments that are secret by their place; a structure is redacted by its names."""
        # Asked of nearly every record on the caller's thread, and an abstract class answers slowly.
        if type(record.msg) is not str and is_a(record.msg, Mapping, list, tuple):
            return safe_text(self.clean(record.msg), limit=self._longest + _SLACK)
        return cut(self.templates.render(record), self._longest + _SLACK)

    def clean(self, value: object) -> Any:
        """Any value as bounded plain data without secrets."""
        return self._redactor.redact(to_plain(value, self.loose))

    def clean_fields(self, *sources: Mapping[str, object]) -> Fields:
        """The fields of all sources; a later source wins where names are equal."""
        merged: Fields = {}
        for fields in sources:
            merged.update(islice(fields.items(), self._bounds.members))
        return cast("Fields", self.clean(merged))

    def clean_text(self, text: object) -> str:
        """A text without secrets."""
        whole = safe_text(text, limit=self._longest + _SLACK)
        return cut(self._redactor.redact_text(whole), self._longest)

    def clean_exception(self, error: BaseException) -> ExceptionDescription:
        """An exception with all that belongs to it."""
        return describe_exception(
            error,
            redact_text=self._stable.redact_text,
            redact_message=self._redactor.redact_text,
            text_of=self._text_of,
            max_frames=self._frames,
            max_chars=self._longest,
        )

    def _text_of(self, error: BaseException) -> str | None:
        told = told_of(error)
        return self.templates.of_exception(error) if told is None else told

    def _joined(self, *texts: object) -> str:
        return "\n".join(safe_text(text, limit=self._longest + _SLACK) for text in texts if text)

    def _taken(self, record: LogRecord) -> Fields:
        taken: Fields = {}
        for name, value in record.__dict__.items():
            if name not in STANDARD_NAMES and not name.startswith("_"):
                if len(taken) >= self._bounds.members:
                    break
                taken[name] = value if type(value) in _SCALARS else to_plain(value, self.loose)
        return taken
