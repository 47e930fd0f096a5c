"""Words of ``content/labels.toml`` for the codes of events, rate limits and tasks: pages show no internal names.

The audit log, the limiter and the queue store codes, which never change. A code that is not listed here, for
example one of a newer version of the library, is shown as it is, so that no entry of the log loses its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from knowledge_system.domain import content
from knowledge_system.domain.permissions import ROLES, STATUSES

Say = Callable[..., str]

_LABELS: Final[dict[str, dict[str, str]]] = content.read_toml("labels.toml")
ACTIONS: Final = _LABELS["actions"]
"""Actions of the audit log."""
FIELDS: Final = _LABELS["fields"]
"""Fields of requests, and details of the audit log."""
REASONS: Final = _LABELS["reasons"]
"""Reasons of sign-in events; an administrator's reason is free text."""
LIMITS: Final = _LABELS["limits"]
"""Groups of the rate limiter."""
NOTICES: Final = _LABELS["notices"]
"""What happened to an article, by kind of the notice."""
TASKS: Final = _LABELS["tasks"]
"""Background tasks."""
DONE: Final = _LABELS["done"]
"""Messages that a page may show after a redirect (``?done=saved``): a closed list, so that no link injects text."""
_VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "status": STATUSES,
    "role": ROLES,
    "which": _LABELS["which"],
}

_SUBJECT: Final = re.compile(
    r"(article|category|node|user|group) (\S+)|([0-9]+) (articles|users)|entries to ([0-9]+)"
    r"|nobody known|groups|tree|cache"
)


def subject_label(subject: str, say: Say) -> tuple[str, str]:
    """Return the text of an audit subject, and the path of its page; the path is empty if there is none.

    Args:
        subject: as stored: ``article 12``, ``category 積算``, ``node 3``, ``user sato``, ``group 品質``,
            ``3 users``, ``entries to 7``, ``nobody known``.
        say: translates a text of the catalogue.
    """
    found = _SUBJECT.fullmatch(subject)
    if found is None:
        return subject, ""
    kind, name, number, many, entry = found.groups()
    if entry:
        return say("%(number)s 番までの記録", number=entry), ""
    if kind == "article":
        return say("記事 %(number)s", number=name), f"/articles/{name}"
    if kind == "category":
        return say(name), f"/readers/category/{quote(name)}"
    if kind == "node":
        return say("ツリー"), f"/tree#node-{name}"
    if kind == "user":
        return name, f"/admin/accounts/{name}"
    if kind == "group" or subject == "groups":
        return name or say("グループ"), "/admin/groups"
    if subject == "cache":
        return say("キャッシュ"), "/admin/cache"
    if subject == "tree":
        return say("ツリー"), "/tree"
    if number:
        return say("記事 %(count)s 件" if many == "articles" else "%(count)s 人", count=int(number)), ""
    return say(REASONS["unknown"]), ""


def described_detail(detail: Mapping[str, Any], say: Say) -> Iterator[tuple[str, str]]:
    """Yield label and text of each detail of an audit entry; ids and digests are left out.

    Args:
        detail: as stored; ``x_before`` is the value of ``x`` before the change.
        say: translates a text of the catalogue.
    """
    for name, value in detail.items():
        text = _detail_text(name, value, say)
        before = _detail_text(name, detail.get(f"{name}_before", value), say)
        if not (text or before) or name.endswith("_before"):
            continue
        yield _word(FIELDS, name, say), text if before == text else f"{before} → {text}"


def _detail_text(name: str, value: Any, say: Say) -> str:
    match name, value:
        case "id" | "head" | "node", _:
            return ""
        case "active", bool():
            return say("利用できる") if value else say("停止中")
        case "files", list():
            return "、".join(str(file["name"]) for file in value)
        case "people", list():
            return "、".join(
                f"{each['username']} ({', '.join((_word(ROLES, each['role'], say), *each['groups']))})"
                for each in value
            )
        case "comment", int():
            return ""
        case "revision" | "on", int():
            return say("第 %(number)s 版", number=value)
        case "method", str():
            return " / ".join(dict.fromkeys(_word(_LABELS["methods"], word, say) for word in value.split()))
        case "reason", str() if all(word in REASONS for word in value.split()):
            return " / ".join(say(REASONS[word]) for word in value.split())
        case _, list():
            return "、".join(map(str, value))
        case _:
            return "" if value is None else _word(_VALUES.get(name, {}), str(value), say)


def _word(words: Mapping[str, str], code: str, say: Say) -> str:
    """Return the word for a code; another text, which a person may have typed, is not translated."""
    return say(words[code]) if code in words else code


def alert_label(name: str, say: Say) -> str:
    """Return the text of a counted alert (``slack delivered``)."""
    channel, _, state = name.rpartition(" ")
    return f"{channel.capitalize()}: {_word(_LABELS['alert_states'], state, say)}"


def action_codes(word: str, say: Say) -> list[str]:
    """Return the codes of the actions whose label contains a word of a search."""
    folded = word.casefold()
    return [code for code, label in ACTIONS.items() if folded in say(label).casefold()]
