"""Words for the codes of events, rate limits and tasks, so that pages show no internal names.

The audit log, the limiter and the queue store codes, which never change. A code that is not listed here, for
example one of a newer version of the library, is shown as it is, so that no entry of the log loses its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from knowledge_system.domain.permissions import ROLES, STATUSES

Say = Callable[..., str]

ACTIONS: Final = {
    "audit.export": "監査ログを書き出し",
    "article.create": "記事を作成",
    "article.save": "記事を保存",
    "article.delete": "記事を削除",
    "article.restore": "過去の版を復元",
    "article.attach": "ファイルを添付",
    "article.detach": "添付ファイルを削除",
    "article.import": "zip から取り込み",
    "article.submit": "レビューに提出",
    "article.withdraw": "下書きに戻す",
    "article.return": "修正を依頼",
    "article.approve": "承認・公開",
    "article.confirm": "内容を確認",
    "article.retire": "廃止",
    "account.create": "利用者を追加",
    "account.change": "利用者を変更",
    "account.link": "会社のアカウントと連携",
    "account.unlink": "会社のアカウントとの連携を解除",
    "account.import": "利用者をまとめて招待",
    "account.invite": "招待を送信",
    "group.save": "グループを変更",
    "group.remove": "グループを削除",
    "group.approvers": "承認グループを変更",
    "group.readers": "閲覧できるグループを変更",
    "tree.add": "ツリーに追加",
    "tree.rename": "ツリーの名前を変更",
    "tree.move": "ツリーを移動",
    "tree.remove": "ツリーから削除",
    "article.place": "置き場所を変更",
    "cache.empty": "キャッシュを空に",
    "cache.purge": "CDN から削除",
    "account.hand-over": "記事を引き継ぎ",
    "account.erase": "個人データを消去",
    "account.unlock": "ロックを解除",
    "account.password": "パスワードを変更",
    "account.reset-asked": "再設定を依頼",
    "account.reset-refused": "再設定を拒否",
    "account.email-asked": "アドレス変更を依頼",
    "account.email": "アドレスを変更",
    "comment.create": "コメントを投稿",
    "comment.change": "コメントを変更",
    "comment.delete": "コメントを削除",
    "sign-in.done": "サインインに成功",
    "sign-in.out": "サインアウトを実行",
    "sign-in.refused": "サインインに失敗",
    "sign-in.code-refused": "認証コードの誤り",
    "sign-in.confirm-refused": "本人確認に失敗",
    "sign-in.locked": "アカウントをロック",
    "sign-in.lock-passed": "ロック中にサインイン",
    "session.end": "セッションを終了",
    "device.revoke": "覚えた端末を解除",
    "factor.on": "二段階認証を有効化",
    "factor.off": "二段階認証を無効化",
    "factor.locked": "認証コードをロック",
    "factor.codes": "リカバリーコードを再発行",
    "factor.reset": "二段階認証を取り消し",
    "factor.passkey-added": "パスキーを追加",
    "factor.passkey-removed": "パスキーの削除",
    "factor.passkey-cloned": "パスキーの複製の疑い",
    "token.issue": "プログラムのサインイン",
    "token.end": "プログラムのサインアウト",
    "token.reuse": "更新トークンの再使用",
}
"""Actions of the audit log."""

FIELDS: Final = {
    "title": "題名",
    "status": "状態",
    "revision": "版",
    "on": "元の版",
    "comment": "ひとこと",
    "name": "名前",
    "files": "ファイル",
    "ids": "記事番号",
    "role": "役割",
    "active": "利用",
    "client": "接続元",
    "method": "方法",
    "reason": "理由",
    "which": "範囲",
    "category": "分類",
    "site": "現場・工事",
    "summary": "要約",
    "body": "本文",
    "tags": "タグ",
    "tag": "タグ",
    "author": "執筆者",
    "since": "更新日(から)",
    "until": "更新日(まで)",
    "sort": "並べ替え",
    "q": "検索の言葉",
    "page": "ページ",
    "after": "ページ",
    "before": "ページ",
    "file": "ファイル",
    "username": "ユーザー名",
    "usernames": "ユーザー名",
    "people": "利用者",
    "members": "メンバー",
    "groups": "グループ",
    "password": "パスワード",
    "new_password": "新しいパスワード",
    "display_name": "氏名",
    "department": "部署",
    "email": "メールアドレス",
    "code": "認証コード",
    "month": "月",
    "subject": "対象",
    "format": "形式",
    "head": "末尾のハッシュ",
    "articles": "記事",
    "done": "対象",
    "node": "置き場所",
}
"""Fields of requests, and details of the audit log."""

_METHODS: Final = {
    "pwd": "パスワード",
    "password": "パスワード",
    "otp": "認証コード",
    "totp": "認証コード",
    "swk": "パスキー",
    "hwk": "パスキー",
    "passkey": "パスキー",
    "mfa": "二段階認証",
    "recovery": "リカバリーコード",
    "reset": "再設定のリンク",
    "email": "メールのリンク",
    "fed": "会社のアカウント",
}
REASONS: Final = {
    "new_device": "初めての端末",
    "recent_failures": "直前に失敗あり",
    "account_locked": "ロック中",
    "recovery_code": "リカバリーコードを使用",
    "no_second_factor": "二段階認証なし",
    "unknown": "該当する利用者なし",
    "disabled": "停止中の利用者",
    "wrong": "誤り",
    "locked": "ロック中",
    "changed": "途中でアカウントが変更された",
    "replayed": "使用済みのコード",
    "expired": "期限切れ",
    "malformed": "形式の誤り",
    "not_enrolled": "未設定",
    "busy": "混雑",
    "cloned": "複製の疑い",
    "adopted": "以前の設定を引き継ぎ",
    "issuer": "別の発行者",
    "audience": "別のシステム宛て",
    "nonce": "別の手続きの応答",
    "signature": "署名が正しくない",
    "code": "使用済みか無効な応答",
    "tenant": "別の組織",
    "domain": "別のドメイン",
    "no_account": "アカウントなし",
    "unverified": "確認済みのメールアドレスなし",
    "linked": "別の人と連携済み",
    "other_person": "別の人",
    "not_recent": "認証が古いか、時刻がない",
}
"""Reasons of sign-in events; an administrator's reason is free text."""
_WHICH: Final = {"one": "1 件", "every one": "すべて", "every other": "ほかのすべて"}
_VALUES: Final[Mapping[str, Mapping[str, str]]] = {"status": STATUSES, "role": ROLES, "which": _WHICH}

LIMITS: Final = {
    "admin": "管理の操作",
    "api_delete": "削除",
    "api_open": "サインイン前の API",
    "api_poll": "状態の問い合わせ",
    "api_read": "読み取り",
    "api_write": "書き込み",
    "auth_2fa_verify": "認証コードの確認",
    "auth_login": "サインイン",
    "auth_login_account": "サインイン(アカウントごと)",
    "auth_login_address": "サインイン(接続元ごと)",
    "auth_login_device": "サインイン(端末ごと)",
    "auth_login_network": "サインイン(ネットワークごと)",
    "auth_password_reset": "パスワードの再設定",
    "auth_password_reset_address": "パスワードの再設定(接続元ごと)",
    "auth_register": "利用者の追加",
    "file_upload": "ファイルの添付",
    "search": "検索",
}
"""Groups of the rate limiter."""

NOTICES: Final = {
    "submit": "%(name)s さんがレビューに出しました",
    "return": "%(name)s さんが修正を依頼しました",
    "approve": "%(name)s さんが承認し、公開しました",
    "retire": "%(name)s さんが廃止しました",
    "comment": "%(name)s さんがコメントしました",
    "mention": "%(name)s さんがコメントであなたに呼びかけました",
    "reply": "%(name)s さんがあなたのコメントに返信しました",
    "watch-publish": "%(name)s さんが公開しました",
    "watch-comment": "%(name)s さんがコメントしました",
    "watch-retire": "%(name)s さんが廃止しました",
}
"""What happened to an article, by kind of the notice."""

TASKS: Final = {
    "reports.write": "レポートの作成",
    "auditing.head": "監査ログの末尾の控え",
    "cleaning.logs": "古いログの削除",
    "cleaning.spool": "送信待ちアラートの整理",
    "cleaning.results": "古い記録の削除",
    "cleaning.uploads": "使われないファイルの削除",
    "cleaning.people": "停止した利用者の個人データの消去",
    "reminding.overdue": "確認時期のお知らせ",
    "notifying.digest": "お知らせのまとめ",
    "mks.mail": "メールの送信",
}
"""Background tasks."""

ALERT_STATES: Final = {
    "delivered": "送信済み",
    "suppressed": "重複のため省略",
    "spooled": "送信待ち",
    "dropped": "破棄",
}
"""States of an alert."""

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
            return " / ".join(dict.fromkeys(_word(_METHODS, word, say) for word in value.split()))
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
    return f"{channel.capitalize()}: {_word(ALERT_STATES, state, say)}"


def action_codes(word: str, say: Say) -> list[str]:
    """Return the codes of the actions whose label contains a word of a search."""
    folded = word.casefold()
    return [code for code, label in ACTIONS.items() if folded in say(label).casefold()]
