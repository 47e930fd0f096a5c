"""Call sites: application frames that send a statement, without those of SQLAlchemy and this package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Final, TypeAlias

__all__ = ["Path", "call_path", "call_site"]

Path: TypeAlias = tuple[tuple[CodeType, int], ...]
"""Code object and line number of consecutive frames, innermost first."""

_FOREIGN: Final = frozenset({"sqlalchemy", "asyncio", "contextlib", "contextvars", "greenlet", "threading"})
_LONGEST_PATH: Final = 50  # deeper recursion is no longer distinguished


def call_site() -> str:
    """Return ``file:line`` of the innermost application frame, or an empty string."""
    for frame in _application_frames(sys._getframe(1)):  # noqa: SLF001 - inspect.stack reads source files
        return f"{'/'.join(PurePath(frame.f_code.co_filename).parts[-3:])}:{frame.f_lineno}"
    return ""


def call_path() -> Path:
    """Return the innermost application frames; equal for statements sent by the same line via the same calls."""
    path: list[tuple[CodeType, int]] = []
    for frame in _application_frames(sys._getframe(1)):  # noqa: SLF001 - as above
        path.append((frame.f_code, frame.f_lineno))
        if len(path) == _LONGEST_PATH:
            break
    return tuple(path)


def _application_frames(frame: FrameType | None) -> Iterator[FrameType]:
    # Only code objects and line numbers: source lines would be read from disk (avoiding that halved django-zeal's
    # cost).
    for start in (frame, _awaiting_frame()):
        current = start
        while current is not None:
            module = str(current.f_globals.get("__name__", ""))
            if module.partition(".")[0] not in _FOREIGN and not module.startswith("mks_hardening.db."):
                yield current
            current = current.f_back


def _awaiting_frame() -> FrameType | None:
    """Innermost frame of the awaiting code; SQLAlchemy's asyncio extension runs the driver in a child greenlet."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    outermost = greenlet.getcurrent()
    while outermost.parent is not None:
        outermost = outermost.parent
    frame: FrameType | None = outermost.gr_frame
    return frame
