"""Texts without their secrets, worked out once and kept."""

from __future__ import annotations

from mks_hardening._core.redaction.plain_data import LONGEST_TEXT
from mks_hardening.protocols import Redactor

__all__ = ["CleanTexts"]


class CleanTexts(dict[str, str]):
    """Texts without their secrets, each worked out once: messages and most values come again and again.

    A text that held a secret is not kept, nor one that is long.
    """

    __slots__ = ("_redactor",)

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def __missing__(self, text: str) -> str:
        """The clean text.

        Raises:
            ValueError: the text has to be cut, or escaped in a way the fast encoder does not know.
        """
        # Handed to the careful way: DEL passes the fast encoder, and a long text is not cut here.
        if "\x7f" in text or len(text) > LONGEST_TEXT:
            raise ValueError(len(text))
        clean = self._redactor.redact_text(text)
        # Only what held no secret: a cache of secrets would be one more place to leak from.
        if clean is text and len(text) <= 256:
            if len(self) >= 4096:
                self.clear()
            self[text] = clean
        return clean
