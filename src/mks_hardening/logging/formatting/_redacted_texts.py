"""Cache of texts after redaction."""

from __future__ import annotations

from typing import Final

from mks_hardening.protocols import Redactor

__all__ = ["RedactedTexts"]

# A text of this length that is full of secrets takes at most half a millisecond.
_LONGEST: Final = 2_048
#: Characters of all cached texts together.
_VOLUME: Final = 1_048_576
_MOST_TEXTS: Final = 4_096


class RedactedTexts(dict[str, str]):
    """Cache of redacted texts: messages and most values occur repeatedly.

    Texts that contained a secret are not cached.
    """

    __slots__ = ("_redactor", "_volume", "dirty")

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor
        self._volume = 0
        #: Number of characters in texts of one record that contained a secret; reset to 0 before each record.
        self.dirty: int = 0

    def __missing__(self, text: str) -> str:
        """Redact a text and cache it.

        Raises:
            ValueError: the text must be truncated, or escaped in a way that the fast encoder does not support, or
                so much of the record contains secrets that the whole record must be limited.
        """
        # Leave it to the general path: the fast encoder does not escape DEL, and long texts are not truncated here.
        if "\x7f" in text or len(text) > _LONGEST:
            raise ValueError(len(text))
        clean = self._redactor.redact_text(text)
        if clean is not text:
            self.dirty += len(text)
            if self.dirty > _LONGEST:
                raise ValueError(self.dirty)
        else:  # a cache of secrets could leak them
            if self._volume > _VOLUME or len(self) >= _MOST_TEXTS:
                self.clear()
                self._volume = 0
            self._volume += len(text)
            self[text] = clean
        return clean
