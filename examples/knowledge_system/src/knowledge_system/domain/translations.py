"""What the system says to people, in Japanese or English.

Japanese stands in the source, where a reader of a page or a mail looks for it; ``content/english`` says the same in
English, one file for each room. Plain TOML needs no step that compiles it, and two people who add sentences to two
rooms do not meet. Problems and faults have codes, and their sentences stand in ``content/messages.json``.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from datetime import date

__all__ = ["LANGUAGES", "english", "is_japanese", "say", "written"]

LANGUAGES: Final = {"ja": "日本語", "en": "English"}
"""By code, each by its own name."""

_JAPANESE: Final = re.compile("[\u3041-\u30ff\u4e00-\u9fff]")
_FORMS: Final = {
    "day": {"ja": "%Y年%-m月%-d日", "en": "%-d %b %Y"},
    "month": {"ja": "%Y年%-m月", "en": "%B %Y"},
    "minute": {"ja": "%Y/%m/%d %H:%M", "en": "%-d %b %Y, %H:%M"},
    "second": {"ja": "%Y/%m/%d %H:%M:%S", "en": "%-d %b %Y, %H:%M:%S"},
}


@cache
def english() -> dict[str, str | list[str]]:
    """The catalogue: a sentence, or the one for a ``count`` of one and that for all others."""
    found: dict[str, str | list[str]] = {}
    rooms = files("knowledge_system").joinpath("content", "english").iterdir()
    for room in sorted(rooms, key=lambda file: file.name):
        found |= tomllib.loads(room.read_text(encoding="utf-8"))
    return found


def say(text: str, language: str, /, **values: object) -> str:
    """A sentence in a language, with its values; one that is not in the catalogue, like a name, stays as it is.

    Args:
        text: the sentence in Japanese, with places like ``%(title)s``; a percent sign stands twice.
        language: ``ja`` or ``en``.
        **values: what stands at the places; an English sentence may depend on ``count``.
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
    """A moment as it is written in a language, as exact as asked for."""
    return moment.strftime(_FORMS[form][language])


def is_japanese(text: str) -> bool:
    """Whether a text that people wrote is to be read aloud in Japanese."""
    return _JAPANESE.search(text) is not None
