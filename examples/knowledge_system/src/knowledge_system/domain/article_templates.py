"""Templates of articles: the parts of a procedure, a corrective report and a check list, in the usual order."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from knowledge_system.domain import content


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
    found = content.read_toml("article_templates.toml")
    return {
        language: tuple(
            ArticleTemplate(
                key, entry[language]["name"], entry["category"], entry[language]["body"].strip() + "\n"
            )
            for key, entry in found.items()
        )
        for language in ("ja", "en")
    }
