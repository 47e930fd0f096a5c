"""Allow lists of the fields that each form and each JSON endpoint accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from knowledge_system.domain.permissions import CATEGORIES, ROLES, STATUSES
from knowledge_system.domain.permissions import MAILS as MAIL_CHOICES
from knowledge_system.domain.translations import LANGUAGES
from knowledge_system.domain.tree import STEPS as NODE_STEPS
from knowledge_system.domain.validation import Field, Flag, Integer, Tags, Text
from knowledge_system.domain.workflow import STEPS

_REVISION_LIMIT = 2**31 - 2
_TOKEN = re.compile(r"[A-Za-z0-9_.=-]+")

Fields: TypeAlias = dict[str, Field]


def _optional(max_length: int, **rules: Any) -> Text:
    """Return a text that may be empty or missing."""
    return Text(max_length, min_length=0, default="", **rules)


_ON: Final = _optional(2, choices=("", "on"))
"""A checkbox."""

SIGN_IN: Fields = {"username": Text(64), "password": Text(256, trim=False), "recovery_code": _optional(64)}
SIGN_IN_FORM: Fields = {**SIGN_IN, "remember": _ON}
SIGN_IN_API: Fields = {**SIGN_IN, "tokens": Flag(default=False)}
PROVIDER_RESPONSE: Fields = {
    "code": _optional(4096),
    "state": _optional(64),
    "iss": _optional(255),
    "error": _optional(255),
}
CONFIRMATION: Fields = {"proof": Text(256, trim=False)}
PASSWORD: Fields = {"password": Text(256, trim=False), "new_password": Text(256, trim=False)}
FORGOTTEN: Fields = {"username": Text(64)}
RESET_FORM: Fields = {"token": Text(256, default=""), "new_password": Text(256, trim=False)}
EMAIL: Fields = {"email": Text(254)}
TOKEN: Fields = {"token": Text(256, default="")}
CODE: Fields = {"code": Text(64)}
CODE_API: Fields = {**CODE, "challenge": _optional(512)}
REFRESH: Fields = {"refresh_token": Text(128, pattern=_TOKEN)}
RESET: Fields = {"username": Text(64)}
NEW_PASSWORD: Fields = {"token": Text(512, pattern=_TOKEN), "new_password": Text(256, trim=False)}
_ANSWER = Text(16_384, trim=False)
"""The browser's WebAuthn response for a passkey, as JSON."""
CODE_FORM: Fields = {"code": _optional(64), "answer": _ANSWER._replace(min_length=0, default="")}
CONFIRMATION_FORM: Fields = {
    "proof": _optional(256, trim=False),
    "answer": _ANSWER._replace(min_length=0, default=""),
}
PASSKEY: Fields = {"answer": _ANSWER, "name": _optional(64)}
PASSKEY_PROOF: Fields = {"code": _optional(64)}
PASSKEY_REMOVAL: Fields = {"passkey": Text(128), "code": Text(64)}
PASSKEY_SIGN_IN: Fields = {"answer": _ANSWER}
COMMENT: Fields = {"body": Text(2000, multiline=True)}
COMMENT_FORM: Fields = {**COMMENT, "parent": Integer(0, 2**31 - 1, from_text=True, default=0)}
FACTOR_HELP: Fields = {"owner": Text(64), "help": Text(16, choices=("unlock", "reset")), "reason": Text(200)}
_SESSION = Text(128, pattern=re.compile(r"[A-Za-z0-9_.:=-]+"))
SESSION: Fields = {"session": _SESSION}
DEVICE: Fields = {"device": Text(32, pattern=re.compile(r"[0-9a-f]+"))}
ANY_SESSION: Fields = {"session": _SESSION._replace(min_length=0, default="")}
"""An empty value means all sessions."""
LANGUAGE: Fields = {"language": Text(2, choices=tuple(LANGUAGES))}
CLOCK_FORM: Fields = {"advance": Integer(1, 86_400, from_text=True)}

BODY_LIMIT: Final = 1_048_576
"""Maximum size in bytes of a request without files.

The longest article fits: a body of 50,000 characters is 600,000 bytes if each is a supplementary ideograph (12
bytes when URL-encoded, 12 as escaped JSON).
"""
ARTICLE: Fields = {
    "title": Text(200),
    "category": Text(32, choices=CATEGORIES),
    "summary": _optional(500, multiline=True),
    "body": Text(50_000, multiline=True),
    "tags": Tags(),
    "site": _optional(100),
    "status": Text(16, choices=tuple(STATUSES), default="draft"),
}
# The revision may be given in If-Match instead; 0 means that the body has none.
ARTICLE_REPLACED: Fields = {**ARTICLE, "revision": Integer(1, _REVISION_LIMIT, default=0)}
ARTICLE_FORM: Fields = {**ARTICLE, "tags": Tags(from_text=True)}
ARTICLE_EDIT_FORM: Fields = {**ARTICLE_FORM, "revision": Integer(1, _REVISION_LIMIT, from_text=True)}

_TYPED = _optional(500, multiline=True, trim=False)
DRAFT: Fields = {
    **dict.fromkeys(("title", "category", "status", "site", "summary", "tags"), _TYPED),
    "body": _optional(50_000, multiline=True, trim=False),
    "revision": Integer(0, _REVISION_LIMIT, default=0),
}
"""What was typed so far: any text of the editor."""

_DAY = re.compile(r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
AUDIT: Fields = {
    "q": _optional(100),
    "before": Integer(0, _REVISION_LIMIT, from_text=True, default=0),
    "verify": _optional(1, choices=("", "1")),
}
AUDIT_EXPORT: Fields = {
    "since": _optional(10, pattern=_DAY),
    "until": _optional(10, pattern=_DAY),
    "format": Text(5, choices=("csv", "jsonl")),
}
OPERATIONS: Fields = {"hours": Text(2, choices=("1", "6", "24"), default="1")}
PREVIEW: Fields = {
    "title": _optional(200),
    "summary": _optional(500, multiline=True),
    "body": _optional(50_000, multiline=True),
    "part": _optional(4, choices=("", "body")),
}
STEP: Fields = {
    "step": Text(16, choices=tuple(STEPS)),
    "revision": Integer(1, _REVISION_LIMIT),
    "comment": _optional(2000, multiline=True),
    # Ids of the attachments that the reviewer saw; 0 if there were none, empty if the client does not say.
    "files": _optional(600, pattern=re.compile(r"0|[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*")),
}
STEP_FORM: Fields = {**STEP, "revision": Integer(1, _REVISION_LIMIT, from_text=True)}
COMPARE: Fields = {
    "old": Integer(0, _REVISION_LIMIT, from_text=True, default=0),
    "new": Integer(0, _REVISION_LIMIT, from_text=True, default=0),
    "view": _optional(8, choices=("", "text")),
}
RESTORE: Fields = {"revision": Integer(1, _REVISION_LIMIT, from_text=True)}

MOST_PAGES = 500
"""Pages that can be reached by number; users who want more narrow the list."""
LIST: Fields = {
    "category": _optional(32, choices=("", *CATEGORIES)),
    "tag": _optional(40),
    "site": _optional(100),
    "status": Text(16, choices=tuple(STATUSES), default="published"),
    "author": _optional(64),
    "since": _optional(10, pattern=_DAY),
    "until": _optional(10, pattern=_DAY),
    "node": _optional(10, pattern=re.compile(r"[1-9][0-9]{0,8}")),
    "sort": _optional(16, choices=("", "relevance", "newest", "confirmed")),
    "q": _optional(100),
    "after": _optional(2048, trim=False),
}

LIST_PAGE: Fields = {**LIST, "page": Integer(1, MOST_PAGES, from_text=True, default=1)}
MOST_PICKED = 300
"""Maximum number of individually selected articles: their ids are part of a URL."""
EXPORT: Fields = {
    **LIST_PAGE,
    "picked": _ON,
    # A full stop is not escaped in an encoded form; a comma becomes three characters.
    "ids": _optional(MOST_PICKED * 11, pattern=re.compile(r"[1-9][0-9]{0,9}([,.][1-9][0-9]{0,9})*")),
    "part": Integer(1, MOST_PAGES, from_text=True, default=0),
    "to": Integer(1, MOST_PAGES, from_text=True, default=0),
}

_NODE_ID = Integer(0, 2**31 - 1, from_text=True, default=0)
NODE: Fields = {"name": Text(100), "parent": _NODE_ID}
NODE_CHANGE: Fields = {
    "step": Text(6, choices=("rename", "remove", "move", *NODE_STEPS)),
    "name": _optional(100),
    "parent": _NODE_ID,
    "after": _NODE_ID,
}
PLACE: Fields = {"node": _NODE_ID}
FAVOUR_FORM: Fields = {"on": _ON}
WATCH: Fields = {"kind": Text(8, choices=("article", "tag", "site")), "subject": Text(100)}
WATCH_FORM: Fields = {**WATCH, "on": _ON, "next": _optional(500)}
SITE: Fields = {"name": _optional(100)}
TEMPLATE: Fields = {"template": _optional(16)}
TAG_BEGUN: Fields = {"q": _optional(40)}

AFTER: Fields = {"after": _optional(2048, trim=False)}

# The addresses that HTML forms accept, with a domain of at least two labels.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
EMAIL_ADDRESS = Text(254, pattern=_ADDRESS)
_EMAIL = EMAIL_ADDRESS._replace(min_length=0, default="")
ACCOUNT: Fields = {
    "username": Text(64, min_length=3, pattern=re.compile(r"[a-z][a-z0-9._-]*")),
    "display_name": Text(100),
    "department": _optional(100),
    "role": Text(16, choices=tuple(ROLES)),
    "email": _EMAIL,
    "password": _optional(256, trim=False),
}
ACCOUNT_LIST: Fields = {"owner": _optional(64), "q": _optional(100), **AFTER}
ACCOUNT_CHANGE: Fields = {
    "display_name": Text(100),
    "department": _optional(100),
    "role": Text(16, choices=tuple(ROLES)),
    "email": _EMAIL,
    "active": _ON,
    "seen": _optional(32),
}

INVITATIONS: Fields = {"people": Text(131_072, multiline=True, trim=False), "again": _ON}
HAND_OVER: Fields = {"leaver": Text(64), "successor": Text(64)}
_GROUP_ID = Integer(0, 2**31 - 1, from_text=True)
GROUP: Fields = {
    "group": _GROUP_ID,
    "name": Text(40, pattern=re.compile(r"[^,、,\s]+")),
    "members": Tags(max_items=500, max_length=64, from_text=True),
    "step": Text(6, choices=("save", "remove")),
    "seen": ACCOUNT_CHANGE["seen"],
}
# Required: a body without it would open to everybody what is restricted.
READERS: Fields = {"groups": Tags(max_items=500, default=None)}
GROUP_APPROVERS: Fields = {
    **{f"category-{number}": _GROUP_ID for number in range(len(CATEGORIES))},
    "seen": ACCOUNT_CHANGE["seen"],
}

_TASK_ID = re.compile(r"[0-9a-f]{32}")
REPORT: Fields = {
    "kind": Text(16, choices=("monthly", "site")),
    "subject": Text(100),
    "format": Text(8, choices=("xlsx", "pdf")),
    "key": Text(64, min_length=16, pattern=re.compile(r"[A-Za-z0-9_-]+")),
}
_ID = Integer(1, 2**31 - 1, from_text=True)
API_PATH: Fields = {
    "article_id": _ID,
    "attachment_id": _ID,
    "form": Text(24, pattern=re.compile(r"article-(new|[1-9][0-9]{0,9})")),
    "kind": Text(8, choices=("article", "category", "node")),
    "session_id": _SESSION,
    "subject": Text(32),
    "task_id": Text(32, pattern=_TASK_ID),
}
"""Parameters in the paths of the API, by name."""
PURGE: Fields = {
    "urls": Tags(max_items=1000, max_length=2000),
    "tags": Tags(max_items=1000, max_length=1024),
    "everything": Flag(default=False),
}
PURGE_FORM: Fields = {"urls": _optional(50_000, multiline=True), "tags": _optional(5000), "everything": _ON}
REPORT_LINK: Fields = {
    "until": Integer(0, 9_999_999_999, from_text=True),
    "signature": Text(64, pattern=re.compile(r"[0-9a-f]{64}")),
}
MAILS: Fields = {"mails": Text(5, choices=tuple(MAIL_CHOICES))}
MAILS_STOP: Fields = {
    "user": Integer(0, 2**31 - 1, from_text=True, default=0),
    "signature": _optional(64, pattern=re.compile(r"[0-9a-f]{64}")),
}
TASK_LIST: Fields = {"state": _optional(16, choices=("", "waiting", "running", "done", "dead", "cancelled"))}
TASK_STEP: Fields = {
    "task": Text(32, pattern=_TASK_ID),
    "step": Text(8, choices=("retry", "discard", "cancel")),
}

_PICK_GROUP = re.compile(r"group-[1-9][0-9]{0,9}")
_PICK = re.compile(r"id-[1-9][0-9]{0,9}")


def export(names: Iterable[str]) -> dict[str, Field]:
    """Return the fields of an export form, with a checkbox for each article that was on the page."""
    return {**EXPORT, **{name: _ON for name in names if _PICK.fullmatch(name)}}


def readers(names: Iterable[str]) -> dict[str, Field]:
    """Return the fields of the form that restricts something to groups, with a checkbox for each group."""
    return {"seen": ACCOUNT_CHANGE["seen"], **{name: _ON for name in names if _PICK_GROUP.fullmatch(name)}}
