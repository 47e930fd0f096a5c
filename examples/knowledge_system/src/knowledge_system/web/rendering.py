"""What every template can use: who is signed in, times in Japan, the CSRF field, versions of static files."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import request
from markupsafe import Markup, escape

from knowledge_system import rules
from knowledge_system.problems import FieldFault, fault_text
from knowledge_system.web import here

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["install"]

JST = timezone(timedelta(hours=9), "JST")

# What a page may say after a redirect (``?done=saved``); a closed list, so that a link cannot make it say more.
DONE = {
    "saved": "保存しました。",
    "created": "記事を作成しました。",
    "commented": "コメントを投稿しました。",
    "extended": "セッションを延長しました。",
    "ended": "その端末をサインアウトしました。",
    "others-ended": "ほかの端末をすべてサインアウトしました。",
    "factor-off": "二段階認証を無効にしました。",
    "registered": "利用者を追加しました。",
    "signed-out": "サインアウトしました。",
    "clock-moved": "セッションの時計を進めました。",
    "slow-query": "遅い SQL を実行しました。下のログで確認できます。",
}


def install(app: Flask) -> None:
    """Register filters and values."""
    app.jinja_env.filters.update(
        jst=lambda value: _jst(value).strftime("%Y/%m/%d %H:%M"),
        jst_date=lambda value: _jst(value).strftime("%Y年%-m月%-d日"),
        jst_time=lambda value: _jst(value).strftime("%H:%M"),
        jst_seconds=lambda value: _jst(value).strftime("%Y/%m/%d %H:%M:%S"),
        duration=_duration,
        spaced=lambda secret: " ".join(secret[i : i + 4] for i in range(0, len(secret), 4)),
        fault_text=_fault_text,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.context_processor(_values)


def _values() -> dict[str, Any]:
    current = here.handle()
    left = _whole_seconds(current.expires_in) if here.actor_or_none() else None
    settings = here.parts().settings
    return {
        "actor": here.actor_or_none(),
        "asset": lambda name: f"/static/{name}?v={_digest(name)}",
        "csp_nonce": request.environ.get("mks_hardening.csp_nonce", ""),
        "csrf_field": _csrf_field,
        "csrf_token": here.csrf_token(),
        "demo": settings.demo,
        "done": DONE.get(request.args.get("done", "")),
        "request_id": here.request_id(),
        "rules": rules,
        "session_ends_soon": left is not None and left <= settings.warn_before,
        # A page is activity: what is left after it and still less than the idle limit comes from the absolute one.
        "session_can_extend": left is not None and left >= settings.hardening.wsgi.session_idle_timeout - 2,
        "session_expires_in": left,
        "warn_before": int(settings.warn_before),
    }


def _csrf_field() -> Markup:
    token = here.csrf_token()
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(token) if token else Markup("")


def _jst(value: str | float | datetime) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    elif isinstance(value, (int, float)):
        value = datetime.fromtimestamp(value, UTC)
    return value.astimezone(JST)


def _duration(seconds: int) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} 分 {rest} 秒" if minutes else f"{rest} 秒"


def _whole_seconds(value: float | None) -> int | None:
    return None if value is None else max(0, int(value))


def _fault_text(fault: FieldFault) -> Markup:
    return escape(fault_text(fault, language="ja"))


@cache
def _digest(name: str) -> str:
    path = Path(__file__).parent.parent / "static" / name
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
