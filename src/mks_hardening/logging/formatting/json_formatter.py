"""JSON formatter: one line per record, for any record, without secrets.

There are two paths. The fast path handles records with plain values: prepared parts, one call of the fast encoder,
and a cheap check whether the result can contain a secret. All other records (containers, objects, invalid
arguments, oversized values, overridden hooks) take the general path, which builds the same fields as data, limits
and redacts them, and encodes them with an encoder that accepts everything.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from mks_hardening._core.memo import Memo
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.plain_data import Fields, to_plain
from mks_hardening._core.redaction.record_attributes import CONTEXT_ATTRIBUTE, STANDARD_ATTRIBUTES
from mks_hardening._core.redaction.redactor import REDACTED
from mks_hardening._core.redaction.secret_names import reveals_secret
from mks_hardening.logging.formatting._general_formatter import (
    MILLISECONDS,
    MOST_FIELDS,
    GeneralFormatter,
    same,
)
from mks_hardening.logging.formatting._json_text import encode_plain, escape, is_safe
from mks_hardening.logging.formatting._redacted_texts import RedactedTexts

__all__ = ["JsonFormatter"]

_LAST: Final = STANDARD_ATTRIBUTES[-1]
_COUNT: Final = len(STANDARD_ATTRIBUTES)
_HOOKS: Final = ("add_fields", "process_log_record", "serialize_log_record", "jsonify_log_record")
# Integers with fewer digits than a payment card number.
_LONG: Final = 10**12


class _GeneralPathError(Exception):
    """The record needs the general path."""


class JsonFormatter(GeneralFormatter):
    """Format a record as one line of strict JSON, with secrets redacted and sizes limited.

    Args:
        fmt: record attributes to include besides the canonical fields, as a format string
            (``"%(process)d %(lineno)d"``) or a sequence of names.
        datefmt: format of ``asctime`` if ``fmt`` includes it; ``timestamp`` is always ISO 8601 in UTC.
        style: style of ``fmt``: ``%``, ``{``, ``$`` or ``,``.
        validate: whether ``fmt`` must match ``style``.
        schema: names of the canonical fields: ``default``, ``ecs`` or ``gcp``; or ``python-json-logger`` for the
            format of that library's ``JsonFormatter`` with the safety and redaction of this package.
        static_fields: fields with fixed values for every record, for example the service.
        environment: name of the deployment, for example ``production``; omitted if ``None``.
        redactor: redactor of secrets; the package's own if ``None``.
        encoder: ``auto`` (orjson if it is installed), ``orjson`` or ``json``.
        max_record_bytes: maximum size of a line in bytes; truncated values are marked with ``…``.
        rename_fields: other names for fields.
        defaults: default fields, which a record may override.
        reserved_attrs: additional record attributes that are never included; for ``python-json-logger`` the
            complete list.
        prefix: text before every line.
        rename_fields_keep_missing: include renamed fields that a record lacks as ``null``. This parameter and the
            following ones require ``schema="python-json-logger"``.
        timestamp: include the time of the record, as ``timestamp`` or under this name.
        exc_info_as_array: include the exception as a list of lines.
        stack_info_as_array: include the stack as a list of lines.
        json_default: returns a replacement for a value that JSON cannot represent.
        json_encoder: a ``json.JSONEncoder`` whose ``default`` does the same.
        json_serializer: called instead of ``json.dumps``.
        json_indent: write each record on several lines, indented by this many spaces.
        json_ensure_ascii: escape all non-ASCII characters.

    Raises:
        ConfigurationError: a parameter is invalid.
        MissingDependencyError: ``encoder="orjson"`` without orjson.
    """

    def _get_ready(self) -> None:
        self._clean = RedactedTexts(self._redactor)
        self._templates = self._reader.templates
        self._start = f'{self.prefix}{{{encode_plain(self._names.renamed(self._schema.timestamp))}:"'
        self._heads: Memo[str, Memo[str, str]] = Memo(self._heads_of, entries=1024)
        self._contexts: dict[int, tuple[Mapping[str, object], Fields, str]] = {}
        self._second: tuple[int | None, str] = (None, "")
        self._surely_fits = min(self._max_bytes // 4, self._bounds.characters)
        hooked = any(getattr(type(self), name) is not getattr(JsonFormatter, name) for name in _HOOKS)
        self._quick = not (hooked or self.defaults or self._theirs)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON, without a newline. Never raises."""
        if not self._quick:
            return self._safely(record)
        try:
            # Each call costs about as much as a step, so a record without arguments, extra fields or a context is
            # formatted without any.
            message = record.msg
            if record.args or type(message) is not str:
                message = self._merge_arguments(message, record.args)
            clean = self._clean
            clean.dirty = 0
            fields: Fields = {self._message_key: clean[message]}
            others: Fields = {}
            context = fields_var.get()
            if len(record.__dict__) != _COUNT:
                context = self._sort_extras(record.__dict__, fields, others, context)
            around = self._context_members(context, fields, others) if context else ""
            if others or self._shown:
                around += self._members({**self._shown_fields(record), **others})
            body = self._dumps(fields)
            text = body.decode()
            if (self._names.look_for_del or not body.isascii()) and not is_safe(body):
                text = escape(text)
            if record.exc_info or record.exc_text or record.stack_info:
                around += self._piece(self._exception_fields(record))
            created = record.created
            second = int(created)
            # One tuple, read and written at once: two threads in different seconds must not mix the parts.
            stamped, stamp = self._second
            if second != stamped:
                stamp = self._new_second(second)
            line = (
                f"{self._start}{stamp}{MILLISECONDS[int((created - second) * 1000)]}"
                f"{self._heads[record.name][record.levelname]}{around}{text[1:]}"
            )
            if len(line) <= self._surely_fits or self._fits(line, body):
                return line
        except Exception:  # noqa: BLE001, S110 - whatever it was, the general path handles or reports it
            pass
        return self._safely(record)

    def _merge_arguments(self, template: Any, args: Any) -> str:
        """Return the message with its arguments.

        Raises:
            _GeneralPathError: an argument may be a secret, or the message is not text.
        """
        if type(template) is not str or type(args) is not tuple or self._templates[template] is not None:
            raise _GeneralPathError
        for arg in args:  # pyright: ignore[reportUnknownVariableType]  # an argument may be anything
            if isinstance(arg, BaseException):  # database exceptions contain values
                raise _GeneralPathError
        return template % args

    def _sort_extras(
        self, data: Mapping[str, Any], fields: Fields, others: Fields, context: Mapping[str, object]
    ) -> Mapping[str, object]:
        """Add the extra fields with plain values to ``fields`` and the rest to ``others``; return the context.

        Raises:
            _GeneralPathError: there are too many, or the record was not created by ``logging``.
        """
        items = islice(data.items(), _COUNT - 1, None)
        # The attributes of logging come first, in their order.
        if len(data) > MOST_FIELDS or next(items)[0] != _LAST:
            raise _GeneralPathError
        names, clean = self._names, self._clean
        for key, value in items:
            name, secret = names[key]
            kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # the value may be anything
            if secret:
                if name:
                    others[name] = REDACTED if reveals_secret(value, key) else value
                elif key == CONTEXT_ATTRIBUTE:
                    context = value
            elif kind is str:
                fields[name] = clean[value]
            elif (
                # A longer number may be that of a payment card, which only the redactor can detect.
                (kind is int and -_LONG < value < _LONG)
                or (kind is float and value - value == 0.0)  # neither NaN nor infinite
                or value is None
                or kind is bool
            ):
                fields[name] = value
            else:
                others[name] = value
        return context

    def _context_members(self, context: Mapping[str, object], fields: Fields, others: Fields) -> str:
        """Return the members for the context, without fields of the record that repeat it.

        Raises:
            _GeneralPathError: a field of the record has another value.
        """
        # Cached by identity, as a bound context never changes; `known[0]` keeps it alive, so that its id stays
        # unique.
        known = self._contexts.get(id(context))
        if known is None or known[0] is not context:
            known = self._read_context(context)
        _, values, members = known
        for name in values.keys() & (fields.keys() | others.keys()):
            if not same(fields.pop(name, None), values[name]):
                raise _GeneralPathError
        return members

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

    def _members(self, fields: Mapping[str, object]) -> str:
        """Return the fields as the members of a JSON object, with a trailing comma."""
        encoded = self._reader.encoded_if_clean(fields, self._dumps)
        if encoded is not None and is_safe(encoded):
            return f"{encoded[1:-1].decode()},"
        clean = self._reader.clean(fields)
        piece = self._piece(clean)
        if len(piece) > self._bounds.characters:
            piece = self._piece(to_plain(clean, self._bounds))
        return piece

    def _piece(self, plain: Any) -> str:
        if not plain:
            return ""
        try:
            encoded = self._dumps(plain)
        except Exception:  # noqa: BLE001 - surrogates and large numbers, which the fast encoder rejects
            return f"{encode_plain(plain)[1:-1]},"
        text = encoded.decode()[1:-1]
        return f"{text if is_safe(encoded) else escape(text)},"

    def _read_context(self, context: Mapping[str, object]) -> tuple[Mapping[str, object], Fields, str]:
        values = {
            name: REDACTED if secret and reveals_secret(value, key) else value
            for (name, secret), key, value in (
                (self._names[key], key, value) for key, value in context.items()
            )
            if name
        }
        if len(self._contexts) >= 256:
            self._contexts.clear()
        known = self._contexts[id(context)] = (context, values, self._members(values))
        return known
