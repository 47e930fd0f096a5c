"""How much work one call may take: counted in steps, so that no input makes it long."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from mks_hardening._core.trace_text import CUT

__all__ = ["CUT", "REDACTED", "Effort", "replace_matches"]

#: Stands in the place of a secret.
REDACTED: Final = "[REDACTED]"
"""What stands where a secret was."""

# A step is what takes about a third of a microsecond; all of them some three milliseconds.
_STEPS: Final = 10_500
# What each pass over a text may still take when an earlier one has used up the rest: a text is shown only as far as
# all of them have seen it.
_GRACE: Final = 1_000


class Effort:
    """Steps that are left.

    Attributes:
        left: may fall below zero by the last step; then nothing more is looked at.
    """

    __slots__ = ("left", "spent")

    def __init__(self) -> None:
        self.left: int = _STEPS
        self.spent = False

    def spend(self, steps: int) -> bool:
        """Take steps; whether there were any."""
        if self.left <= 0:
            return False
        self.left -= steps
        return True

    def next_pass(self) -> None:
        """Another pass over the same text begins."""
        if self.left <= 0:
            self.spent, self.left = True, _GRACE

    def end_of_text(self) -> None:
        """All passes are done; a text that has used the grace was the last."""
        if self.spent:
            self.left = 0


def replace_matches(
    text: str,
    matches: Iterable[re.Match[str]],
    replacement: Callable[[re.Match[str]], str | None],
    effort: Effort,
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
