"""Texts without their secrets, worked out once and kept."""

from __future__ import annotations

from typing import Final

from mks_hardening.protocols import Redactor

__all__ = ["RedactedTexts"]

# What takes half a millisecond at most when it is full of secrets.
_LONGEST: Final = 2_048


class RedactedTexts(dict[str, str]):
    """Texts without their secrets, each worked out once: messages and most values come again and again.

    A text that held a secret is not kept, nor one that is long.
    """

    __slots__ = ("_redactor", "dirty")

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        #: Characters of the texts of one record that held a secret; set to 0 before each.
        self.dirty: int = 0

    def __missing__(self, text: str) -> str:
        """The clean text.

        Raises:
            ValueError: the text has to be cut, or escaped in a way the fast encoder does not know, or so much
                in the record holds secrets that all of it together has to be bounded.
        """
        # Handed to the careful way: DEL passes the fast encoder, and a long text is not cut here.
        if "\x7f" in text or len(text) > _LONGEST:
            raise ValueError(len(text))
        clean = self._redactor.redact_text(text)
        if clean is not text:
            self.dirty += len(text)
            if self.dirty > _LONGEST:
                raise ValueError(self.dirty)
        # Only what held no secret: a cache of secrets would be one more place to leak from.
        if clean is text and len(text) <= 256:
            if len(self) >= 4096:
                self.clear()
            self[text] = clean
        return clean
