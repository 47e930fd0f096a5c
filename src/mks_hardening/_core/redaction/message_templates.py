"""The message of a record: arguments that do not fit keep the record, and secret arguments do not get in."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from mks_hardening._core.database.error_text import error_text, told_of
from mks_hardening._core.memo import Memo
from mks_hardening._core.redaction.effort import REDACTED
from mks_hardening._core.redaction.names import is_weak
from mks_hardening._core.redaction.plain_data import is_a
from mks_hardening._core.trace_text import safe_text

__all__ = ["Templates", "render_message", "without_secret_placeholders"]

Plan = tuple[str, tuple[int, ...]] | None


class Templates(Memo[str, Plan]):
    """For each message template what ``without_secret_placeholders`` says of it."""

    __slots__ = ()

    def __init__(self, is_secret_key: Callable[[str], bool]) -> None:
        super().__init__(lambda template: without_secret_placeholders(template, is_secret_key), entries=2048)

    def render(self, record: logging.LogRecord) -> str:
        """The message of the record without the arguments that are secret by their place; not yet redacted."""
        template, args = record.msg, record.args
        if args and is_a(template, str):
            plan = self[template]
            if plan is not None:
                template, kept = plan
                if isinstance(args, tuple):
                    args = tuple(args[place] for place in kept if place < len(args))
                if not args:
                    template = template.replace("%%", "%")
            if isinstance(args, tuple) and any(is_a(one, BaseException) for one in args):
                args = tuple(_told(one) for one in args)
        return render_message(template, args)

    def of_exception(self, error: BaseException) -> str | None:
        """What an exception that was raised like a log call says without arguments that are secret by their place.

        ``None`` when it was not: it has a text of its own, or no template with a secret place.
        """
        if type(error).__str__ is not BaseException.__str__:
            return None
        try:
            template, *args = error.args
        except Exception:  # noqa: BLE001 - none at all, or an attribute that somebody computes
            return None
        plan = self[template] if args and type(template) is str and "%" in template else None
        if plan is None:
            return None
        shown, kept = plan
        return safe_text((shown, *(args[place] for place in kept if place < len(args))), limit=1_000_000)


def _told(argument: object) -> object:
    told = told_of(cast(BaseException, argument)) if is_a(argument, BaseException) else None
    return argument if told is None else told


_PLACEHOLDER: Final = re.compile(
    r"%(?:\((?P<name>[^)]*)\))?[#0\- +]*(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d+))?[hlL]?(?P<kind>[a-zA-Z%])"
)
_NAME_BEFORE: Final = re.compile(
    r"([\w.\- ]{1,48}?)(?:[\"'\]]{0,2}[ \t]*(?:[:=]|=>|は|[ ]is)?[ \t]*[\"']?)\Z"
)


def render_message(message: object, args: object) -> str:
    """``message % args``; when that fails the template with its arguments behind it."""
    template = cast(str, message) if is_a(message, str) else _spoken(message)
    if not args:
        return template
    try:
        return template % args
    except Exception:  # noqa: BLE001 - whatever the arguments' own methods raise
        return _despite_faults(template, args)


def _spoken(message: object) -> str:
    if is_a(message, BaseException):
        return error_text(cast(BaseException, message), limit=1_000_000)
    return safe_text(message, limit=1_000_000)


def _despite_faults(template: str, args: Any) -> str:
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
    """The value itself where formatting it cannot run foreign code that raises."""
    try:
        _ = str(value), repr(value)
    except Exception:  # noqa: BLE001 - as above
        return safe_text(value)
    return value


def without_secret_placeholders(template: str, is_secret_key: Callable[[str], bool]) -> Plan:
    """The template with ``[REDACTED]`` where a secret would go, and which positional arguments it still takes.

    ``None`` when nothing has to change: no placeholder is named like a secret or follows the name of one.
    """
    out: list[str] = []
    kept: list[int] = []
    done = position = 0
    changed = False
    for match in _PLACEHOLDER.finditer(template):
        if match["kind"] == "%":
            continue
        stars = [match["width"], match["precision"]].count("*")
        name = match["name"]
        before = _NAME_BEFORE.search(template[max(0, match.start() - 56) : match.start()])
        named = name if name is not None else before[1] if before is not None else ""
        # ``pass: %d``: a count as often as a password; the number itself will tell.
        counted = match["kind"] in "dif" and is_weak(named)
        if is_secret_key(named) and not counted:
            out += (template[done : match.start()], REDACTED)
            done = match.end()
            changed = True
        else:
            kept += range(position, position + stars + 1)
        position += stars + 1
    if not changed:
        return None
    out.append(template[done:])
    return "".join(out), tuple(kept)
