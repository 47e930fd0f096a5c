"""Mails of ``content/mails.toml``, in the language of the recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from knowledge_system.domain import content
from knowledge_system.domain.labels import NOTICES
from knowledge_system.domain.translations import say

if TYPE_CHECKING:
    from knowledge_system.services.knowledge.digests import Digest


_TEXTS: Final = content.read_toml("mails.toml")


class Mail(NamedTuple):
    """Subject and text of a mail."""

    subject: str
    text: str


class MailTemplate(NamedTuple):
    """A mail before its language is known.

    Attributes:
        subject: text of the catalogue.
        text: text of the catalogue.
        values: values of the placeholders.
        attached: text that follows untranslated, in its author's words.
    """

    subject: str
    text: str
    values: Mapping[str, object]
    attached: str = ""

    def written(self, language: str) -> Mail:
        """Return the mail in ``ja`` or ``en``."""
        subject, text = (say(sentence, language, **self.values) for sentence in (self.subject, self.text))
        return Mail(subject, text + self.attached)


def report_ready(title: str, *, link: str, days: int) -> MailTemplate:
    """Mail: the requested report is ready."""
    return _template(_TEXTS["report_ready"], {"title": title, "link": link, "days": days})


def commented(title: str, *, by: str, body: str, link: str) -> MailTemplate:
    """Mail: a comment on an article of the recipient."""
    attached = f"\n\n{_quoted(body)}\n  {link}\n"
    return _template(_TEXTS["commented"], {"title": title, "by": by}, attached)


def overdue(titles: Sequence[str], *, link: str) -> MailTemplate:
    """Mail: articles of the recipient that nobody has confirmed for a year."""
    listed = "".join(f"  - {title}\n" for title in titles)
    return _template(_TEXTS["overdue"], {"count": len(titles), "listed": listed, "link": link})


_MOST_LINES = 40


def digest(found: Digest, *, site: str, stop: str) -> MailTemplate:
    """Mail: what the recipient has not read yet, one entry for each article.

    Args:
        found: the notices.
        site: URL of the site.
        stop: URL at which the mails are stopped.
    """
    language = found.language
    lines = [f"{say('確認時期を過ぎた記事 %(count)s 件', language, count=found.overdue)}\n  {site}/overdue\n"]
    lines = lines if found.overdue else []
    for group in found.groups[:_MOST_LINES]:
        happened = (
            say(NOTICES[event["kind"]], language, name=", ".join(event["actors"][:3]))
            for event in group.events
        )
        lines.append(f"{group.title}\n  {' / '.join(happened)}\n  {site}/articles/{group.article_id}\n")
    values = {
        "count": len(found.groups) + bool(found.overdue),
        "listed": "\n".join(lines),
        "link": f"{site}/notices",
        "stop": stop,
    }
    return _template(_TEXTS["digest"], values)


def step_taken(step: str, title: str, *, by: str, said: str, link: str) -> MailTemplate:
    """Mail: a workflow step that concerns the recipient."""
    texts = _TEXTS["step"]
    attached = f"\n\n  {title}\n{_quoted(said)}\n  {link}\n"
    return _template(texts.get(step, texts["other"]), {"title": title, "by": by}, attached)


def watched(event: str, title: str, *, by: str, said: str, link: str) -> MailTemplate:
    """Mail: an event on something the recipient watches."""
    attached = f"\n\n  {title}\n{_quoted(said)}\n  {link}\n"
    return _template(_TEXTS["watched"][event], {"title": title, "by": by}, attached)


def about_account(
    kind: str,
    *,
    name: str,
    link: str = "",
    actor: str = "",
    reason: str = "",
    passkey: str = "",
    client: str = "",
) -> MailTemplate:
    """Mail: a security notice to the owner of an account.

    Args:
        kind: kind of ``SignInNotice`` or ``TwoFactorNotice``, or ``invited``.
        name: user name.
        link: URL with the token, if one was issued.
        actor: administrator who performed the operation.
        reason: reason given by the administrator.
        passkey: name of the passkey.
        client: IP address of a new device.
    """
    values = {
        "name": name,
        "link": link,
        "actor": actor,
        "reason": reason,
        "passkey": passkey,
        "client": client,
    }
    return _template(_TEXTS["account"][kind], values)


def _template(texts: Mapping[str, str], values: Mapping[str, object], attached: str = "") -> MailTemplate:
    return MailTemplate(texts["subject"], texts["text"], values, attached)


def _quoted(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
