"""Which passwords are accepted: long enough, not what everybody uses, not about the user. No composition rules.

ASVS 5.0, 6.2.1 and 6.2.4 to 6.2.12. The words in ``data/common_words.txt`` are recognised behind the usual
decorations (digits and signs at the ends, letters replaced by look-alikes, repetition), and runs along a keyboard
by rule; so a few thousand words stand for some hundred thousand passwords.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

from mks_hardening.exceptions import ConfigurationError

__all__ = ["PasswordFault", "PasswordPolicy", "PasswordVerdict"]

PasswordFault = Literal["too_short", "too_long", "not_text", "common", "personal", "breached"]

_ROWS: Final = (
    "1234567890-^",
    "0123456789",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "abcdefghijklmnopqrstuvwxyz",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "a1b2c3d4e5f6g7h8",
    "1a2b3c4d5e6f7g8h",
    "1qazxsw23edcvfr4",
    "12qwaszx",
    "147258369",
    "741852963",
    "789456123",
    "159753",
    "112233445566778899",
    "111222333444555666777888999000",
)
_RUNS: Final = (*_ROWS, *(row[::-1] for row in _ROWS))
_SHORTEST_RUN: Final = 3
_LONGEST_CHUNK: Final = 5
_SHORTEST_CORE: Final = 4
_MOST_DECORATIONS: Final = 10
_LOOK_ALIKES: Final = tuple(
    str.maketrans("@43!1|0$57+8", f"aae{letter}{letter}{letter}osstt" + "b") for letter in "il"
)


class PasswordVerdict(NamedTuple):
    """Whether a password is accepted; true when it is.

    Attributes:
        faults: why not, in codes an application can translate; empty when accepted.
    """

    faults: tuple[PasswordFault, ...]

    def __bool__(self) -> bool:
        return not self.faults


class PasswordPolicy:
    """What a new password must be.

    Args:
        min_length: in characters; 8 is right beside a second factor, 15 without one (NIST SP 800-63B-4).
        max_length: at least 64, at most 1024.
        context: words of the organisation (name, product, domain) that a password may not be about.
        breached: asked last, for example a look-up in a local list of leaked passwords; true refuses.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    def __init__(
        self,
        *,
        min_length: int = 8,
        max_length: int = 128,
        context: Collection[str] = (),
        breached: Callable[[str], bool] | None = None,
    ) -> None:
        if type(min_length) is not int or not 8 <= min_length <= 64:
            raise ConfigurationError("min_length must be an integer from 8 to 64", parameter="min_length")
        if type(max_length) is not int or not 64 <= max_length <= 1024:
            raise ConfigurationError("max_length must be an integer from 64 to 1024", parameter="max_length")
        if isinstance(context, str):
            raise ConfigurationError("context must be several words, not one text", parameter="context")
        self.min_length = min_length
        self.max_length = max_length
        self._context = tuple(context)
        self._breached = breached

    def check(self, password: str, *, username: str = "", context: Collection[str] = ()) -> PasswordVerdict:
        """Judge a new password.

        Args:
            password: as typed; its length counts after Unicode form NFC, as ``hash_password`` stores it.
            username: of the owner.
            context: further words about the owner: display name, mail address, birthday.
        """
        normal = _as_text(password)
        if normal is None:
            return PasswordVerdict(("not_text",))
        if len(normal) > self.max_length:
            return PasswordVerdict(("too_long",))
        folded = _folded(normal)
        faults: list[PasswordFault] = []
        if len(normal) < self.min_length:
            faults.append("too_short")
        if is_common(folded):
            faults.append("common")
        if any(_is_about(folded, word) for word in (username, *context, *self._context)):
            faults.append("personal")
        if not faults and self._breached is not None and self._breached(password):
            faults.append("breached")
        return PasswordVerdict(tuple(faults))

    def __repr__(self) -> str:
        return f"PasswordPolicy(min_length={self.min_length}, max_length={self.max_length})"


def is_common(folded: str) -> bool:
    """Whether a folded password is a common word, run or repetition behind the usual decorations."""
    words = _common_words()
    return any(core in words or _is_repeated(core) or _is_run(core) for core in _cores(folded))


def _cores(folded: str) -> Iterator[str]:
    """What is left without decorations; ``_`` and blanks between words are decorations too."""
    joined = "".join(letter for letter in folded if letter not in " _-.")
    trailing = _without_tail(joined)
    both = _without_tail(trailing[::-1])[::-1]
    for core in dict.fromkeys((joined, trailing, both)):
        if len(core) < _SHORTEST_CORE or len(joined) - len(core) > _MOST_DECORATIONS:
            continue
        yield core
        for table in _LOOK_ALIKES:
            yield core.translate(table)


def _without_tail(text: str) -> str:
    end = len(text)
    while end and not text[end - 1].isalpha():
        end -= 1
    return text[:end]


def _is_repeated(text: str) -> bool:
    """A short chunk, or a common word, again and again."""
    for length in range(1, len(text) // 2 + 1):
        chunk = text[:length]
        if (chunk * (len(text) // length + 1)).startswith(text):
            return length <= _LONGEST_CHUNK or chunk in _common_words()
    return False


def _is_run(text: str) -> bool:
    """Runs of three or more along a keyboard or an alphabet from end to end, but for one character."""
    position = spare = 0
    while position < len(text):
        length = _run_length(text, position)
        spare += length < _SHORTEST_RUN
        position += length if length >= _SHORTEST_RUN else 1
    return bool(text) and spare <= 1 and len(text) > _SHORTEST_RUN


def _run_length(text: str, start: int) -> int:
    length = 0
    for end in range(start + _SHORTEST_RUN, len(text) + 1):
        chunk = text[start:end]
        if chunk != chunk[0] * len(chunk) and not any(chunk in run for run in _RUNS):
            break
        length = end - start
    return length


def _is_about(folded: str, word: str) -> bool:
    """Whether a password contains the word, or a part of an address, forwards or backwards.

    Words of fewer than four letters are left alone: they are in everything.
    """
    for part in (_folded(word), *_folded(word).replace("@", " ").replace(".", " ").split()):
        if len(part) >= 4 and (part in folded or part[::-1] in folded):
            return True
    return False


def _as_text(password: object) -> str | None:
    if not isinstance(password, str) or any("\ud800" <= letter <= "\udfff" for letter in password):
        return None
    return unicodedata.normalize("NFC", password)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@cache
def _common_words() -> frozenset[str]:
    lines = (Path(__file__).parent / "data" / "common_words.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
