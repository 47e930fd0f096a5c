"""Password policy: long enough, not common, not based on the user's data. No composition rules.

ASVS 5.0, 6.2.1 and 6.2.4 to 6.2.12. The words in ``data/common_words.txt`` are recognised despite the usual
decorations (digits and symbols at the ends, letters replaced by look-alikes, repetition), and keyboard runs by
rule; so a few thousand words cover some hundred thousand passwords.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from mks_hardening._core.checks import function, strings, text_of, whole_number

__all__ = ["PasswordErrorCode", "PasswordPolicy", "PasswordVerdict"]

PasswordErrorCode = Literal["too_short", "too_long", "not_text", "common", "personal", "breached"]
"""Code for the reason why a password is refused."""

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
# Two tables, as 1, ! and | represent both i and l.
_LOOK_ALIKES: Final = tuple(
    str.maketrans("@43!1|0$57+8", f"aae{letter}{letter}{letter}osstt" + "b") for letter in "il"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordVerdict:
    """The result of checking a password; true if it is accepted.

    Attributes:
        errors: the reasons for a refusal, as codes that an application can translate; empty if accepted.
    """

    errors: tuple[PasswordErrorCode, ...]

    def __bool__(self) -> bool:
        return not self.errors


class PasswordPolicy:
    """Rules for new passwords.

    Args:
        min_length: in characters; use 8 together with a second factor, 15 without one (NIST SP 800-63B-4).
        max_length: in characters, 64 to 1024.
        context: words of the organisation (name, product, domain) that a password must not be based on.
        breached: called last with the password, for example ``BreachedPasswords(path)``; true refuses it. If it
            raises an error, the caller of ``check`` gets it.

    Raises:
        ConfigurationError: a value is out of range.
    """

    def __init__(
        self,
        *,
        min_length: int = 8,
        max_length: int = 128,
        context: Collection[str] = (),
        breached: Callable[[str], bool] | None = None,
    ) -> None:
        self.min_length: int = whole_number(min_length, parameter="min_length", minimum=8, maximum=64)
        self.max_length: int = whole_number(max_length, parameter="max_length", minimum=64, maximum=1024)
        self._context = strings(context, parameter="context", of="words")
        self._breached = breached if breached is None else function(breached, parameter="breached")

    def check(
        self, password: str, *, username: str = "", email: str = "", context: Collection[str] = ()
    ) -> PasswordVerdict:
        """Check a new password.

        Args:
            password: as typed; its length is that of Unicode form NFC, which ``hash_password`` hashes.
            username: user name of the owner.
            email: address of the owner; every part of it counts, including the domain.
            context: further words about the owner: display name, birthday.

        Raises:
            ConfigurationError: ``username``, ``email`` or ``context`` has the wrong type.
        """
        words = (
            text_of(username, parameter="username"),
            text_of(email, parameter="email"),
            *strings(context, parameter="context", of="words"),
        )
        normal = _as_text(password)
        if normal is None:
            return PasswordVerdict(errors=("not_text",))
        if len(normal) > self.max_length:
            return PasswordVerdict(errors=("too_long",))
        folded = _folded(normal)
        errors: list[PasswordErrorCode] = []
        if len(normal) < self.min_length:
            errors.append("too_short")
        if is_common(folded):
            errors.append("common")
        if _is_about(folded, (*words, *self._context)):
            errors.append("personal")
        # Last, as it may read a file or send a request, and only for passwords that are accepted otherwise.
        if not errors and self._breached is not None and self._breached(password):
            errors.append("breached")
        return PasswordVerdict(errors=tuple(errors))

    def __repr__(self) -> str:
        return f"PasswordPolicy(min_length={self.min_length}, max_length={self.max_length})"


def is_common(folded: str) -> bool:
    """Return whether a folded password is a common word, run or repetition, apart from the usual decorations."""
    words = _common_words()
    if any(core in words or _is_repeated(core) or _is_run(core) for core in _cores(folded)):
        return True
        # "summer2025summer2026" is one word, repeated with other decorations.
    letters = "".join(letter for letter in folded if letter.isalpha())
    few = len(folded) - len(letters) <= _MOST_DECORATIONS
    return few and len(letters) >= 2 * _SHORTEST_CORE and _is_repeated(letters)


def _cores(folded: str, *, shortest: int = _SHORTEST_CORE) -> Iterator[str]:
    """Yield the password without decorations, with look-alikes replaced; word separators are removed too."""
    joined = "".join(letter for letter in folded if letter not in " _-.")
    trailing = _without_tail(joined)
    both = _without_tail(trailing[::-1])[::-1]
    for core in dict.fromkeys((joined, trailing, both)):
        if len(core) < shortest or len(joined) - len(core) > _MOST_DECORATIONS:
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
    """Return whether a short chunk, or a common password, is repeated to the end."""
    for length in range(1, len(text) // 2 + 1):
        chunk = text[:length]
        if (chunk * (len(text) // length + 1)).startswith(text):
            return length <= _LONGEST_CHUNK or is_common(chunk)
    return False


def _is_run(text: str) -> bool:
    """Return whether all characters but one are in keyboard, alphabet or single-character runs of three or more."""
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


def _is_about(folded: str, words: Iterable[str]) -> bool:
    """Return whether a password contains a word or a part of one: forwards, backwards or with look-alikes.

    Parts of fewer than four characters occur in many passwords; they count only if the password is nothing else.
    """
    joined = "".join(letter for letter in folded if letter.isalnum())
    seen = {text for form in (folded, joined) for text in (form, *(form.translate(t) for t in _LOOK_ALIKES))}
    bare = set(_cores(folded, shortest=2))
    for part in {part for word in words for part in _parts(_folded(word))}:
        both = {part, part[::-1]}
        if len(part) >= _SHORTEST_CORE and any(form in text for form in both for text in seen):
            return True
        if both & bare:
            return True
    return False


def _parts(word: str) -> Iterator[str]:
    """Yield a name as it is, its pieces, and all pieces joined."""
    pieces = "".join(letter if letter.isalnum() else " " for letter in word).split()
    yield from (part for part in (word, *pieces, "".join(pieces)) if len(part) >= 2)


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
