"""Rendering of log messages: without secret arguments, and without failing on arguments that do not fit."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from itertools import count, islice
from string import Formatter
from typing import Any, Final, NamedTuple, cast

from mks_hardening._core.database.error_text import database_error_text, error_text
from mks_hardening._core.exception_text import safe_text
from mks_hardening._core.memo import Memo
from mks_hardening._core.redaction.plain_data import is_a
from mks_hardening._core.redaction.secret_names import is_weak, reveals_secret
from mks_hardening._core.redaction.step_limit import REDACTED

__all__ = [
    "TemplatePlan",
    "Templates",
    "render_message",
    "without_secret_fields",
    "without_secret_placeholders",
    "without_secret_values",
]


class TemplatePlan(NamedTuple):
    """How to render a message template without its secret arguments.

    Attributes:
        template: the template with ``[REDACTED]`` for each secret argument.
        kept: indexes of the positional arguments that it still uses.
        hidden: names of the secret arguments.
    """

    template: str
    kept: tuple[int, ...]
    hidden: frozenset[str]


class Templates(Memo[str, TemplatePlan | None]):
    """Cache of ``without_secret_placeholders`` by message template."""

    __slots__ = ()

    def __init__(self, is_secret_key: Callable[[str], bool]) -> None:
        super().__init__(lambda template: without_secret_placeholders(template, is_secret_key), entries=2048)

    def render(self, record: logging.LogRecord) -> str:
        """Return the message without arguments whose placeholder is secret; the text is not yet redacted."""
        template, args = record.msg, record.args
        if args and is_a(template, str):
            plan = self[template]
            if plan is not None:
                template, kept = plan.template, plan.kept
                if isinstance(args, tuple):
                    args = tuple(args[place] for place in kept if place < len(args))
                if not args:
                    template = template.replace("%%", "%")
            if isinstance(args, tuple) and any(is_a(one, BaseException) for one in args):
                args = tuple(_without_values(one) for one in args)
        return render_message(template, args)

    def of_exception(self, error: BaseException) -> str | None:
        """Return the text of an exception raised like a log call, without arguments whose placeholder is secret.

        ``None`` if it has a ``__str__`` of its own, or no template with a secret placeholder.
        """
        if type(error).__str__ is not BaseException.__str__:
            return None
        try:
            template, *args = error.args
        except Exception:  # noqa: BLE001 - no arguments, or a property that raises
            return None
        plan = self[template] if args and type(template) is str and "%" in template else None
        if plan is None:
            return None
        kept = [args[place] for place in plan.kept if place < len(args)]
        return safe_text((plan.template, *kept), limit=1_000_000)


def _without_values(argument: object) -> object:
    summary = database_error_text(cast(BaseException, argument)) if is_a(argument, BaseException) else None
    return argument if summary is None else summary


_PLACEHOLDER: Final = re.compile(
    r"%(?:\((?P<name>[^)]*)\))?[#0\- +]*(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d+))?[hlL]?(?P<kind>[a-zA-Z%])"
)
#: A replacement field nested in the width or precision of another one.
_FIELD_IN_SPEC: Final = re.compile(r"\{([^{}!:]*)")
_WINDOW: Final = 56
_MOST_FIELDS: Final = 256
_NAME_BEFORE: Final = re.compile(
    r"(?P<name>[\w.\- ]{1,48}?)(?:[\"'\]]{0,2}[ \t]*(?P<mark>[:=]|=>|は|[ ]is)?[ \t]*[\"']?)\Z"
)


def render_message(message: object, args: object) -> str:
    """Return ``message % args``, or the template followed by its arguments if formatting fails."""
    template = cast(str, message) if is_a(message, str) else _message_text(message)
    if not args:
        return template
    try:
        return template % args
    except Exception:  # noqa: BLE001 - raised by methods of the arguments
        return _render_loosely(template, args)


def _message_text(message: object) -> str:
    if is_a(message, BaseException):
        return error_text(cast(BaseException, message), limit=1_000_000)
    return safe_text(message, limit=1_000_000)


def _render_loosely(template: str, args: Any) -> str:
    shown: Any
    if is_a(args, Mapping):
        shown = {key: _harmless(value) for key, value in args.items()}
    else:
        shown = tuple(_harmless(value) for value in args) if is_a(args, tuple) else (_harmless(args),)
    try:
        return str(template % shown)
    except Exception:  # noqa: BLE001 - as above
        return f"{template} [arguments do not fit: {safe_text(shown)}]"


def _harmless(value: object) -> object:
    """Return the value itself if formatting it does not raise, else a safe text."""
    try:
        _ = str(value), repr(value)
    except Exception:  # noqa: BLE001 - as above
        return safe_text(value)
    return value


def without_secret_placeholders(template: str, is_secret_key: Callable[[str], bool]) -> TemplatePlan | None:
    """Return the plan of a ``%``-style template.

    ``None`` if nothing has to change: no placeholder has a secret name or follows one.
    """
    out: list[str] = []
    kept: list[int] = []
    hidden: set[str] = set()
    done = position = 0
    for match in _PLACEHOLDER.finditer(template):
        if match["kind"] == "%":
            continue
        stars = [match["width"], match["precision"]].count("*")
        name = match["name"] or ""
        before = _name_before(template[max(0, match.start() - _WINDOW) : match.start()], marked=bool(name))
        # ``pass: %d`` is a count as often as a password; the number itself is checked later.
        counted = match["kind"] in "dif" and is_weak(name or before)
        if not counted and ((name and is_secret_key(name)) or is_secret_key(before)):
            out += (template[done : match.start()], REDACTED)
            done = match.end()
            hidden.add(name)
        else:
            kept += range(position, position + stars + 1)
        position += stars + 1
    if not hidden:
        return None
    out.append(template[done:])
    return TemplatePlan("".join(out), tuple(kept), frozenset(hidden))


def without_secret_fields(template: str, is_secret_key: Callable[[str], bool]) -> TemplatePlan | None:
    """Return the plan of a ``str.format`` template; positional fields are named by their number."""
    out: list[str] = []
    hidden: set[str] = set()
    numbers = count()

    def numbered(field: str) -> str:
        """Return the field with its automatic number, since fields before it may be removed."""
        return f"{next(numbers)}{field}" if not field or field[0] in ".[" else field

    try:
        for literal, field, spec, conversion in Formatter().parse(template):
            out.append(literal.replace("{", "{{").replace("}", "}}"))
            if field is None:
                continue
            field = numbered(field)  # noqa: PLW2901 - the same field
            spec = _FIELD_IN_SPEC.sub(lambda found: f"{{{numbered(found[1])}", spec or "")  # noqa: PLW2901 - as above
            name = re.split(r"[.\[]", field, maxsplit=1)[0]
            named = not name.isdigit()
            if is_secret_key(name) or is_secret_key(_name_before(literal[-_WINDOW:], marked=named)):
                hidden.add(name)
                out.append(REDACTED)
            else:
                out.append(f"{{{field}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}")
    except ValueError:
        return None
    return TemplatePlan("".join(out), (), frozenset(hidden)) if hidden else None


def without_secret_values(
    text: str, fields: Mapping[object, object], is_secret_key: Callable[[str], bool]
) -> str:
    """Return the text without the values that have a secret name in ``fields``.

    For libraries that format the message themselves and keep its arguments alongside.
    """
    for name, value in islice(fields.items(), _MOST_FIELDS):
        if type(name) is not str or not is_a(value, str, int, bytes) or not is_secret_key(name):
            continue
        if reveals_secret(value, name) and (shown := safe_text(value)) in text:
            # Only whole words: the PIN 1 is not part of 17.
            text = re.sub(rf"(?<!\w){re.escape(shown)}(?!\w)", REDACTED, text)
    return text


def _name_before(text: str, *, marked: bool) -> str:
    """Return the name to which a placeholder after this text belongs; if ``marked``, only before a separator."""
    found = _NAME_BEFORE.search(text)
    return found["name"] if found and (found["mark"] or not marked) else ""
