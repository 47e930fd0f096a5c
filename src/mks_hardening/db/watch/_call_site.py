"""Where in the application a statement comes from: frames that are neither SQLAlchemy's nor ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Final, TypeAlias

__all__ = ["Path", "call_path", "call_site"]

Path: TypeAlias = tuple[tuple[CodeType, int], ...]
"""Code and line of one frame after another, the nearest first."""

_FOREIGN: Final = frozenset({"sqlalchemy", "asyncio", "contextlib", "contextvars", "greenlet", "threading"})
_LONGEST_PATH: Final = 50  # recursion deeper than this is told apart no more


def call_site() -> str:
    """``file:line`` of the nearest application frame, or an empty text."""
    for frame in _application_frames(sys._getframe(1)):  # noqa: SLF001 - inspect.stack reads source files
        return f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-3:])}:{frame.f_lineno}"
    return ""


def call_path() -> Path:
    """The nearest application frames; equal for two statements that come from the same place by the same way."""
    path: list[tuple[CodeType, int]] = []
    for frame in _application_frames(sys._getframe(1)):  # noqa: SLF001 - as above
        path.append((frame.f_code, frame.f_lineno))
        if len(path) == _LONGEST_PATH:
            break
    return tuple(path)


def _application_frames(frame: FrameType | None) -> Iterator[FrameType]:
    # Code objects and line numbers only: source lines would be read from disk (django-zeal halved its cost so).
    for start in (frame, _awaiting_frame()):
        current = start
        while current is not None:
            module = str(current.f_globals.get("__name__", ""))
            if module.partition(".")[0] not in _FOREIGN and not module.startswith("mks_hardening.db."):
                yield current
            current = current.f_back


def _awaiting_frame() -> FrameType | None:
    """SQLAlchemy's asyncio runs the driver in a greenlet; who awaits it stands in the parent."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    outermost = greenlet.getcurrent()
    while outermost.parent is not None:
        outermost = outermost.parent
    frame: FrameType | None = outermost.gr_frame
    return frame
