"""How much work one call may take: counted in steps, so that no input makes it long."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from mks_hardening._core.trace_text import CUT

__all__ = ["CUT", "REDACTED", "StepLimit", "replace_matches"]

#: Stands in the place of a secret.
REDACTED: Final = "[REDACTED]"
"""What stands where a secret was."""

# A step is what takes about a third of a microsecond; all of them some three milliseconds.
_STEPS: Final = 10_500
# What one text may take of them: enough for a secret every 25 characters, and less than half a millisecond for
# 1,000 characters, whatever they are.
_STEPS_OF_ANY_TEXT: Final = 250
# What part of that the next pass over a text may still take when an earlier one has used up the rest, and each one
# after it half of the one before: a text is shown only as far as all of them have seen it.
_GRACE: Final = 0.1


def _allowance(characters: int) -> int:
    return min(_STEPS, _STEPS_OF_ANY_TEXT + characters)


class StepLimit:
    """Steps that are left, in all and for the present text.

    Args:
        characters: what all of it is about; ``None`` where that is not known.

    Attributes:
        left: may fall below zero by the last step; then nothing more is looked at.
        brackets: what is known of the brackets in the present text, for each kind of them.
    """

    __slots__ = ("_elsewhere", "_grace", "_spent", "brackets", "left")

    def __init__(self, characters: int | None = None) -> None:
        self.left: int = _STEPS if characters is None else _allowance(characters)
        self.brackets: dict[str, Any] = {}
        self._elsewhere = self._grace = 0
        self._spent = False

    def spend(self, steps: int) -> bool:
        """Take steps; whether there were any."""
        if self.left <= 0:
            return False
        self.left -= steps
        return True

    def begin_text(self, characters: int) -> None:
        """A text begins: it may take as much as its length allows."""
        steps = min(self.left, _allowance(characters))
        self._elsewhere = self.left - steps
        self._grace = int(_GRACE * steps)
        self.left = steps

    def next_pass(self) -> None:
        """Another pass over the same text begins."""
        if self.left <= 0:
            self._spent, self.left = True, self._grace
            self._grace //= 2

    def end_of_text(self) -> None:
        """All passes over the text are done; what it has not used is left for others."""
        self.left = self._elsewhere + (0 if self._spent else max(self.left, 0))
        self._elsewhere, self._spent = 0, False
        self.brackets.clear()


def replace_matches(
    text: str,
    matches: Iterable[re.Match[str]],
    replacement: Callable[[re.Match[str]], str | None],
    effort: StepLimit,
    *,
    steps: int,
) -> str:
    """The text with what ``replacement`` gives for each match (``None``: as it is); cut where the effort ends."""
    out: list[str] = []
    done = 0
    for match in matches:
        if not effort.spend(steps):
            return "".join((*out, text[done : match.start()], CUT))
        new = replacement(match)
        if new is not None:
            out += (text[done : match.start()], new)
            done = match.end()
    return "".join((*out, text[done:])) if out else text
