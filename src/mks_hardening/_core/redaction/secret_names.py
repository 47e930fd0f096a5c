"""Which names hold secrets: one rule for dictionary keys, header names, query parameters and ``key=value`` text.

A name is split into lower-case words without separators. It is secret if it *ends* in a secret noun:
``db_password`` and ``X-Api-Key`` are secret; ``password_policy``, ``token_count`` and ``secretary`` are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mks_hardening._core.redaction.secret_patterns import NEUTRAL_WORDS, NOUNS, WEAK_VALUES

__all__ = ["STEMS", "by_first_letter", "ends_in_secret", "is_weak", "normalise", "reveals_secret"]

#: Every secret name contains one of these.
STEMS: Final = tuple(NOUNS)

_ALL: Final = " ".join(NOUNS.values()).split()
_ENDINGS: Final = tuple(noun[1:] for noun in _ALL if noun[0] == "…")
_WEAK: Final = frozenset(noun[1:] for noun in _ALL if noun[0] == "~")
_WORDS: Final = _WEAK | frozenset(noun for noun in _ALL if noun[0] not in "…~^")
_WHOLE: Final = frozenset(noun[1:] for noun in _ALL if noun[0] == "^")

_PIECE: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[ァ-ヿ]+|[^\W\d_a-zA-Zァ-ヿ]+")
_SMALL_NUMBER: Final = re.compile(r"-?[0-9]{1,3}(?:\.[0-9]{1,2})?%?|[0-9]{1,3}/[0-9]{1,3}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_FIRST_OF_NUMBER: Final = "-0123456789"
_DELIVERY_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_FOLDER: Final = re.compile(
    r"/(?:(?:app|builds?|data|etc|home|mnt|opt|root|run|srv|tmp|usr|var|work|workspace)(?:/[\w.@+-]{1,64}){0,24}/?)?"
)
_PLURALS: Final = frozenset(("cookies", "credentials", "passwords", "secrets"))
_COUNTS: Final = frozenset(("tokens",))
_COUNT_ENDINGS: Final = tuple(
    f"{what}トークン" for what in ("入力", "出力", "合計", "総", "最大", "消費", "残り")
)


def by_first_letter(words: Iterable[str]) -> str:
    """Return a pattern for any of the words, grouped by first letter, which doubles the speed."""
    groups: dict[str, list[str]] = {}
    for word in words:
        groups.setdefault(word[:1], []).append(re.escape(word[1:]))
    return "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in groups.items())


def normalise(name: str) -> list[str]:
    """Return the lower-case words of a name: ``X-ApiKey2`` gives ``x api key 2``."""
    if not name.isascii():
        from unicodedata import normalize

        name = normalize("NFKC", name)
    return [piece.lower() for piece in _PIECE.findall(name)]


def _without_neutral(words: list[str]) -> list[str]:
    while len(words) > 1 and (words[-1] in NEUTRAL_WORDS or words[-1].isdigit()):
        words.pop()
    return words


def ends_in_secret(name: str, *, extra_endings: tuple[str, ...] = ()) -> bool:
    """Return whether the name ends in a secret noun, apart from neutral words such as ``confirm`` or ``2``."""
    words = normalise(name)
    if not words:
        return False
    # connectionString ends in a word that is neutral elsewhere.
    if words[-1] in NEUTRAL_WORDS and "".join(words).endswith(_ENDINGS):
        return True
    joined = "".join(_without_neutral(words))
    return (
        joined.endswith(_ENDINGS)
        or words[-1] in _WORDS
        or joined in _WHOLE
        or (bool(extra_endings) and joined.endswith(extra_endings))
    )


def is_weak(name: str) -> bool:
    """Return whether a secret name often stands for a method or an outcome: ``auth``, ``pass``, ``session``."""
    words = _without_neutral(normalise(name))
    joined = "".join(words)
    return joined in _PLURALS or (bool(words) and words[-1] in _WEAK and not joined.endswith(_ENDINGS))


def is_count(name: str) -> bool:
    """Return whether numbers under a secret name are counts: ``tokens=512``, ``入力トークン 512``."""
    joined = "".join(_without_neutral(normalise(name)))
    return joined in _COUNTS or joined.endswith(_COUNT_ENDINGS)


def _is_of_another_kind(value: str, name: str) -> bool:
    """Whether an ambiguous name means something else here, judging by its value."""
    last = name.rstrip()[-16:]
    if last.endswith(("dsn", "DSN")):  # delivery status notification (RFC 3463), as logged by Postfix
        return _DELIVERY_STATUS.fullmatch(value) is not None
    if last.endswith("PWD"):  # working directory of a shell, as logged by sudo
        return name.split()[-1:] in (["PWD"], ["OLDPWD"]) and _FOLDER.fullmatch(value) is not None
    # Parser errors: Unexpected token '}'
    return len(value) <= 3 and last.lower().endswith("unexpected token")


def reveals_secret(value: object, name: str = "") -> bool:
    """Return whether a value under a secret name reveals anything.

    ``None``, booleans and empty text do not; nor do ``auth=ldap``, ``pass=3`` and ``tokens=512``.
    """
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, int):
        return not ((-1000 < value < 1000 and is_weak(name)) or (0 <= value < 10**9 and is_count(name)))
    if isinstance(value, str):
        if not value:
            return False
        numeric = value[0] in _FIRST_OF_NUMBER
        harmless = value.lower() in WEAK_VALUES if len(value) < 16 else False
        if (harmless or (numeric and _SMALL_NUMBER.fullmatch(value))) and is_weak(name):
            return False
        if numeric and _NUMBER.fullmatch(value) and is_count(name):
            return False
        return not _is_of_another_kind(value, name)
    return not (isinstance(value, bytes) and not value)
