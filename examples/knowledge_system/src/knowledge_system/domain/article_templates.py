"""Templates of articles: the parts of a procedure, a corrective report and a check list, in the usual order."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class ArticleTemplate(NamedTuple):
    """A template: its key in addresses, its name, the usual category, and the text to fill in."""

    key: str
    name: str
    category: str
    body: str


def listed(language: str) -> tuple[ArticleTemplate, ...]:
    """Return all templates in a language."""
    return _read()[language]


def find(key: str, language: str) -> ArticleTemplate | None:
    """Return the template with this key."""
    return next((each for each in listed(language) if each.key == key), None)


@cache
def _read() -> dict[str, tuple[ArticleTemplate, ...]]:
    text = files("knowledge_system").joinpath("content", "article_templates.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    return {
        language: tuple(
            ArticleTemplate(
                key, entry[language]["name"], entry["category"], entry[language]["body"].strip() + "\n"
            )
            for key, entry in found.items()
        )
        for language in ("ja", "en")
    }
