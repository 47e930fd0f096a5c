"""Exceptions as bounded data and text, with a custom traceback renderer.

The standard rendering takes 160 µs because it parses the source of every frame. Here a frame is rendered once per
code object and line and then cached, with a bounded cache. Nothing in here raises.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any, Final, NamedTuple, TypeAlias, cast

__all__ = ["CUT", "ExceptionDescription", "describe_exception", "own_attribute", "safe_text"]

Redact: TypeAlias = Callable[[str], str]
TextOf: TypeAlias = Callable[[BaseException], str | None]
Frame: TypeAlias = dict[str, object]
Structure: TypeAlias = dict[str, Any]

#: Marks omitted text.
CUT: Final = "…"
_MAX_LINE: Final = 300
_MAX_EXCEPTIONS: Final = 100
_MAX_CACHED: Final = 4096
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"
_HEAD: Final = "Traceback (most recent call last):\n"

# (id of code, line, redactor) -> (code, frame as data, frame as text). The code object is stored to be compared by
# identity, since its id may be reused.
_frames: dict[tuple[int, int, Redact | None], tuple[CodeType, Frame, str]] = {}


class ExceptionDescription(NamedTuple):
    """An exception as data and as text in the format of the standard library."""

    structure: Structure
    text: str


def describe_exception(
    exc: BaseException,
    *,
    redact_text: Redact | None = None,
    redact_message: Redact | None = None,
    text_of: TextOf | None = None,
    max_frames: int = 50,
    max_chars: int = 16_384,
    max_depth: int = 10,
) -> ExceptionDescription:
    """Describe an exception with its causes, contexts, groups and notes.

    Args:
        exc: the exception; its traceback is only read.
        redact_text: redacts messages, notes and source lines; redacted lines are cached, so its results must not
            change.
        redact_message: redacts messages and notes instead, if given.
        text_of: returns a replacement for the text of an exception; ``None`` keeps the original.
        max_frames: maximum frames of one traceback; the middle is omitted beyond that.
        max_chars: maximum characters of the text, and of one message.
        max_depth: maximum exceptions in one chain, and maximum nesting of groups.
    """
    walk = _TracebackWalk(
        redact_text,
        redact_message or redact_text,
        text_of,
        max_frames=max(2, max_frames),
        max_chars=max(64, max_chars),
    )
    structure, text = walk.describe(exc, max_depth)
    if len(text) > max_chars:
        # Both ends matter: the start, and the exception that was raised last.
        half = max_chars // 2
        text = f"{text[: max_chars - half - 3]}\n{CUT}\n{text[len(text) - half :]}"
    return ExceptionDescription(structure, text)


def safe_text(value: object, *, limit: int = 4096) -> str:
    """Return ``str(value)``, or a placeholder if it raises or does not return a string."""
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - foreign code; the log record must be written
        text = f"<{_class_name(value)} whose text raises {_class_name(error)}>"
    return text if len(text) <= limit else f"{text[:limit]}{CUT}"


class _TracebackWalk:
    __slots__ = ("max_chars", "max_frames", "redact_message", "redact_text", "seen", "text_of")

    def __init__(
        self,
        redact_text: Redact | None,
        redact_message: Redact | None,
        text_of: TextOf | None,
        *,
        max_frames: int,
        max_chars: int,
    ) -> None:
        self.redact_text = redact_text
        self.redact_message = redact_message
        self.text_of = text_of
        self.max_frames = max_frames
        self.max_chars = max_chars
        self.seen: set[int] = set()

    def describe(self, exc: BaseException, depth: int) -> tuple[Structure, str]:
        self.seen.add(id(exc))
        structure, text = self._one(exc)
        if issubclass(type(exc), BaseExceptionGroup):
            structure["exceptions"], inner = self._members(
                _exceptions_of(cast("BaseExceptionGroup[BaseException]", exc)), depth - 1
            )
            text += inner
        key, join, earlier = "cause", _CAUSE, own_attribute(exc, "__cause__")
        if earlier is None and not own_attribute(exc, "__suppress_context__"):
            key, join, earlier = "context", _CONTEXT, own_attribute(exc, "__context__")
        if earlier is None:
            return structure, text
        if depth <= 1 or id(earlier) in self.seen:
            structure[key] = {"type": _type_name(earlier), "message": CUT}
            return structure, text
        structure[key], before = self.describe(earlier, depth - 1)
        return structure, f"{before}{join}{text}"

    def _members(self, members: tuple[BaseException, ...], depth: int) -> tuple[list[Structure], str]:
        described: list[Structure] = []
        text = ""
        for number, member in enumerate(members, 1):
            full = number > self.max_frames or len(self.seen) >= _MAX_EXCEPTIONS
            if full or depth <= 0 or id(member) in self.seen:
                described.append({"type": CUT, "message": f"{len(members) - number + 1} more"})
                break
            structure, inner = self.describe(member, depth)
            described.append(structure)
            indented = inner.rstrip("\n").replace("\n", "\n    | ")
            text += f"    +---------------- {number} ----------------\n    | {indented}\n"
        return described, text

    def _one(self, exc: BaseException) -> tuple[Structure, str]:
        name = _type_name(exc)
        try:
            summary = None if self.text_of is None else self.text_of(exc)
        except Exception:  # noqa: BLE001 - a property that raises
            summary = None
        message = self._clean(safe_text(exc if summary is None else summary, limit=self.max_chars))
        stack, text = self._stack(own_attribute(exc, "__traceback__"))
        structure: Structure = {"type": name, "message": message, "stack": stack}
        line = f"{name}: {message}\n" if message else f"{name}\n"
        text = f"{_HEAD}{text}{line}" if stack else line
        lines = self._notes(exc)
        if lines:
            structure["notes"] = lines
            text += "".join(f"{note}\n" for note in lines)
        return structure, text

    def _notes(self, exc: BaseException) -> list[str]:
        try:
            notes: object = getattr(exc, "__notes__", None)
            if not notes:
                return []
            some = (
                list(cast("list[object]", notes)[: self.max_frames])
                if isinstance(notes, (list, tuple))
                else [notes]
            )
        except Exception as error:  # noqa: BLE001 - a property that raises
            return [f"<notes that raise {type(error).__name__}>"]
        return [self._clean(safe_text(note)) for note in some]

    def _clean(self, text: str) -> str:
        return text if self.redact_message is None else self.redact_message(text)

    def _stack(self, traceback: TracebackType | None) -> tuple[list[Frame], str]:
        places: list[TracebackType] = []
        while traceback is not None:
            places.append(traceback)
            traceback = traceback.tb_next
        left_out = len(places) - self.max_frames
        if left_out <= 0:
            rendered = [self._frame(place) for place in places]
            return [frame for frame, _ in rendered], "".join([text for _, text in rendered])
        half = self.max_frames // 2
        head = [self._frame(place) for place in places[:half]]
        tail = [self._frame(place) for place in places[half + left_out :]]
        stack = [frame for frame, _ in head] + [{"left_out": left_out}] + [frame for frame, _ in tail]
        gap = f"  {CUT} {left_out} frames left out\n"
        return stack, "".join(text for _, text in head) + gap + "".join(text for _, text in tail)

    def _frame(self, place: TracebackType) -> tuple[Frame, str]:
        code, line = place.tb_frame.f_code, place.tb_lineno
        key = (id(code), line, self.redact_text)
        known = _frames.get(key)
        if known is None or known[0] is not code:
            known = (code, *_render(code, line, place.tb_frame.f_globals, self.redact_text))
            if len(_frames) >= _MAX_CACHED:
                _frames.clear()
            _frames[key] = known
        return known[1], known[2]


def _render(code: CodeType, line: int, names: Structure, clean: Redact | None) -> tuple[Frame, str]:
    try:
        source = linecache.getline(code.co_filename, line or 0, names).strip()
    except Exception:  # noqa: BLE001 - a foreign loader
        source = ""
    source = source if len(source) <= _MAX_LINE else f"{source[:_MAX_LINE]}{CUT}"
    source = source if clean is None else clean(source)
    frame: Frame = {"file": code.co_filename, "line": line, "function": code.co_name, "code": source}
    text = f'  File "{code.co_filename}", line {line}, in {code.co_name}\n'
    return frame, f"{text}    {source}\n" if source else text


def own_attribute(exc: BaseException, attribute: str) -> Any:
    """Return the interpreter's attribute, bypassing ``__getattribute__`` and properties of the class."""
    return vars(BaseException)[attribute].__get__(exc)


def _exceptions_of(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    try:
        return tuple(one for one in group.exceptions if issubclass(type(one), BaseException))
    except Exception:  # noqa: BLE001 - a property of a subclass that raises
        return ()


def _type_name(exc: BaseException) -> str:
    cls = type(exc)
    try:
        module, name = str(cls.__module__), str(cls.__qualname__)
    except Exception:  # noqa: BLE001 - a property of a metaclass that raises
        return _class_name(exc)
    return name if module in {"builtins", "__main__"} else f"{module}.{name}"


def _class_name(value: object) -> str:
    """Return the name of the class, bypassing a metaclass that computes it."""
    return str(vars(type)["__name__"].__get__(type(value)))
