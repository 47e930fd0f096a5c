"""The search of the site in both languages, in a browser: a phrase finds its page among the first three."""

from __future__ import annotations

import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (DOCS / "conf.py").exists(), reason="the documentation is not part of the wheel"),
    pytest.mark.skipif(find_spec("sphinx") is None, reason="Sphinx is not installed"),
]

FOUND = [
    ("サーキットブレーカー", "explanation/failure"),
    (unicodedata.normalize("NFKD", "サーキットブレーカー"), "explanation/failure"),
    ("ｻｰｷｯﾄﾌﾞﾚｰｶｰ", "explanation/failure"),
    ("時間予算", "explanation/failure"),
    ("MKS_STORE_BUDGET", "explanation/failure"),
    ("ログファイル", "explanation/logging"),
    ("転送用のヘッダー", "explanation/trust"),
    ("信頼するプロキシ", "explanation/trust"),
    ("MKS_PROXY_KEEP_HEADERS", "explanation/trust"),
    ("gunicorn は既定で", "explanation/trust"),
    ("盗まれたセッション", "explanation/threat-model"),
    ("汚されたキャッシュ", "explanation/threat-model"),
    ("パスワードの推測", "explanation/threat-model"),
    ("二度使われるコード", "explanation/threat-model"),
    ("サービス妨害", "explanation/threat-model"),
    ("伏せ字", "explanation/logging"),
    ("copytruncate", "explanation/logging"),
    ("サロゲートの片割れ", "explanation/logging"),
    ("メールサーバー", "explanation/notify"),
    ("エラートラッカー", "explanation/notify"),
    ("短いリース", "explanation/cache"),
    ("位置引数とキーワード引数", "explanation/cache"),
    ("compute_wait", "reference/api/cache"),
    ("競合か障害", "explanation/security"),
    ("IDプロバイダー", "explanation/security"),
    ("client_deadline", "explanation/db"),
    ("接続プーラー", "explanation/db"),
    ("PgBouncer", "explanation/db"),
    ("配達回数", "explanation/tasks"),
    ("空になって戻ったブローカー", "explanation/tasks"),
    ("ワークフローエンジン", "explanation/tasks"),
    ("ミドルウェアの順序", "explanation/architecture"),
    ("outage_grace", "explanation/wsgi"),
    ("よくある質問", "explanation/faq"),
    ("リクエストを制限する", "how-to/limit-requests"),
    ("二段階認証を追加する", "how-to/add-a-second-factor"),
    ("認証アプリケーション", "how-to/add-a-second-factor"),
    ("関数をキャッシュする", "how-to/cache-a-function"),
    ("プロキシの後ろに置く", "how-to/stand-behind-a-proxy"),
    ("データベースを見張る", "how-to/watch-sql"),
    ("ログをJSONにする", "how-to/log-to-json"),
    ("フレームワークなし", "tutorial/wsgi"),
    ("Falconの最初の一歩", "tutorial/falcon"),
    ("環境変数", "reference/environment"),
    ("MKS_SESSION_IDLE_TIMEOUT", "reference/environment"),
    ("既定値とタイムアウト", "reference/defaults"),
    ("コマンドライン", "reference/command-line"),
]
# Words of readers, which the pages do not use: docs/search_words.toml.
SYNONYMS = {
    "ja": [
        ("ログイン", "how-to/sign-people-in"),
        ("二要素認証", "how-to/add-a-second-factor"),
        ("多要素認証", "how-to/add-a-second-factor"),
        ("リバースプロキシ", "how-to/stand-behind-a-proxy"),
        ("ロードバランサー", "how-to/managed-platforms"),
        ("アップロードサイズ", "how-to/control-requests"),
        ("メンテナンスモード", "how-to/control-requests"),
        ("403エラー", "reference/refusals"),
        ("429", "reference/refusals"),
        ("レートリミット", "how-to/limit-requests"),
        ("アクセス制限", "how-to/limit-requests"),
        ("構造化ログ", "how-to/log-to-json"),
        ("ログローテーション", "how-to/log-to-json"),
        ("個人情報", "explanation/logging"),
        ("Slack通知", "how-to/alert-people"),
        ("スロークエリ", "how-to/watch-sql"),
        ("ページネーション", "how-to/page-through-lists"),
        ("バッチ処理", "how-to/run-tasks"),
        ("セッションタイムアウト", "how-to/one-session"),
        ("デプロイ", "how-to/own-application"),
        ("バックアップ", "how-to/deploy"),
        ("監視", "how-to/observe"),
        ("脆弱性", "explanation/threat-model"),
        ("非推奨", "explanation/versions"),
        ("マイグレーション", "how-to/change-a-schema"),
        ("セキュリティ要件", "reference/asvs"),
        ("APIキー", "how-to/api-keys"),
        ("鍵の漏洩", "how-to/rotate-keys"),
        ("コンテナログ", "how-to/redact-and-ship-logs"),
        ("複数アプリ", "how-to/several-applications"),
        ("シングルサインオン", "how-to/openid-connect"),
        ("ブルートフォース", "how-to/sign-people-in"),
        ("クライアントIP", "how-to/stand-behind-a-proxy"),
        ("ヘルスチェック", "how-to/managed-platforms"),
        ("複数ワーカー", "how-to/limit-requests"),
        ("Redis停止", "explanation/failure"),
        ("二重起動", "how-to/run-tasks"),
        ("フェイルオーバー", "how-to/database-standby"),
        ("ログ転送", "how-to/ship-logs"),
        ("ランサムウェア", "how-to/backups-elsewhere"),
        ("匿名化", "how-to/staging"),
    ],
    "en": [
        ("login", "how-to/sign-people-in"),
        ("forgot password", "how-to/sign-people-in"),
        ("2FA", "how-to/add-a-second-factor"),
        ("two-factor authentication", "how-to/add-a-second-factor"),
        ("reverse proxy", "how-to/stand-behind-a-proxy"),
        ("client IP", "how-to/stand-behind-a-proxy"),
        ("Heroku", "how-to/managed-platforms"),
        ("AJAX", "how-to/single-page-applications"),
        ("inline script", "how-to/content-security-policy"),
        ("upload size", "how-to/control-requests"),
        ("CORS", "how-to/control-requests"),
        ("403", "reference/refusals"),
        ("too many requests", "reference/refusals"),
        ("throttling", "how-to/limit-requests"),
        ("structured logging", "how-to/log-to-json"),
        ("mask passwords", "explanation/logging"),
        ("slow query", "how-to/watch-sql"),
        ("background jobs", "how-to/run-tasks"),
        ("session timeout", "how-to/one-session"),
        ("deployment", "how-to/own-application"),
        ("docker", "how-to/run-in-containers"),
        ("monitoring", "how-to/observe"),
        ("middleware order", "explanation/architecture"),
        ("Redis down", "explanation/failure"),
        ("deprecation", "explanation/versions"),
        ("env vars", "reference/environment"),
        ("memoize", "how-to/cache-a-function"),
        ("zero-downtime migration", "how-to/change-a-schema"),
        ("load shedding", "how-to/limit-load"),
        ("compliance", "reference/asvs"),
        ("API keys", "how-to/api-keys"),
        ("key rotation", "how-to/rotate-keys"),
        ("container logs", "how-to/redact-and-ship-logs"),
        ("multiple apps", "how-to/several-applications"),
        ("SSO", "how-to/openid-connect"),
        ("django-ratelimit", "how-to/migrate/django-ratelimit"),
        ("brute force", "how-to/sign-people-in"),
        ("multiple workers", "how-to/limit-requests"),
        ("readiness probe", "how-to/managed-platforms"),
        ("cron runs twice", "how-to/run-tasks"),
        ("slow queries", "how-to/watch-sql"),
        ("purge CDN", "how-to/cache-pages"),
        ("database failover", "how-to/database-standby"),
        ("log shipping", "how-to/ship-logs"),
        ("ransomware", "how-to/backups-elsewhere"),
        ("horizontal scaling", "how-to/several-hosts"),
    ],
}
# What the page itself does with a query, up to the drawing; the best result stands last.
ASK = """query => {
    const results = Search._performSearch(...Search._parseQuery(query)).reverse();
    return [...new Set(results.map(result => result[0]))].slice(0, 3);
}"""
ABSENT = ["量子コンピューター", "天気予報", "ブロックチェーン", "冷蔵庫", "xylophone"]


@pytest.mark.chromium
@pytest.mark.parametrize("language", ["en", "ja"])
def test_phrases_find_their_pages_and_absent_ones_nothing(
    served_docs: str, browser: Any, language: str
) -> None:
    wrong = []
    page = browser.new_page()
    page.goto(f"{served_docs}/{language}/search.html?q=x")
    page.wait_for_function("Search._index !== null")
    phrases: list[tuple[str, str | None]] = [*SYNONYMS[language]]
    if language == "ja":
        phrases += [*FOUND, *((phrase, None) for phrase in ABSENT)]
    for phrase, wanted in phrases:
        found = page.evaluate(ASK, phrase)
        if wanted is None and found:
            wrong.append(f"{phrase}: {found} instead of nothing")
        elif wanted is not None and wanted not in found:
            wrong.append(f"{phrase}: {found} instead of {wanted}")
    page.close()
    assert wrong == []
