"""Texts of the mails, in the language of the recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from knowledge_system.domain.labels import NOTICES
from knowledge_system.domain.translations import say

if TYPE_CHECKING:
    from knowledge_system.services.knowledge.digests import Digest


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
    return MailTemplate(
        "レポートができました: %(title)s",
        (
            "ご依頼のレポートができました。\n\n  %(title)s\n  %(link)s\n\n"
            "サインインしてダウンロードしてください。%(days)s 日後に削除します。\n"
        ),
        {"title": title, "link": link, "days": days},
    )


def commented(title: str, *, by: str, body: str, link: str) -> MailTemplate:
    """Mail: a comment on an article of the recipient."""
    return MailTemplate(
        "コメントがつきました: %(title)s",
        "%(by)s さんが「%(title)s」にコメントしました。",
        {"title": title, "by": by},
        f"\n\n{_quoted(body)}\n  {link}\n",
    )


def overdue(titles: Sequence[str], *, link: str) -> MailTemplate:
    """Mail: articles of the recipient that nobody has confirmed for a year."""
    return MailTemplate(
        "内容の確認をお願いします(%(count)s 件)",
        (
            "次の記事は、最後の確認から 1 年以上たっています。\n\n%(listed)s\n"
            "今も正しければ「内容を確認した」を押してください。古くなっていれば直してください。\n\n  %(link)s\n"
        ),
        {"count": len(titles), "listed": "".join(f"  - {title}\n" for title in titles), "link": link},
    )


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
    return MailTemplate(
        "お知らせ %(count)s 件",
        (
            "まだ読んでいないお知らせをまとめてお送りします。\n\n%(listed)s\nすべてのお知らせ: %(link)s\n"
            "このメールを止める: %(stop)s\n"
        ),
        values,
    )


_STEPS = {
    "submit": ("レビューをお願いします: %(title)s", "%(by)s さんがレビューに出しました。"),
    "return": ("修正の依頼があります: %(title)s", "%(by)s さんが修正を依頼しました。"),
    "approve": ("公開されました: %(title)s", "%(by)s さんが承認し、公開しました。"),
    "retire": ("廃止されました: %(title)s", "%(by)s さんが廃止しました。"),
}
_OTHER_STEP = ("状態が変わりました: %(title)s", "%(by)s さんが状態を変えました。")


def step_taken(step: str, title: str, *, by: str, said: str, link: str) -> MailTemplate:
    """Mail: a workflow step that concerns the recipient."""
    subject, text = _STEPS.get(step, _OTHER_STEP)
    return MailTemplate(
        subject, text, {"title": title, "by": by}, f"\n\n  {title}\n{_quoted(said)}\n  {link}\n"
    )


_WATCHED = {
    "publish": ("見守っている記事が公開されました: %(title)s", "%(by)s さんが公開しました。"),
    "comment": ("見守っている記事にコメントがつきました: %(title)s", "%(by)s さんがコメントしました。"),
    "retire": ("見守っている記事が廃止されました: %(title)s", "%(by)s さんが廃止しました。"),
}


def watched(event: str, title: str, *, by: str, said: str, link: str) -> MailTemplate:
    """Mail: an event on something the recipient watches."""
    subject, text = _WATCHED[event]
    return MailTemplate(
        subject, text, {"title": title, "by": by}, f"\n\n  {title}\n{_quoted(said)}\n  {link}\n"
    )


_ACCOUNT = {
    "locked": (
        "アカウントを一時的に止めました",
        (
            "パスワードのまちがいが続いたため、アカウント %(name)s へのサインインを一時的に止めました。\n"
            "お心当たりがないときは、管理者に連絡してください。\n\n"
            "ご本人は、覚えさせた端末から、またはリカバリーコードを添えてサインインできます。\n"
        ),
    ),
    "new_device": (
        "新しい端末からサインインがありました",
        (
            "アカウント %(name)s に、これまでと違う場所または端末からサインインがありました。\n\n"
            "  IP アドレス: %(client)s\n\n"
            "お心当たりがないときは、パスワードを変更し、すぐに管理者に連絡してください。\n"
        ),
    ),
    "unlocked": (
        "アカウントのロックを解除しました",
        "アカウント %(name)s のロックを解除しました。\n\n  操作した人: %(actor)s\n  理由: %(reason)s\n",
    ),
    "factor_reset": (
        "二段階認証を取り消しました",
        (
            "アカウント %(name)s の二段階認証を取り消し、すべての端末をサインアウトしました。\n\n"
            "  操作した人: %(actor)s\n  理由: %(reason)s\n\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "enrolled": (
        "二段階認証を登録しました",
        (
            "アカウント %(name)s の二段階認証に認証アプリを登録しました。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "disabled": (
        "二段階認証を無効にしました",
        (
            "アカウント %(name)s の二段階認証を無効にしました。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "recovery_codes_regenerated": (
        "リカバリーコードを作り直しました",
        (
            "アカウント %(name)s のリカバリーコードを作り直しました。以前のコードは使えません。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "passkey_registered": (
        "パスキーを登録しました",
        (
            "アカウント %(name)s にパスキー「%(passkey)s」を登録しました。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "passkey_revoked": (
        "パスキーを削除しました",
        (
            "アカウント %(name)s のパスキー「%(passkey)s」を削除しました。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "password_changed": (
        "パスワードを変更しました",
        (
            "アカウント %(name)s のパスワードを変更しました。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
    "invited": (
        "建設土木ナレッジシステムへの招待",
        (
            "建設土木ナレッジシステムのアカウント %(name)s を用意しました。\n"
            "次のリンクからパスワードを決めてください。リンクは 24 時間有効で、一度だけ使えます。\n\n  %(link)s\n"
        ),
    ),
    "reset_requested": (
        "パスワードの再設定",
        (
            "アカウント %(name)s のパスワードを再設定するリンクです。30 分間有効で、一度使えます。\n\n"
            "  %(link)s\n\n"
            "お心当たりがないときは、このメールを破棄してください。パスワードは変わりません。\n"
        ),
    ),
    "email_change_requested": (
        "メールアドレスの確認",
        (
            "アカウント %(name)s のメールアドレスをこのアドレスに変更するには、"
            "次のリンクを開いて確認してください。\n30 分間有効です。\n\n  %(link)s\n"
        ),
    ),
    "email_changed": (
        "メールアドレスを変更しました",
        (
            "アカウント %(name)s のメールアドレスを変更しました。\n"
            "お心当たりがないときは、すぐに管理者に連絡してください。\n"
        ),
    ),
}


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
    subject, text = _ACCOUNT[kind]
    values = {
        "name": name,
        "link": link,
        "actor": actor,
        "reason": reason,
        "passkey": passkey,
        "client": client,
    }
    return MailTemplate(subject, text, values)


def _quoted(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
