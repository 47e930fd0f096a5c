"""Texts for users, in Japanese and English.

The source code holds the Japanese text, next to where it is used; the words for stored codes are in
``content/labels.toml``, the mails in ``content/mails.toml``. ``content/english`` maps all of it to English, in one
file per part of the application, so that changes to different parts do not conflict. TOML needs no compilation.
Problems and field errors have codes, whose texts are in ``content/messages.json``.
"""

from __future__ import annotations

import re
import tomllib
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Final, Literal

LANGUAGES: Final = {"ja": "日本語", "en": "English"}
"""Supported languages by code, each with its own name."""

_JAPANESE: Final = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
_FORMS: Final = {
    "day": {"ja": "%Y年%-m月%-d日", "en": "%-d %b %Y"},
    "month": {"ja": "%Y年%-m月", "en": "%B %Y"},
    "minute": {"ja": "%Y/%m/%d %H:%M", "en": "%-d %b %Y, %H:%M"},
    "second": {"ja": "%Y/%m/%d %H:%M:%S", "en": "%-d %b %Y, %H:%M:%S"},
}


@cache
def english() -> dict[str, str | list[str]]:
    """Load the catalogue: Japanese text to English text, or to a pair of singular and plural for ``count``."""
    found: dict[str, str | list[str]] = {}
    folder = files("knowledge_system").joinpath("content", "english").iterdir()
    for file in sorted(folder, key=lambda entry: entry.name):
        found |= tomllib.loads(file.read_text(encoding="utf-8"))
    return found


def say(text: str, language: str, /, **values: object) -> str:
    """Return a text in a language with its values; a text that is not in the catalogue, like a name, is unchanged.

    Args:
        text: Japanese text with placeholders like ``%(title)s``; percent signs are doubled.
        language: ``ja`` or ``en``.
        **values: values of the placeholders; ``count`` selects the English singular or plural.
    """
    sentence = english().get(text)
    if sentence is None:
        return text
    if language == "ja":
        sentence = text
    elif isinstance(sentence, list):
        sentence = sentence[values["count"] != 1]
    return sentence % values


def written(moment: date, form: Literal["day", "month", "minute", "second"], language: str) -> str:
    """Format a date or time for a language, with the given precision."""
    return moment.strftime(_FORMS[form][language])


def is_japanese(text: str) -> bool:
    """Whether a text written by a user should be marked as Japanese, for screen readers."""
    return _JAPANESE.search(text) is not None
