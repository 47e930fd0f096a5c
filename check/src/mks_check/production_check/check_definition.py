"""``CheckDefinition`` and the groups that checks are registered in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence, Level

__all__ = ["CheckDefinition", "CheckGroup", "Find", "Language"]

Language = Literal["en", "ja"]
Find = Callable[[Facts], Iterator[Evidence]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckDefinition:
    """One check: what it reads, how it judges, and its texts.

    Attributes:
        id: id, stable between releases and never used again for anything else.
        level: ``error``, ``warning`` or ``note``.
        reads: parts of ``Facts`` that must be there; the check is skipped without them.
        title: the problem in one sentence, by language (``en``, ``ja``).
        fix: what to do, by language.
        link: page of a standard or manual.
        find: pure function from the facts to what shows the problem; nothing if all is well.
    """

    id: str
    level: Level
    reads: tuple[str, ...]
    title: dict[Language, str]
    fix: dict[Language, str]
    link: str
    find: Find


class CheckGroup:
    """Checks that read the same parts.

    Args:
        reads: names of attributes of ``Facts``.
    """

    __slots__ = ("checks", "reads")

    def __init__(self, *reads: str) -> None:
        self.reads: tuple[str, ...] = reads
        self.checks: list[CheckDefinition] = []

    def register(
        self,
        identifier: str,
        level: Level,
        *,
        en: tuple[str, str],
        ja: tuple[str, str],
        link: str,
        reads: tuple[str, ...] = (),
    ) -> Callable[[Find], Find]:
        """Return a decorator that registers a function as a check.

        Args:
            identifier: id of the check.
            level: how severe a finding is.
            en: title and fix in English.
            ja: the same in Japanese.
            link: page of a standard or manual.
            reads: further parts that it reads.
        """

        def registered(find: Find) -> Find:
            self.checks.append(
                CheckDefinition(
                    id=identifier,
                    level=level,
                    reads=(*self.reads, *reads),
                    title={"en": en[0], "ja": ja[0]},
                    fix={"en": en[1], "ja": ja[1]},
                    link=link,
                    find=find,
                )
            )
            return find

        return registered
