"""How many statements a page may send when nothing of it is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from knowledge_system.settings import AREAS


@pytest.mark.parametrize(
    "path",
    [
        "/articles",
        "/articles?category=コンクリート&tag=養生",
        "/articles?q=養生",
        "/articles?status=draft",
        "/articles/1",
        "/articles?site=北工区&tag=養生",
        "/articles?q=養生&page=2",
        "/favourites",
        "/sites",
        "/api/tags?q=ＲＣ",
        "/api/favourites",
        "/api/watches",
        "/articles/1/edit",
        "/articles/new",
        "/account",
        "/api/knowledge",
        "/api/knowledge?q=養生",
        "/api/knowledge/1",
        "/api/knowledge/1/comments",
        "/api/auth/me",
    ],
)
def test_a_page_sends_six_statements_at_most_and_a_search_one_more(
    make_app: Callable[..., Any], visit: Callable[..., Any], mks_query_budget: Any, path: str
) -> None:
    app = make_app(areas=AREAS - {"logging", "notify", "cache"})
    reader = visit("sato", at=app)
    headers = {"Accept": "application/json" if path.startswith("/api/") else "text/html"}
    # A search also looks whether attachments match.
    with mks_query_budget(7 if "?q=養生" in path else 6, app.extensions["knowledge"].engine):
        answer = reader.send("GET", path, headers=headers)
    assert answer.status_code == 200
