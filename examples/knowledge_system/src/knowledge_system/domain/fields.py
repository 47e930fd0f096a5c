"""Allow lists of the fields that each form and each JSON endpoint accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from knowledge_system.domain.permissions import CATEGORIES, ROLES, STATUSES
from knowledge_system.domain.permissions import MAILS as MAIL_CHOICES
from knowledge_system.domain.translations import LANGUAGES
from knowledge_system.domain.tree import STEPS as NODE_STEPS
from knowledge_system.domain.validation import Field, Flag, Integer, Tags, Text
from knowledge_system.domain.workflow import STEPS

_REVISION_LIMIT = 2**31 - 2
_TOKEN = re.compile(r"[A-Za-z0-9_.=-]+")

SIGN_IN: dict[str, Field] = {
    "username": Text(64),
    "password": Text(256, trim=False),
    "recovery_code": Text(64, min_length=0, default=""),
}
SIGN_IN_FORM: dict[str, Field] = {
    **SIGN_IN,
    "remember": Text(2, min_length=0, choices=("", "on"), default=""),
}
SIGN_IN_API: dict[str, Field] = {**SIGN_IN, "tokens": Flag(default=False)}
PROVIDER_RESPONSE: dict[str, Field] = {
    "code": Text(4096, min_length=0, default=""),
    "state": Text(64, min_length=0, default=""),
    "iss": Text(255, min_length=0, default=""),
    "error": Text(255, min_length=0, default=""),
}
CONFIRMATION: dict[str, Field] = {"proof": Text(256, trim=False)}
PASSWORD: dict[str, Field] = {"password": Text(256, trim=False), "new_password": Text(256, trim=False)}
FORGOTTEN: dict[str, Field] = {"username": Text(64)}
RESET_FORM: dict[str, Field] = {"token": Text(256, default=""), "new_password": Text(256, trim=False)}
EMAIL: dict[str, Field] = {"email": Text(254)}
TOKEN: dict[str, Field] = {"token": Text(256, default="")}
CODE: dict[str, Field] = {"code": Text(64)}
CODE_API: dict[str, Field] = {**CODE, "challenge": Text(512, min_length=0, default="")}
REFRESH: dict[str, Field] = {"refresh_token": Text(128, pattern=_TOKEN)}
RESET: dict[str, Field] = {"username": Text(64)}
NEW_PASSWORD: dict[str, Field] = {"token": Text(512, pattern=_TOKEN), "new_password": Text(256, trim=False)}
_ANSWER = Text(16_384, trim=False)
"""The browser's WebAuthn response for a passkey, as JSON."""
CODE_FORM: dict[str, Field] = {
    "code": Text(64, min_length=0, default=""),
    "answer": _ANSWER._replace(min_length=0, default=""),
}
CONFIRMATION_FORM: dict[str, Field] = {
    "proof": Text(256, min_length=0, trim=False, default=""),
    "answer": _ANSWER._replace(min_length=0, default=""),
}
PASSKEY: dict[str, Field] = {"answer": _ANSWER, "name": Text(64, min_length=0, default="")}
PASSKEY_PROOF: dict[str, Field] = {"code": Text(64, min_length=0, default="")}
PASSKEY_REMOVAL: dict[str, Field] = {"passkey": Text(128), "code": Text(64)}
PASSKEY_SIGN_IN: dict[str, Field] = {"answer": _ANSWER}
COMMENT: dict[str, Field] = {"body": Text(2000, multiline=True)}
COMMENT_FORM: dict[str, Field] = {**COMMENT, "parent": Integer(0, 2**31 - 1, from_text=True, default=0)}
FACTOR_HELP: dict[str, Field] = {
    "owner": Text(64),
    "help": Text(16, choices=("unlock", "reset")),
    "reason": Text(200),
}
_SESSION = Text(128, pattern=re.compile(r"[A-Za-z0-9_.:=-]+"))
SESSION: dict[str, Field] = {"session": _SESSION}
DEVICE: dict[str, Field] = {"device": Text(32, pattern=re.compile(r"[0-9a-f]+"))}
ANY_SESSION: dict[str, Field] = {"session": _SESSION._replace(min_length=0, default="")}
"""An empty value means all sessions."""
LANGUAGE: dict[str, Field] = {"language": Text(2, choices=tuple(LANGUAGES))}
CLOCK_FORM: dict[str, Field] = {"advance": Integer(1, 86_400, from_text=True)}

BODY_LIMIT: Final = 1_048_576
"""Maximum size in bytes of a request without files.

The longest article fits: a body of 50,000 characters is 600,000 bytes if each is a supplementary ideograph (12
bytes when URL-encoded, 12 as escaped JSON).
"""
ARTICLE: dict[str, Field] = {
    "title": Text(200),
    "category": Text(32, choices=CATEGORIES),
    "summary": Text(500, min_length=0, multiline=True, default=""),
    "body": Text(50_000, multiline=True),
    "tags": Tags(),
    "site": Text(100, min_length=0, default=""),
    "status": Text(16, choices=tuple(STATUSES), default="draft"),
}
# The revision may be given in If-Match instead; 0 means that the body has none.
ARTICLE_REPLACED: dict[str, Field] = {**ARTICLE, "revision": Integer(1, _REVISION_LIMIT, default=0)}
ARTICLE_FORM: dict[str, Field] = {**ARTICLE, "tags": Tags(from_text=True)}
ARTICLE_EDIT_FORM: dict[str, Field] = {
    **ARTICLE_FORM,
    "revision": Integer(1, _REVISION_LIMIT, from_text=True),
}

_TYPED = Text(500, min_length=0, multiline=True, trim=False, default="")
DRAFT: dict[str, Field] = {
    **dict.fromkeys(("title", "category", "status", "site", "summary", "tags"), _TYPED),
    "body": Text(50_000, min_length=0, multiline=True, trim=False, default=""),
    "revision": Integer(0, _REVISION_LIMIT, default=0),
}
"""What was typed so far: any text of the editor."""

_DAY = re.compile(r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
AUDIT: dict[str, Field] = {
    "q": Text(100, min_length=0, default=""),
    "before": Integer(0, _REVISION_LIMIT, from_text=True, default=0),
    "verify": Text(1, min_length=0, choices=("", "1"), default=""),
}
AUDIT_EXPORT: dict[str, Field] = {
    "since": Text(10, min_length=0, pattern=_DAY, default=""),
    "until": Text(10, min_length=0, pattern=_DAY, default=""),
    "format": Text(5, choices=("csv", "jsonl")),
}
OPERATIONS: dict[str, Field] = {"hours": Text(2, choices=("1", "6", "24"), default="1")}
PREVIEW: dict[str, Field] = {
    "title": Text(200, min_length=0, default=""),
    "summary": Text(500, min_length=0, multiline=True, default=""),
    "body": Text(50_000, min_length=0, multiline=True, default=""),
    "part": Text(4, min_length=0, choices=("", "body"), default=""),
}
STEP: dict[str, Field] = {
    "step": Text(16, choices=tuple(STEPS)),
    "revision": Integer(1, _REVISION_LIMIT),
    "comment": Text(2000, min_length=0, multiline=True, default=""),
    # Ids of the attachments that the reviewer saw; 0 if there were none, empty if the client does not say.
    "files": Text(600, min_length=0, pattern=re.compile(r"0|[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*"), default=""),
}
STEP_FORM: dict[str, Field] = {**STEP, "revision": Integer(1, _REVISION_LIMIT, from_text=True)}
COMPARE: dict[str, Field] = {
    "old": Integer(0, _REVISION_LIMIT, from_text=True, default=0),
    "new": Integer(0, _REVISION_LIMIT, from_text=True, default=0),
    "view": Text(8, min_length=0, choices=("", "text"), default=""),
}
RESTORE: dict[str, Field] = {"revision": Integer(1, _REVISION_LIMIT, from_text=True)}

MOST_PAGES = 500
"""Pages that can be reached by number; users who want more narrow the list."""
LIST: dict[str, Field] = {
    "category": Text(32, min_length=0, choices=("", *CATEGORIES), default=""),
    "tag": Text(40, min_length=0, default=""),
    "site": Text(100, min_length=0, default=""),
    "status": Text(16, choices=tuple(STATUSES), default="published"),
    "author": Text(64, min_length=0, default=""),
    "since": Text(10, min_length=0, pattern=_DAY, default=""),
    "until": Text(10, min_length=0, pattern=_DAY, default=""),
    "node": Text(10, min_length=0, pattern=re.compile(r"[1-9][0-9]{0,8}"), default=""),
    "sort": Text(16, min_length=0, choices=("", "relevance", "newest", "confirmed"), default=""),
    "q": Text(100, min_length=0, default=""),
    "after": Text(2048, min_length=0, trim=False, default=""),
}

_ON = Text(2, min_length=0, choices=("", "on"), default="")
LIST_PAGE: dict[str, Field] = {**LIST, "page": Integer(1, MOST_PAGES, from_text=True, default=1)}
MOST_PICKED = 300
"""Maximum number of individually selected articles: their ids are part of a URL."""
EXPORT: dict[str, Field] = {
    **LIST_PAGE,
    "picked": _ON,
    "ids": Text(
        MOST_PICKED * 11,
        min_length=0,
        # A full stop is not escaped in an encoded form; a comma becomes three characters.
        pattern=re.compile(r"[1-9][0-9]{0,9}([,.][1-9][0-9]{0,9})*"),
        default="",
    ),
    "part": Integer(1, MOST_PAGES, from_text=True, default=0),
    "to": Integer(1, MOST_PAGES, from_text=True, default=0),
}

_NODE_ID = Integer(0, 2**31 - 1, from_text=True, default=0)
NODE: dict[str, Field] = {"name": Text(100), "parent": _NODE_ID}
NODE_CHANGE: dict[str, Field] = {
    "step": Text(6, choices=("rename", "remove", "move", *NODE_STEPS)),
    "name": Text(100, min_length=0, default=""),
    "parent": _NODE_ID,
    "after": _NODE_ID,
}
PLACE: dict[str, Field] = {"node": _NODE_ID}
FAVOUR_FORM: dict[str, Field] = {"on": _ON}
WATCH: dict[str, Field] = {"kind": Text(8, choices=("article", "tag", "site")), "subject": Text(100)}
WATCH_FORM: dict[str, Field] = {**WATCH, "on": _ON, "next": Text(500, min_length=0, default="")}
SITE: dict[str, Field] = {"name": Text(100, min_length=0, default="")}
TEMPLATE: dict[str, Field] = {"template": Text(16, min_length=0, default="")}
TAG_BEGUN: dict[str, Field] = {"q": Text(40, min_length=0, default="")}

AFTER: dict[str, Field] = {"after": Text(2048, min_length=0, trim=False, default="")}

# The addresses that HTML forms accept, with a domain of at least two labels.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
EMAIL_ADDRESS = Text(254, pattern=_ADDRESS)
_EMAIL = EMAIL_ADDRESS._replace(min_length=0, default="")
ACCOUNT: dict[str, Field] = {
    "username": Text(64, min_length=3, pattern=re.compile(r"[a-z][a-z0-9._-]*")),
    "display_name": Text(100),
    "department": Text(100, min_length=0, default=""),
    "role": Text(16, choices=tuple(ROLES)),
    "email": _EMAIL,
    "password": Text(256, min_length=0, trim=False, default=""),
}
ACCOUNT_LIST: dict[str, Field] = {
    "owner": Text(64, min_length=0, default=""),
    "q": Text(100, min_length=0, default=""),
    **AFTER,
}
ACCOUNT_CHANGE: dict[str, Field] = {
    "display_name": Text(100),
    "department": Text(100, min_length=0, default=""),
    "role": Text(16, choices=tuple(ROLES)),
    "email": _EMAIL,
    "active": Text(2, min_length=0, choices=("", "on"), default=""),
    "seen": Text(32, min_length=0, default=""),
}

INVITATIONS: dict[str, Field] = {"people": Text(131_072, multiline=True, trim=False), "again": _ON}
HAND_OVER: dict[str, Field] = {"leaver": Text(64), "successor": Text(64)}
_GROUP_ID = Integer(0, 2**31 - 1, from_text=True)
GROUP: dict[str, Field] = {
    "group": _GROUP_ID,
    "name": Text(40, pattern=re.compile(r"[^,、,\s]+")),
    "members": Tags(max_items=500, max_length=64, from_text=True),
    "step": Text(6, choices=("save", "remove")),
    "seen": ACCOUNT_CHANGE["seen"],
}
# Required: a body without it would open to everybody what is restricted.
READERS: dict[str, Field] = {"groups": Tags(max_items=500, default=None)}
GROUP_APPROVERS: dict[str, Field] = {
    **{f"category-{number}": _GROUP_ID for number in range(len(CATEGORIES))},
    "seen": ACCOUNT_CHANGE["seen"],
}

_TASK_ID = re.compile(r"[0-9a-f]{32}")
REPORT: dict[str, Field] = {
    "kind": Text(16, choices=("monthly", "site")),
    "subject": Text(100),
    "format": Text(8, choices=("xlsx", "pdf")),
    "key": Text(64, min_length=16, pattern=re.compile(r"[A-Za-z0-9_-]+")),
}
_ID = Integer(1, 2**31 - 1, from_text=True)
API_PATH: dict[str, Field] = {
    "article_id": _ID,
    "attachment_id": _ID,
    "form": Text(24, pattern=re.compile(r"article-(new|[1-9][0-9]{0,9})")),
    "kind": Text(8, choices=("article", "category", "node")),
    "session_id": _SESSION,
    "subject": Text(32),
    "task_id": Text(32, pattern=_TASK_ID),
}
"""Parameters in the paths of the API, by name."""
PURGE: dict[str, Field] = {
    "urls": Tags(max_items=1000, max_length=2000),
    "tags": Tags(max_items=1000, max_length=1024),
    "everything": Flag(default=False),
}
PURGE_FORM: dict[str, Field] = {
    "urls": Text(50_000, min_length=0, multiline=True, default=""),
    "tags": Text(5000, min_length=0, default=""),
    "everything": _ON,
}
REPORT_LINK: dict[str, Field] = {
    "until": Integer(0, 9_999_999_999, from_text=True),
    "signature": Text(64, pattern=re.compile(r"[0-9a-f]{64}")),
}
MAILS: dict[str, Field] = {"mails": Text(5, choices=tuple(MAIL_CHOICES))}
MAILS_STOP: dict[str, Field] = {
    "user": Integer(0, 2**31 - 1, from_text=True, default=0),
    "signature": Text(64, min_length=0, pattern=re.compile(r"[0-9a-f]{64}"), default=""),
}
TASK_LIST: dict[str, Field] = {
    "state": Text(
        16, min_length=0, choices=("", "waiting", "running", "done", "dead", "cancelled"), default=""
    )
}
TASK_STEP: dict[str, Field] = {
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
