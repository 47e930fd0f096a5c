"""Step limit: bounds the work of one call, whatever the input."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from mks_hardening._core.exception_text import CUT

__all__ = ["CUT", "REDACTED", "StepLimit", "replace_matches"]

#: Replacement text for a secret.
REDACTED: Final = "[REDACTED]"
"""Replacement text for a secret."""

# A step takes about a third of a microsecond; all steps together some three milliseconds.
_STEPS: Final = 10_500
# Share of one text: enough for a secret every 25 characters, and less than half a millisecond for any text of 1,000
# characters.
_STEPS_OF_ANY_TEXT: Final = 250
# A tenth of that share is what the next pass over a text may take when an earlier pass has used up the rest; each
# later pass gets half of the one before. A text is shown only as far as all passes have examined it.
_GRACE_DIVISOR: Final = 10


def _allowance(characters: int) -> int:
    return min(_STEPS, _STEPS_OF_ANY_TEXT + characters)


class StepLimit:
    """Remaining steps, in total and for the current text.

    Args:
        characters: length of the whole input; ``None`` if unknown.

    Attributes:
        left: remaining steps; the last step may make it negative, and then nothing more is examined.
        brackets: cached bracket positions in the current text, by opening bracket.
    """

    __slots__ = ("_elsewhere", "_grace", "_spent", "brackets", "left")

    def __init__(self, characters: int | None = None) -> None:
        self.left: int = _STEPS if characters is None else _allowance(characters)
        self.brackets: dict[str, Any] = {}
        self._elsewhere = self._grace = 0
        self._spent = False

    def spend(self, steps: int) -> bool:
        """Use steps; return whether any were left."""
        if self.left <= 0:
            return False
        self.left -= steps
        return True

    def begin_text(self, characters: int) -> None:
        """Start a text, limited by its length."""
        self._elsewhere = max(0, self.left - _allowance(characters))
        self.left -= self._elsewhere
        self._grace = self.left // _GRACE_DIVISOR

    def next_pass(self) -> None:
        """Start another pass over the same text."""
        if self.left <= 0:
            self._spent, self.left = True, self._grace
            self._grace //= 2

    def end_of_text(self) -> None:
        """End the current text; its unused steps remain available."""
        unused = 0 if self._spent or self.left < 0 else self.left
        self.left = self._elsewhere + unused
        self._elsewhere, self._spent = 0, False
        if self.brackets:
            self.brackets.clear()


def replace_matches(
    text: str,
    matches: Iterable[re.Match[str]],
    replacement: Callable[[re.Match[str]], str | None],
    effort: StepLimit,
    *,
    steps: int,
) -> str:
    """Return the text with each match replaced (``None`` keeps it); truncated when the step limit is reached."""
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
