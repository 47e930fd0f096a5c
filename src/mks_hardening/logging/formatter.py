"""The JSON formatter: one line a record, whatever is thrown at it, and no secret in it.

Two ways lead to the line. The quick one serves records made of plain values: prepared pieces, one call of the fast
encoder, and one cheap question whether the result can hold a secret. Everything else (containers, objects, faulty
arguments, oversized values, overridden hooks) takes the careful one, which builds the same fields as data, bounds
and redacts them, and encodes them with an encoder that refuses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, cast

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.context import fields_var
from mks_hardening._core.lazy import optional
from mks_hardening._core.memo import Memo
from mks_hardening._core.redact import REDACTED, SecretRedactor, default_redactor, tells
from mks_hardening._core.trace_text import CUT, describe_exception, safe_text
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.filters import CONTEXT_ATTRIBUTE, STANDARD_ATTRIBUTES, exception_of
from mks_hardening.logging.json_text import encode_plain, escape, fast_encoder, is_safe
from mks_hardening.logging.message import Templates
from mks_hardening.logging.names import LONGEST_TEXT, CleanTexts, FieldNames
from mks_hardening.logging.plain import Bounds, Fields, cut, is_a, to_plain
from mks_hardening.logging.schemas import schema_named
from mks_hardening.protocols import Redactor

with optional("pythonjsonlogger", extra="logging"):
    from pythonjsonlogger.core import BaseJsonFormatter

__all__ = ["JsonFormatter"]

_LAST: Final = STANDARD_ATTRIBUTES[-1]
_COUNT: Final = len(STANDARD_ATTRIBUTES)
_KNOWN: Final = frozenset((*STANDARD_ATTRIBUTES, "message", "asctime", "taskName"))
_MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))
_FRAMES: Final = 40
_FEWEST_MEMBERS: Final = 4
_HOOKS: Final = ("add_fields", "process_log_record", "serialize_log_record", "jsonify_log_record")
# Text is cut a little late, redacted, and cut again, so that no half secret survives at the first cut.
_SLACK: Final = 1_024
# Whole numbers with fewer digits than a payment card.
_LONG: Final = 10**12


class JsonFormatter(BaseJsonFormatter):
    """Formats a record as one line of strict JSON, with secrets replaced and sizes bounded.

    Args:
        fmt: record attributes to show besides the canonical fields, written as a format string
            (``"%(process)d %(lineno)d"``) or as a sequence of names.
        datefmt: format of ``asctime`` where ``fmt`` names it; ``timestamp`` is always ISO 8601 in UTC.
        style: style of ``fmt``: ``%``, ``{``, ``$`` or ``,``.
        validate: whether ``fmt`` must suit ``style``.
        schema: names of the canonical fields: ``default``, ``ecs`` or ``gcp``.
        static_fields: fields with fixed values for every record, for example the service.
        environment: name of the deployment, for example ``production``; left out when ``None``.
        redactor: takes the secrets out; the package's own when ``None``.
        encoder: ``auto`` (orjson where it is installed), ``orjson`` or ``json``.
        max_record_bytes: largest line in bytes; what is cut is marked with ``…``.
        rename_fields: other names for fields.
        defaults: fields that a record may replace.
        reserved_attrs: further record attributes never to be shown.
        prefix: text in front of every line.

    Raises:
        ConfigurationError: an impossible parameter.
        MissingDependencyError: ``encoder="orjson"`` without orjson.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: str = "%",
        validate: bool = True,  # noqa: FBT001, FBT002 - position and name are those of logging.Formatter
        *,
        schema: str = "default",
        static_fields: Mapping[str, object] | None = None,
        environment: str | None = None,
        redactor: Redactor | None = None,
        encoder: str = "auto",
        max_record_bytes: int = 65_536,
        rename_fields: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
        reserved_attrs: tuple[str, ...] = (),
        prefix: str = "",
    ) -> None:
        if (
            isinstance(max_record_bytes, bool)
            or not isinstance(max_record_bytes, int)
            or max_record_bytes < 1024
        ):
            raise ConfigurationError(
                f"max_record_bytes must be a whole number of at least 1024, not {type(max_record_bytes).__name__}",
                parameter="max_record_bytes",
            )
        try:
            super().__init__(
                fmt,
                datefmt,
                style,
                validate,
                prefix=prefix,
                rename_fields=dict(rename_fields or {}),
                static_fields=dict(static_fields or {}),
                defaults=dict(defaults or {}),
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"fmt and style do not fit: {error}", parameter="fmt") from None
        self._schema = schema_named(schema)
        self._environment = environment
        self._dumps = fast_encoder(encoder)
        self._max_bytes = max_record_bytes
        self._bounds = Bounds(min(LONGEST_TEXT, max_record_bytes // 4))
        self._loose = self._bounds._replace(characters=self._bounds.characters + _SLACK)
        self._redactor: Redactor = default_redactor() if redactor is None else redactor
        own = self._redactor if isinstance(self._redactor, SecretRedactor) else default_redactor()
        self._names = FieldNames(
            self._schema,
            rename=self.rename_fields,
            static=self.static_fields,
            hidden=_KNOWN | frozenset(reserved_attrs),
            redactor=self._redactor,
            is_secret_key=own.is_secret_key,
        )
        self._clean = CleanTexts(self._redactor)
        self._templates = Templates(own.is_secret_key)
        self._shown = tuple(name for name in self._required_fields if name in _KNOWN and name != "message")
        self._message_key = self._names.renamed(self._schema.message)
        self._start = f'{self.prefix}{{{encode_plain(self._names.renamed(self._schema.timestamp))}:"'
        self._heads: Memo[str, Memo[str, str]] = Memo(self._heads_of, entries=1024)
        self._contexts: dict[int, tuple[Mapping[str, object], Fields, str]] = {}
        self._second = (-1, "")
        self._surely_fits = min(self._max_bytes // 4, self._bounds.characters)
        hooked = any(getattr(type(self), name) is not getattr(JsonFormatter, name) for name in _HOOKS)
        self._quick = not (hooked or self.defaults)

    # --- the quick way -----------------------------------------------------------------------

    def format(self, record: logging.LogRecord) -> str:  # noqa: PLR0915 - see the comment
        """The record as one line of JSON, without the newline. Never raises."""
        # One long function without helpers: each call would cost as much as a step of it.
        if not self._quick:
            return self._safely(record)
        try:
            message = record.msg
            if type(message) is not str:
                return self._safely(record)
            args = record.args
            if args:
                if type(args) is not tuple or self._templates[message] is not None:
                    return self._safely(record)
                message = message % args
            clean = self._clean
            fields: Fields = {self._message_key: clean[message]}
            others: Fields = {}
            context = fields_var.get()
            data = record.__dict__
            names = self._names
            if len(data) != _COUNT:
                items = islice(data.items(), _COUNT - 1, None)
                if next(items)[0] != _LAST:
                    return self._safely(record)
                for key, value in items:
                    name, secret = names[key]
                    if secret:
                        if name:
                            others[name] = REDACTED if tells(value) else value
                        elif key == CONTEXT_ATTRIBUTE:
                            context = value
                        continue
                    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # the value may be anything
                    if kind is str:
                        fields[name] = clean[value]
                    elif (
                        (kind is int and -_LONG < value < _LONG)
                        or (kind is float and value - value == 0.0)  # neither NaN nor infinite
                        or value is None
                        or kind is bool
                    ):
                        fields[name] = value
                    else:
                        others[name] = value
            around = ""
            if context:
                known, around = self._context(context)
                for name in known.keys() & (fields.keys() | others.keys()):
                    if not _same(fields.pop(name, None), known[name]):
                        return self._safely(record)
            if others or self._shown:
                around += self._members({**self._shown_fields(record), **others})
            body = self._dumps(fields)
            text = body.decode()
            if (names.look_for_del or not body.isascii()) and not is_safe(body):
                text = escape(text)
            if record.exc_info or record.exc_text or record.stack_info:
                around += self._piece(self._exception_fields(record))
            created = record.created
            second = int(created)
            stamped, stamp = self._second
            if second != stamped:
                stamp = self._new_second(second)
            line = (
                f"{self._start}{stamp}{_MILLISECONDS[int((created - second) * 1000)]}"
                f"{self._heads[record.name][record.levelname]}{around}{text[1:]}"
            )
            if len(line) <= self._surely_fits or self._fits(line, body):
                return line
        except Exception:  # noqa: BLE001, S110 - whatever it was, the careful way copes with it or reports it
            pass
        return self._safely(record)

    def _fits(self, line: str, body: bytes) -> bool:
        return len(body) <= self._bounds.characters and len(line.encode()) <= self._max_bytes

    def _new_second(self, second: int) -> str:
        if second <= 0:
            raise ValueError(second)  # rounding towards zero is wrong before 1970
        stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._second = (second, stamp)
        return stamp

    def _heads_of(self, logger: str) -> Memo[str, str]:
        return Memo(lambda level: f'",{self._members(self._head_fields(level, logger))}', entries=64)

    def _head_fields(self, level: str, logger: str) -> Fields:
        schema = self._schema
        fields: Fields = {
            self._names.renamed(schema.level): schema.level_text(level),
            self._names.renamed(schema.logger): logger,
        }
        if self._environment is not None:
            fields[self._names.renamed(schema.environment)] = self._environment
        return fields | {
            self._names.renamed(name): value
            for name, value in (*schema.constants.items(), *self.static_fields.items())
        }

    def _members(self, fields: Mapping[str, object]) -> str:
        """The fields as the inside of an object, with a comma behind: a piece of a line."""
        clean = self._redactor.redact(to_plain(fields, self._loose))
        piece = self._piece(clean)
        if len(piece) > self._bounds.characters:
            piece = self._piece(to_plain(clean, self._bounds))
        return piece

    def _piece(self, plain: Any) -> str:
        if not plain:
            return ""
        try:
            encoded = self._dumps(plain)
        except Exception:  # noqa: BLE001 - surrogates and large numbers, which the fast encoder refuses
            return f"{encode_plain(plain)[1:-1]},"
        text = encoded.decode()[1:-1]
        return f"{text if is_safe(encoded) else escape(text)},"

    def _context(self, context: Mapping[str, object]) -> tuple[Fields, str]:
        known = self._contexts.get(id(context))
        if known is None or known[0] is not context:
            values = {
                name: REDACTED if secret and tells(value) else value
                for (name, secret), value in ((self._names[key], value) for key, value in context.items())
                if name
            }
            known = (context, values, self._members(values))
            if len(self._contexts) >= 256:
                self._contexts.clear()
            self._contexts[id(context)] = known
        return known[1], known[2]

    # --- exceptions --------------------------------------------------------------------------

    def _exception_fields(self, record: logging.LogRecord) -> Fields:
        """The exception and the stack of the record, redacted."""
        fields: Fields = {}
        error = exception_of(record)
        if error is not None:
            described = describe_exception(
                error,
                redact_text=self._redactor.redact_text,
                max_frames=_FRAMES,
                max_chars=self._bounds.characters,
            )
            fields = self._schema.exception_fields(described.structure, described.text)
        elif record.exc_text:
            fields = self._schema.exception_fields({}, self._cleaned(record.exc_text))
        if record.stack_info:
            fields[self._schema.stack] = self._cleaned(record.stack_info)
        return {self._names.renamed(name): value for name, value in fields.items() if value is not None}

    def _cleaned(self, text: object) -> str:
        whole = safe_text(text, limit=self._loose.characters)
        return cut(self._redactor.redact_text(whole), self._bounds.characters)

    # --- the careful way ---------------------------------------------------------------------

    def _safely(self, record: logging.LogRecord) -> str:
        try:
            return self._carefully(record)
        except Exception as error:  # noqa: BLE001 - a foreign hook or redactor
            return self._last_resort(record, error)

    def _carefully(self, record: logging.LogRecord) -> str:
        message_dict: Fields = {}
        if is_a(record.msg, dict):
            message_dict.update(cast("Fields", record.msg))
            record.message = safe_text(message_dict.pop("message", ""))
        else:
            record.message = self._templates.render(record)
        fields: Fields = {}
        self.add_fields(fields, record, message_dict)
        fields = self.process_log_record(fields)
        return self.serialize_log_record(fields)

    def add_fields(self, log_data: Fields, record: logging.LogRecord, message_dict: Fields) -> None:
        """Fill ``log_data`` with the fields of the record; to be extended by subclasses.

        What a subclass adds is bounded and redacted like everything else.
        """
        schema = self._schema
        log_data.update(self.defaults)
        log_data[self._names.renamed(schema.timestamp)] = self._careful_timestamp(record.created)
        log_data.update(self._head_fields(safe_text(record.levelname), safe_text(record.name)))
        log_data[self._message_key] = record.message
        log_data.update(self._exception_fields(record))
        log_data.update(self._shown_fields(record))
        context = record.__dict__.get(CONTEXT_ATTRIBUTE)
        for fields in (fields_var.get() if context is None else context, message_dict, record.__dict__):
            for key, value in tuple(fields.items()):
                self._add(log_data, key, value)

    def _shown_fields(self, record: logging.LogRecord) -> Fields:
        """What ``fmt`` asks for besides the canonical fields."""
        if "asctime" in self._shown:
            record.asctime = self.formatTime(record, self.datefmt)
        return {self._names.renamed(name): record.__dict__.get(name) for name in self._shown}

    def _add(self, log_data: Fields, key: object, value: object) -> None:
        name, secret = self._names[key if isinstance(key, str) else safe_text(key)]
        if not name:
            return
        while name in log_data and name not in self.defaults:
            if log_data[name] is value or _same(log_data[name], value):
                return
            name = f"extra_{name}"
        log_data[name] = REDACTED if secret and tells(value) else value

    def _careful_timestamp(self, created: object) -> str:
        try:
            moment = datetime.fromtimestamp(float(created), UTC)  # type: ignore[arg-type]  # a foreign record may hold anything
        except Exception:  # noqa: BLE001 - out of range or no number: now is the best guess
            moment = SYSTEM_CLOCK.now()
        return f"{moment:%Y-%m-%dT%H:%M:%S}{_MILLISECONDS[moment.microsecond // 1000]}"

    def jsonify_log_record(self, log_data: Fields) -> str:
        """The fields as JSON text: bounded, redacted, strict."""
        clean = self._redactor.redact(to_plain(log_data, self._loose))
        bounds = self._bounds
        while bounds.members > _FEWEST_MEMBERS:
            text = encode_plain(to_plain(clean, bounds))
            if len(text) * 4 <= self._max_bytes or len(text.encode()) <= self._max_bytes:
                return text
            bounds = bounds.tighter()
        # It does not fit in any other way: the canonical fields alone.
        fields = cast("Fields", clean) if isinstance(clean, dict) else {}
        essential = {name: fields[name] for name in fields if name in self._names.taken}
        return encode_plain(to_plain({**essential, CUT: "fields left out"}, Bounds(64, 16, 1)))

    def _last_resort(self, record: logging.LogRecord, error: Exception) -> str:
        fields = {
            self._schema.timestamp: self._careful_timestamp(getattr(record, "created", None)),
            self._schema.level: safe_text(record.levelname, limit=64),
            self._schema.logger: safe_text(record.name, limit=256),
            self._schema.message: f"a log record could not be formatted ({type(error).__name__})",
        }
        return self.prefix + encode_plain(fields)


def _same(known: object, value: object) -> bool:
    return type(known) is type(value) and isinstance(value, (str, int)) and known == value
