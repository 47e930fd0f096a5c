"""Differences between two texts as readers see them: blocks of the rendered text, tables as tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final, Literal, NamedTuple

from markupsafe import Markup, escape

from knowledge_system.domain.markdown import PLACE, Block, blocks
from knowledge_system.domain.text_differences import DifferencePiece, difference

Kind = Literal["same", "added", "removed", "changed", "gap"]
_MOST_BLOCKS: Final = 2000
_NUMBER: Final = re.compile(r'(?<=<ol) start="[0-9]+"')


class RenderedDifference(NamedTuple):
    """A block of the rendered text; ``changed`` has both texts marked in one, ``gap`` replaces equal blocks."""

    kind: Kind
    html: Markup = Markup("")


def rendered_differences(before: str, after: str, *, language: str = "ja") -> tuple[RenderedDifference, ...]:
    """Return the blocks of both texts in reading order; empty if readers see the same.

    A paragraph, heading or list item that was changed is one block with the changes marked. A table or a code block
    that was changed is shown as it was and as it is.

    Args:
        before: the older text, as Markdown.
        after: the newer text.
        language: language of the labels for screen readers.
    """
    old, new = (list(blocks(text, language=language))[:_MOST_BLOCKS] for text in (before, after))
    old_keys, new_keys = ([_without_number(block.html) for block in each] for each in (old, new))
    if old_keys == new_keys:
        return ()
    matcher = SequenceMatcher(None, old_keys, new_keys, autojunk=False)
    found: list[RenderedDifference] = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            found.extend(RenderedDifference("same", block.html) for block in old[i:j])
        else:
            found.extend(_replaced(old[i:j], new[k:m]))
    return tuple(_shortened(found))


def _replaced(old: Sequence[Block], new: Sequence[Block]) -> Iterator[RenderedDifference]:
    paired = min(len(old), len(new))
    for one, other in zip(old, new, strict=False):
        marked = _marked(one, other)
        if marked is None:
            yield RenderedDifference("removed", one.html)
            yield RenderedDifference("added", other.html)
        else:
            yield RenderedDifference("changed", marked)
    yield from (RenderedDifference("removed", block.html) for block in old[paired:])
    yield from (RenderedDifference("added", block.html) for block in new[paired:])


def _marked(old: Block, new: Block) -> Markup | None:
    """Return the newer block with the changes marked; ``None`` if the blocks differ in kind or too much."""
    if not old.text or not new.text or _without_number(old.frame) != _without_number(new.frame):
        return None
    lines = difference(old.text, new.text)
    if len(lines) != 1 or lines[0].kind != "changed":
        return None
    return Markup(new.frame.replace(PLACE, Markup().join(map(_piece, lines[0].pieces))))  # noqa: S704 - both are safe


def _without_number(html: str) -> str:
    """Leave out the number of a list item: after an inserted item, the others are the same."""
    return _NUMBER.sub("", html)


def _piece(piece: DifferencePiece) -> Markup:
    match piece.kind:
        case "added":
            return Markup("<ins>{}</ins>").format(piece.text)
        case "removed":
            return Markup("<del>{}</del>").format(piece.text)
        case _:
            return escape(piece.text)


def _shortened(found: Sequence[RenderedDifference]) -> Iterator[RenderedDifference]:
    """Replace equal blocks that are not next to a difference."""
    changed = {number for number, each in enumerate(found) if each.kind != "same"}
    gap = False
    for number, each in enumerate(found):
        kept = not changed.isdisjoint(range(number - 1, number + 2))
        if kept:
            yield each
        elif not gap:
            yield RenderedDifference("gap")
        gap = not kept
