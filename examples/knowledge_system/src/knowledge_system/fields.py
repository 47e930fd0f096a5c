"""The allow lists: which fields each form and each JSON endpoint takes."""

from __future__ import annotations

import re

from knowledge_system.rules import CATEGORIES, ROLES, STATUSES
from knowledge_system.validation import Field, Integer, Tags, Text

__all__ = [
    "ACCOUNT",
    "ARTICLE",
    "ARTICLE_EDIT",
    "ARTICLE_EDIT_FORM",
    "ARTICLE_FORM",
    "CLOCK_FORM",
    "CODE",
    "COMMENT",
    "LIST",
    "SESSION",
    "SIGN_IN",
]

_REVISION_LIMIT = 2**31 - 2

SIGN_IN: dict[str, Field] = {"username": Text(64), "password": Text(256, trim=False)}
CODE: dict[str, Field] = {"code": Text(64)}
COMMENT: dict[str, Field] = {"body": Text(2000, multiline=True)}
SESSION: dict[str, Field] = {"session": Text(128, pattern=re.compile(r"[A-Za-z0-9_.:=-]+"))}
CLOCK_FORM: dict[str, Field] = {"advance": Integer(1, 86_400, from_text=True)}

ARTICLE: dict[str, Field] = {
    "title": Text(200),
    "category": Text(32, choices=CATEGORIES),
    "summary": Text(500, min_length=0, multiline=True, default=""),
    "body": Text(50_000, multiline=True),
    "tags": Tags(),
    "status": Text(16, choices=tuple(STATUSES), default="draft"),
}
ARTICLE_EDIT: dict[str, Field] = {**ARTICLE, "revision": Integer(1, _REVISION_LIMIT)}
ARTICLE_FORM: dict[str, Field] = {**ARTICLE, "tags": Tags(from_text=True)}
ARTICLE_EDIT_FORM: dict[str, Field] = {
    **ARTICLE_FORM,
    "revision": Integer(1, _REVISION_LIMIT, from_text=True),
}

LIST: dict[str, Field] = {
    "category": Text(32, min_length=0, choices=("", *CATEGORIES), default=""),
    "tag": Text(40, min_length=0, default=""),
    "status": Text(16, choices=tuple(STATUSES), default="published"),
    "author": Text(64, min_length=0, default=""),
    "q": Text(100, min_length=0, default=""),
    "after": Text(2048, min_length=0, default=""),
}

ACCOUNT: dict[str, Field] = {
    "username": Text(64, min_length=3, pattern=re.compile(r"[a-z][a-z0-9._-]*")),
    "display_name": Text(100),
    "department": Text(100, min_length=0, default=""),
    "role": Text(16, choices=tuple(ROLES)),
    "password": Text(256, min_length=12, trim=False),
}
