"""The articles that a user has read last in this browser, in a cookie: reading writes nothing to the database."""

from __future__ import annotations

import re
from typing import Final

from knowledge_system.web import cookies, current_request

_MOST: Final = 8
_FORM: Final = re.compile(r"([0-9]{1,12}):((?:[1-9][0-9]{0,9})(?:\.[1-9][0-9]{0,9}){0,7})")


def article_ids() -> list[int]:
    """Return the ids, newest first; empty if another user read them."""
    found = _FORM.fullmatch(cookies.kept(cookies.RECENT) or "")
    if found is None or int(found[1]) != current_request.actor().id:
        return []
    return [int(number) for number in found[2].split(".")]


def remember(article_id: int) -> None:
    """Put an article in front, unless it is there already."""
    before = article_ids()
    if before[:1] == [article_id]:
        return
    ids = [article_id, *(each for each in before if each != article_id)][:_MOST]
    cookies.keep(cookies.RECENT, f"{current_request.actor().id}:{'.'.join(map(str, ids))}")
