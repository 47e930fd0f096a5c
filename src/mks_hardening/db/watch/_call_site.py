"""Call sites: application frames that send a statement, without those of SQLAlchemy and this package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Final, TypeAlias, cast

from mks_hardening._core.memo import Memo

__all__ = ["CallStack", "Path", "call_path", "call_site", "call_stack"]

CallStack: TypeAlias = "list[CodeType | int]"
"""Code object and instruction of consecutive frames in turn, innermost first: a list costs less than pairs."""
Path: TypeAlias = tuple[tuple[CodeType, int], ...]
"""Code object and line number of different frames, innermost first."""

_FOREIGN: Final = frozenset({"sqlalchemy", "asyncio", "contextlib", "contextvars", "greenlet", "threading"})
_LONGEST_STACK: Final = 100  # 50 frames: deeper recursion is no longer distinguished


def call_stack() -> CallStack:
    """Return the innermost application frames; what they mean is computed only when somebody asks.

    No source lines: they would be read from disk (avoiding that halved django-zeal's cost).
    """
    stack: CallStack = []
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.stack reads source files
    for following in (_awaiting_frame, None):
        while frame is not None:
            if not _is_foreign[frame.f_globals.get("__name__")]:
                stack += (frame.f_code, frame.f_lasti)
                if len(stack) == _LONGEST_STACK:
                    return stack
            frame = frame.f_back
        if following is not None:
            frame = following()
    return stack


def call_site(stack: CallStack | None = None) -> str:
    """Return ``file:line`` of the innermost application frame, or an empty string.

    Args:
        stack: application frames; those of the caller by default.
    """
    for code, instruction in _frames(call_stack() if stack is None else stack):
        return f"{'/'.join(PurePath(code.co_filename).parts[-3:])}:{_line_of(code, instruction)}"
    return ""


def call_path(stack: CallStack) -> Path:
    """Return the call path; equal for statements sent by the same line via the same calls.

    Each line counts once, so that a recursive function has the same path at every depth.
    """
    return tuple(dict.fromkeys((code, _line_of(code, instruction)) for code, instruction in _frames(stack)))


def _frames(stack: CallStack) -> Iterator[tuple[CodeType, int]]:
    return zip(cast("list[CodeType]", stack[::2]), cast("list[int]", stack[1::2]), strict=True)


def _line_of(code: CodeType, instruction: int) -> int:
    found = code.co_firstlineno
    for start, end, line in code.co_lines():
        if start <= instruction < end:
            return found if line is None else line
    return found


def _is_module_foreign(module: object) -> bool:
    name = str(module or "")
    return name.partition(".")[0] in _FOREIGN or name.startswith("mks_hardening.db.")


_is_foreign: Final[Memo[object, bool]] = Memo(_is_module_foreign)


def _awaiting_frame() -> FrameType | None:
    """Innermost frame of the awaiting code; SQLAlchemy's asyncio extension runs the driver in a child greenlet."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    outermost = greenlet.getcurrent()
    if outermost.parent is None:  # its own stack is the one that is running
        return None
    while outermost.parent is not None:
        outermost = outermost.parent
    frame: FrameType | None = outermost.gr_frame
    return frame
