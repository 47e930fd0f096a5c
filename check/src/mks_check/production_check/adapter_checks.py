"""The checks that the adapters for Flask and Django already make, with their own ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mks_check.production_check.application_checks import application_of
from mks_check.production_check.check_definition import CheckGroup, Find
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence, Level

__all__ = ["GROUP"]

GROUP: Final = CheckGroup("application")

_FLASK: Final = "https://flask.palletsprojects.com/en/stable/config/"
_TEXTS: Final[tuple[tuple[str, Level, tuple[str, str], tuple[str, str], str], ...]] = (
    (
        "MKS-FLASK-001", "warning",
        ("The application is set up for this machine only.", "`MKS_ENV=production`"),
        ("このマシン専用の設定になっています。", "`MKS_ENV=production` を設定してください。"),
        _FLASK,
    ),
    (
        "MKS-FLASK-002", "error",
        ("Several workers share neither sessions nor limits.", "Set `MKS_REDIS_URL`."),
        ("複数のワーカーがセッションとレート制限を共有していません。", "`MKS_REDIS_URL` を設定してください。"),
        _FLASK,
    ),
    (
        "MKS-FLASK-003", "error",
        ("The session store is unavailable.", "Start Redis, or correct `MKS_REDIS_URL`."),
        ("セッションの保存先に接続できません。", "Redis を起動するか、`MKS_REDIS_URL` を修正してください。"),
        _FLASK,
    ),
    (
        "MKS-FLASK-004", "warning",
        ("A setting of Flask's own cookie has no effect.", "Pass `session_cookie=SessionCookie(...)` to `Hardening`."),
        ("Flask 標準の Cookie 用の設定は効果がありません。", "`Hardening` に `session_cookie=SessionCookie(...)` を渡してください。"),
        _FLASK,
    ),
    (
        "MKS-FLASK-005", "warning",
        ("`PERMANENT_SESSION_LIFETIME` has no effect.", "Set `MKS_SESSION_IDLE_TIMEOUT` and `MKS_SESSION_ABSOLUTE_TIMEOUT`."),
        ("`PERMANENT_SESSION_LIFETIME` は効果がありません。", "`MKS_SESSION_IDLE_TIMEOUT` と `MKS_SESSION_ABSOLUTE_TIMEOUT` を設定してください。"),
        _FLASK,
    ),
    (
        "MKS-FLASK-006", "error",
        ("The debugger runs code for anyone who can reach it.", "Start Flask without `--debug`."),
        ("デバッガーに接続できる人は誰でも任意のコードを実行できます。", "`--debug` を付けずに起動してください。"),
        _FLASK,
    ),
    (
        "MKS-DJANGO-001", "error",
        ("A system check of the Django adapter fails.", "Follow the message; `manage.py check --deploy` shows it too."),
        ("Django アダプターのシステムチェックで問題が見つかりました。", "メッセージに従ってください。`manage.py check --deploy` でも表示されます。"),
        "https://docs.djangoproject.com/en/stable/ref/checks/",
    ),
)  # fmt: skip


def _finder(identifier: str) -> Find:
    def find(facts: Facts) -> Iterator[Evidence]:
        for found in application_of(facts).adapter_findings:
            if found.id == identifier:
                yield Evidence(text=found.text, key=found.text)

    return find


for _identifier, _level, _en, _ja, _link in _TEXTS:
    GROUP.register(_identifier, _level, en=_en, ja=_ja, link=_link)(_finder(_identifier))
