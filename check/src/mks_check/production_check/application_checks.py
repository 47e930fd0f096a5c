"""Checks of the imported application: debug modes, sessions, CSRF, CORS, middleware and its order, routes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, cast

from mks_check.production_check.application_facts import ApplicationFacts
from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence
from mks_check.production_check.values import as_list, as_seconds, is_on, is_weak_secret, trusts_everyone
from mks_hardening._edge.safe_methods import SAFE_METHODS

__all__ = ["GROUP", "application_of"]

GROUP: Final = CheckGroup("application")

_OWASP: Final = "https://cheatsheetseries.owasp.org/cheatsheets/"
_SESSION: Final = ("SessionTimeoutMiddleware",)
_CSRF: Final = ("CSRFMiddleware", "CSRFProtect", "CsrfViewMiddleware", "SeaSurf")
_HEADERS: Final = ("SecurityHeadersMiddleware", "Talisman", "SecurityMiddleware", "SecureHeadersMiddleware")
_LOG: Final = ("RequestLoggingMiddleware", "CorrelationIdMiddleware", "RequestIDMiddleware")
_LIMITS: Final = (
    "RateLimitMiddleware",
    "Limiter",
    "SlowAPIMiddleware",
    "SlowAPIASGIMiddleware",
    "SecurityMiddleware",
)
_HOSTS: Final = ("HTTPSRedirectMiddleware", "TrustedHostMiddleware")
_HEALTH: Final = re.compile(
    r"^/(?:livez|readyz|healthz?|health_?check|health/.*|ready|live|ping|up|_health|status)/?$"
)
_ORDER: Final = (
    "TrustedProxyMiddleware", "SecurityHeadersMiddleware", "CORSMiddleware", "RequestLoggingMiddleware",
    "HTTPSRedirectMiddleware", "HealthMiddleware", "MaintenanceMiddleware", "ClientRulesMiddleware",
    "RequestLimitsMiddleware", "RateLimitMiddleware", "SessionTimeoutMiddleware", "CSRFMiddleware",
    "ResponseCacheMiddleware",
)  # fmt: skip
"""The order of ``compose.harden_wsgi``, from the outside in."""
_WEAK_HASHERS: Final = re.compile(r"MD5|SHA1PasswordHasher|Unsalted|Crypt", re.IGNORECASE)


def application_of(facts: Facts) -> ApplicationFacts:
    """Return the application, which the check requires."""
    assert facts.application is not None  # noqa: S101 - the runner has looked at CheckDefinition.reads
    return facts.application


def _loaded(facts: Facts) -> Iterator[ApplicationFacts]:
    """Yield the application if it was imported."""
    application = application_of(facts)
    if not application.error:
        yield application


def _own_session(facts: Facts) -> Iterator[ApplicationFacts]:
    """Yield the application if the framework sends its own session cookie, and one is possible."""
    for application in _loaded(facts):
        ours = application.has(*_SESSION) or any(
            "mks_hardening" in str(value) for value in [application.config.get("SESSION_ENGINE")]
        )
        uses = application.framework == "django" or (
            application.framework == "flask" and application.config.get("SECRET_KEY")
        )
        if uses and not ours:
            yield application


def _missing(facts: Facts, names: tuple[str, ...]) -> Iterator[ApplicationFacts]:
    for application in _loaded(facts):
        if not application.has(*names):
            yield application


@GROUP.register(
    "MKS-APP-001",
    "error",
    en=(
        "The application cannot be imported with these settings.",
        "Start it by hand with the same environment, and correct what fails.",
    ),
    ja=(
        "この設定ではアプリケーションをインポートできません。",
        "同じ環境変数で起動し、失敗の原因を修正してください。",
    ),
    link="https://12factor.net/config",
)
def not_importable(facts: Facts) -> Iterator[Evidence]:
    """Report the error of the import."""
    application = application_of(facts)
    if application.error:
        yield Evidence(text=f"{application.target}: {application.error}", key=application.target)


@GROUP.register(
    "MKS-APP-002",
    "error",
    en=("The application runs in debug or test mode.", "Remove `debug=True`, `DEBUG` and `TESTING`."),
    ja=(
        "アプリケーションがデバッグモードまたはテストモードで動いています。",
        "`debug=True`、`DEBUG`、`TESTING` を削除してください。",
    ),
    link=_OWASP + "Error_Handling_Cheat_Sheet.html",
)
def debug_mode(facts: Facts) -> Iterator[Evidence]:
    """Report debug and test modes."""
    for application in _loaded(facts):
        if application.debug:
            yield Evidence(text="debug is on", key="debug")
        if application.framework == "flask":
            for name in ("TESTING", "PROPAGATE_EXCEPTIONS"):
                if application.config.get(name) is True:
                    yield Evidence(text=f"{name} is True", key=name)


@GROUP.register(
    "MKS-APP-003",
    "error",
    en=(
        "The secret key of the framework is short, guessable or a placeholder.",
        "Read a random key of 32 bytes or more from a file.",
    ),
    ja=(
        "フレームワークの秘密鍵が短い、推測しやすい、または仮の値です。",
        "32バイト以上のランダムな鍵をファイルから読み込んでください。",
    ),
    link=_OWASP + "Key_Management_Cheat_Sheet.html",
)
def weak_key(facts: Facts) -> Iterator[Evidence]:
    """Report weak keys, and those that Django marks as insecure."""
    for application in _loaded(facts):
        for name in ("SECRET_KEY", "JWT_SECRET_KEY"):
            if application.config.get(name) and (why := is_weak_secret(application.config[name])):
                yield Evidence(text=f"{why} ({name})", key=name)


@GROUP.register(
    "MKS-APP-004",
    "error",
    en=("The session cookie is also sent over plain HTTP.", "`SESSION_COOKIE_SECURE = True`"),
    ja=(
        "セッションの Cookie が平文の HTTP でも送信されます。",
        "`SESSION_COOKIE_SECURE = True` を設定してください。",
    ),
    link=_OWASP + "Session_Management_Cheat_Sheet.html",
)
def insecure_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies without Secure."""
    for application in _own_session(facts):
        if not application.config.get("SESSION_COOKIE_SECURE"):
            yield Evidence(text="SESSION_COOKIE_SECURE is False", key="SESSION_COOKIE_SECURE")


@GROUP.register(
    "MKS-APP-005",
    "error",
    en=("Scripts can read the session cookie.", "`SESSION_COOKIE_HTTPONLY = True`"),
    ja=(
        "スクリプトからセッションの Cookie を読み取れます。",
        "`SESSION_COOKIE_HTTPONLY = True` を設定してください。",
    ),
    link=_OWASP + "Session_Management_Cheat_Sheet.html",
)
def readable_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies without HttpOnly."""
    for application in _own_session(facts):
        if application.config.get("SESSION_COOKIE_HTTPONLY") is False:
            yield Evidence(text="SESSION_COOKIE_HTTPONLY is False", key="SESSION_COOKIE_HTTPONLY")


@GROUP.register(
    "MKS-APP-006",
    "warning",
    en=("The session cookie is sent with requests of other sites.", '`SESSION_COOKIE_SAMESITE = "Lax"`'),
    ja=(
        "他サイトからのリクエストにもセッションの Cookie が送信されます。",
        '`SESSION_COOKIE_SAMESITE = "Lax"` を設定してください。',
    ),
    link=_OWASP + "Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html",
)
def cross_site_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies without SameSite."""
    for application in _own_session(facts):
        value = application.config.get("SESSION_COOKIE_SAMESITE")
        if str(value).lower() not in {"lax", "strict"}:
            yield Evidence(text=f"SESSION_COOKIE_SAMESITE is {value}", key="SESSION_COOKIE_SAMESITE")


@GROUP.register(
    "MKS-APP-007",
    "warning",
    en=(
        "Sessions of the framework live for many hours and do not end without activity.",
        "Use `SessionTimeoutMiddleware`, or shorten the lifetime to a working day.",
    ),
    ja=(
        "フレームワークのセッションが長時間有効で、無操作でも終了しません。",
        "`SessionTimeoutMiddleware` を使うか、有効期間を1営業日程度に短くしてください。",
    ),
    link=_OWASP + "Session_Management_Cheat_Sheet.html",
)
def endless_session(facts: Facts) -> Iterator[Evidence]:
    """Report lifetimes of 12 hours and more."""
    for application in _own_session(facts):
        name = "SESSION_COOKIE_AGE" if application.framework == "django" else "PERMANENT_SESSION_LIFETIME"
        seconds = as_seconds(application.config.get(name))
        if seconds is not None and seconds >= 12 * 3600:
            yield Evidence(text=f"{name} is {seconds / 3600:g} hours", key=name)


@GROUP.register(
    "MKS-APP-008",
    "error",
    en=(
        "Requests that change something are not protected against cross-site request forgery.",
        "Wrap the application with `harden_wsgi` or `harden_asgi`, or use the protection of the framework.",
    ),
    ja=(
        "状態を変更するリクエストが、クロスサイトリクエストフォージェリーから保護されていません。",
        "`harden_wsgi` か `harden_asgi` で包むか、フレームワークの保護機能を使ってください。",
    ),
    link=_OWASP + "Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html",
)
def no_csrf(facts: Facts) -> Iterator[Evidence]:
    """Report applications with unsafe routes and without protection; Flask-WTF registers a function."""
    for application in _missing(facts, _CSRF):
        changing = [route.path for route in application.routes if route.methods - SAFE_METHODS]
        flask_wtf = any(name.startswith("flask_wtf.csrf") for name in application.wrappers)
        if flask_wtf or (application.framework != "django" and not changing):
            continue
        yield Evidence(text=", ".join(changing[:5]) or "CsrfViewMiddleware is missing", key="csrf")


@GROUP.register(
    "MKS-APP-009",
    "error",
    en=(
        "Pages of any origin may read responses with the user's cookies.",
        "List the origins, or leave credentials off.",
    ),
    ja=(
        "任意のオリジンのページから、利用者の Cookie を使ったレスポンスを読み取れます。",
        "オリジンを列挙するか、資格情報を許可しないでください。",
    ),
    link="https://developer.mozilla.org/docs/Web/HTTP/Guides/CORS",
)
def cors_with_credentials(facts: Facts) -> Iterator[Evidence]:
    """Report any origin together with credentials."""
    for application in _loaded(facts):
        for policy in application.cors:
            if policy.any_origin and policy.credentials:
                yield Evidence(text="any origin with credentials", key="cors")


@GROUP.register(
    "MKS-APP-010",
    "warning",
    en=("Nothing sets security headers.", "Wrap the application with `harden_wsgi` or `harden_asgi`."),
    ja=("セキュリティヘッダーが設定されていません。", "`harden_wsgi` か `harden_asgi` で包んでください。"),
    link=_OWASP + "HTTP_Headers_Cheat_Sheet.html",
)
def no_headers(facts: Facts) -> Iterator[Evidence]:
    """Report applications without a middleware for header fields."""
    for application in _missing(facts, (*_HEADERS, "HardeningMiddleware")):
        yield Evidence(text=application.target, key="headers")


@GROUP.register(
    "MKS-APP-011",
    "warning",
    en=(
        "Requests are not logged with an id, so a report of a user cannot be found in the logs.",
        "Use `RequestLoggingMiddleware`.",
    ),
    ja=(
        "リクエストが ID 付きで記録されないため、利用者からの報告をログで追跡できません。",
        "`RequestLoggingMiddleware` を使ってください。",
    ),
    link=_OWASP + "Logging_Cheat_Sheet.html",
)
def no_request_log(facts: Facts) -> Iterator[Evidence]:
    """Report applications without request ids."""
    for application in _missing(facts, (*_LOG, "HardeningMiddleware")):
        yield Evidence(text=application.target, key="request log")


@GROUP.register(
    "MKS-APP-012",
    "error",
    en=(
        "Forwarding headers are believed from every peer.",
        "Use `TrustedProxyMiddleware` with the addresses of your proxies.",
    ),
    ja=(
        "すべての接続元の転送用ヘッダーを信頼しています。",
        "`TrustedProxyMiddleware` にプロキシのアドレスを指定してください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc7239#section-8.1",
)
def everyone_trusted(facts: Facts) -> Iterator[Evidence]:
    """Report ``ProxyFix``, settings of Django, and networks of everybody."""
    for application in _loaded(facts):
        if application.is_outside("ProxyFix", "TrustedProxyMiddleware"):
            yield Evidence(text="ProxyFix trusts every peer", key="ProxyFix")
        for name in ("SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST"):
            if application.config.get(name) and not application.has(
                "HardeningMiddleware", "TrustedProxyMiddleware"
            ):
                yield Evidence(text=f"{name} is set", key=name)
        for network in trusts_everyone(application.trusted or ()):
            yield Evidence(text=f"trusted_proxies contains {network}", key=network)


@GROUP.register(
    "MKS-APP-013",
    "warning",
    en=(
        "The wrappers stand in an order that loses protection.",
        "Use `harden_wsgi` or `harden_asgi`, which knows the order.",
    ),
    ja=(
        "ミドルウェアの順序が誤っており、保護が働かない部分があります。",
        "正しい順序を組み立てる `harden_wsgi` か `harden_asgi` を使ってください。",
    ),
    link=_OWASP + "Secure_Product_Design_Cheat_Sheet.html",
)
def wrong_order(facts: Facts) -> Iterator[Evidence]:
    """Report our wrappers in another order than that of ``compose``."""
    for application in _loaded(facts):
        found = [name for name in application.wrappers if name in _ORDER]
        for outer, inner in pairwise(found):
            if _ORDER.index(outer) > _ORDER.index(inner):
                yield Evidence(text=f"{inner} belongs outside of {outer}", key=f"{outer} {inner}")


@GROUP.register(
    "MKS-APP-014",
    "warning",
    en=(
        "Nothing limits how often a client may try: passwords can be guessed.",
        "Add `RateLimitMiddleware`, or `limit` on the sign-in.",
    ),
    ja=(
        "クライアントの試行回数に制限がなく、パスワードの総当たりが可能です。",
        "`RateLimitMiddleware` を追加するか、サインインに `limit` を付けてください。",
    ),
    link=_OWASP + "Authentication_Cheat_Sheet.html",
)
def no_rate_limit(facts: Facts) -> Iterator[Evidence]:
    """Report applications without a rate limit; our Flask adapter brings a limiter."""
    names = (
        "RateLimitMiddleware",
        "Limiter",
        "SlowAPIMiddleware",
        "SlowAPIASGIMiddleware",
        "Installed",
        "HardeningMiddleware",
    )
    for application in _missing(facts, names):
        if application.framework:
            yield Evidence(text=application.target, key="rate limit")


@GROUP.register(
    "MKS-APP-015",
    "warning",
    en=(
        "Sessions are kept in the memory of one process: a restart or a second worker signs people out.",
        "Use `RedisSessionStore` (`MKS_REDIS_URL`).",
    ),
    ja=(
        "セッションが1つのプロセスのメモリーにあるため、再起動や複数ワーカーでサインアウトされます。",
        "`RedisSessionStore`（`MKS_REDIS_URL`）を使ってください。",
    ),
    link="https://12factor.net/processes",
)
def sessions_in_memory(facts: Facts) -> Iterator[Evidence]:
    """Report in-memory stores."""
    for application in _loaded(facts):
        if application.session_store == "MemorySessionStore":
            yield Evidence(text=application.session_store, key="session store")
        if str(application.config.get("SESSION_TYPE", "")).lower() in {"cachelib", "filesystem", "null"}:
            yield Evidence(text=f"SESSION_TYPE is {application.config['SESSION_TYPE']}", key="SESSION_TYPE")


@GROUP.register(
    "MKS-APP-016",
    "warning",
    en=("A load balancer cannot ask whether the application lives and is ready.", "Add `HealthMiddleware`."),
    ja=(
        "ロードバランサーが、アプリケーションの稼働と準備完了を確認できません。",
        "`HealthMiddleware` を追加してください。",
    ),
    link="https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/",
)
def no_health(facts: Facts) -> Iterator[Evidence]:
    """Report applications without such a route."""
    for application in _missing(facts, ("HealthMiddleware", "HardeningMiddleware")):
        if not any(_HEALTH.match(route.path) for route in application.routes):
            yield Evidence(text=application.target, key="health")


@GROUP.register(
    "MKS-APP-017",
    "warning",
    en=(
        "The documentation of the API, or a tool for developers, is open to everybody.",
        "`FastAPI(openapi_url=None)` in production, or protect the page.",
    ),
    ja=(
        "API ドキュメントまたは開発者用のツールが誰にでも公開されています。",
        "本番環境では `FastAPI(openapi_url=None)` とするか、ページを保護してください。",
    ),
    link="https://owasp.org/API-Security/editions/2023/en/0xa9-improper-inventory-management/",
)
def open_documentation(facts: Facts) -> Iterator[Evidence]:
    """Report generated documentation and known tools among the routes."""
    pattern = re.compile(
        r"^/(?:docs|redoc|swagger|apidocs|graphiql|console|__debug__|_debug_toolbar|phpmyadmin|flower)(?:/|$)"
    )
    for application in _loaded(facts):
        if application.documentation:
            yield Evidence(text=application.documentation, key=application.documentation)
        for route in application.routes:
            if pattern.match(route.path) and not application.documentation:
                yield Evidence(text=route.path, key=route.path)


@GROUP.register(
    "MKS-APP-018",
    "warning",
    en=(
        "A link alone seems to change something: crawlers, prefetch and other sites can follow it.",
        "Accept POST only.",
    ),
    ja=(
        "リンクをたどるだけで状態が変わる可能性があります。クローラー、先読み、他サイトからも実行されます。",
        "POST だけを受け付けてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1",
)
def changing_get(facts: Facts) -> Iterator[Evidence]:
    """Report paths whose name is that of a change and that answer GET only: a form has another route for POST."""
    pattern = re.compile(
        r"(?:^|[/_-])(?:delete|remove|destroy|logout|sign-?out|disable|reset|purge)(?:[/_-]|$)"
    )
    for application in _loaded(facts):
        changing = {route.path for route in application.routes if route.methods - SAFE_METHODS}
        for route in application.routes:
            if pattern.search(route.path.lower()) and route.methods and route.path not in changing:
                yield Evidence(text=f"GET {route.path}", key=route.path)


@GROUP.register(
    "MKS-APP-019",
    "warning",
    en=(
        "The size of a request body is not limited.",
        "Set `MKS_MAX_BODY`, or `MAX_CONTENT_LENGTH` in Flask.",
    ),
    ja=(
        "リクエスト本文のサイズが制限されていません。",
        "`MKS_MAX_BODY` か、Flask の `MAX_CONTENT_LENGTH` を設定してください。",
    ),
    link=_OWASP + "Denial_of_Service_Cheat_Sheet.html",
)
def no_body_limit(facts: Facts) -> Iterator[Evidence]:
    """Report Flask, Starlette and Django without a limit."""
    for application in _missing(facts, ("RequestLimitsMiddleware",)):
        config = application.config
        match application.framework:
            case "flask":
                unlimited = config.get("MAX_CONTENT_LENGTH") is None
            case "django":
                unlimited = config.get("DATA_UPLOAD_MAX_MEMORY_SIZE") is None
            case "starlette":
                unlimited = any(route.methods - SAFE_METHODS for route in application.routes)
            case _:
                unlimited = False
        if unlimited:
            yield Evidence(text=application.target, key="body limit")


@GROUP.register(
    "MKS-APP-020",
    "error",
    en=(
        "The application serves any host name.",
        "Use `HTTPSRedirectMiddleware` with `allowed_hosts`, `ALLOWED_HOSTS`, or `TrustedHostMiddleware`.",
    ),
    ja=(
        "アプリケーションが任意のホスト名を受け付けます。",
        "`allowed_hosts` を指定した `HTTPSRedirectMiddleware`、`ALLOWED_HOSTS`、または `TrustedHostMiddleware` を使ってください。",
    ),
    link="https://portswigger.net/web-security/host-header",
)
def any_host(facts: Facts) -> Iterator[Evidence]:
    """Report applications that check no host."""
    for application in _missing(facts, (*_HOSTS, "HardeningMiddleware")):
        hosts = application.config.get(
            "ALLOWED_HOSTS" if application.framework == "django" else "TRUSTED_HOSTS"
        )
        if application.framework and (not as_list(hosts) or "*" in as_list(hosts)):
            yield Evidence(text=application.target, key="hosts")


@GROUP.register(
    "MKS-APP-021",
    "error",
    en=(
        "The application unpickles data that others can write: whoever writes there runs code here.",
        "Use JSON or msgpack.",
    ),
    ja=(
        "他者が書き込めるデータを pickle で復元しています。書き込める者は任意のコードを実行できます。",
        "JSON か msgpack を使ってください。",
    ),
    link=_OWASP + "Deserialization_Cheat_Sheet.html",
)
def pickle(facts: Facts) -> Iterator[Evidence]:
    """Report pickle in settings of sessions, caches and Celery."""
    for application in _loaded(facts):
        for name, value in application.config.items():
            named = re.search(r"SERIALI[SZ](?:ER|ATION_FORMAT)$|ACCEPT_CONTENT$", str(name))
            if named and "pickle" in str(value).lower():
                yield Evidence(text=f"{name} is {value}", key=str(name))


@GROUP.register(
    "MKS-APP-022",
    "error",
    en=(
        "Passwords are hashed with a fast or broken function.",
        "Put Argon2, scrypt or PBKDF2 first in `PASSWORD_HASHERS`.",
    ),
    ja=(
        "パスワードのハッシュに高速すぎるか危殆化した関数を使っています。",
        "`PASSWORD_HASHERS` の先頭を Argon2、scrypt、PBKDF2 のいずれかにしてください。",
    ),
    link=_OWASP + "Password_Storage_Cheat_Sheet.html",
)
def weak_hash(facts: Facts) -> Iterator[Evidence]:
    """Report the hasher that is used for new passwords."""
    for application in _loaded(facts):
        hashers = as_list(application.config.get("PASSWORD_HASHERS"))
        if hashers and _WEAK_HASHERS.search(hashers[0]):
            yield Evidence(text=hashers[0], key="PASSWORD_HASHERS")


@GROUP.register(
    "MKS-APP-023",
    "warning",
    en=(
        "Importing the application starts threads, which do not survive a fork.",
        "Start them in the worker: `post_fork` of gunicorn, or with the first request.",
    ),
    ja=(
        "アプリケーションのインポートでスレッドが開始されますが、fork 後のプロセスには残りません。",
        "gunicorn の `post_fork` か、最初のリクエストで開始してください。",
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#preload-app",
)
def threads_at_import(facts: Facts) -> Iterator[Evidence]:
    """Report threads that were not there before; ours are restarted after a fork."""
    for application in _loaded(facts):
        for name in application.threads:
            if not name.startswith("mks"):
                yield Evidence(text=name, key=name)


@GROUP.register(
    "MKS-APP-024",
    "warning",
    en=(
        "An asynchronous view calls a blocking function: every other request of the worker waits.",
        "Await an asynchronous function, or write the view as `def`.",
    ),
    ja=(
        "非同期のビューがブロックする関数を呼び出しており、同じワーカーのほかのリクエストが待たされます。",
        "非同期の関数を await するか、ビューを `def` で書いてください。",
    ),
    link="https://docs.python.org/3/library/asyncio-dev.html#running-blocking-code",
)
def blocking_view(facts: Facts) -> Iterator[Evidence]:
    """Report blocking calls by route."""
    for application in _loaded(facts):
        for route in application.routes:
            for call in route.blocking:
                yield Evidence(text=f"{route.path}: {call}", key=f"{route.path} {call}")


@GROUP.register(
    "MKS-APP-025",
    "warning",
    en=(
        "A task that runs longer than the visibility time-out of the broker is run a second time.",
        "Set `visibility_timeout` longer than the longest task, or limit tasks by `task_time_limit`.",
    ),
    ja=(
        "ブローカーの visibility_timeout より長く動くタスクは、もう一度実行されます。",
        "`visibility_timeout` を最長のタスクより長くするか、`task_time_limit` でタスクを制限してください。",
    ),
    link="https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html",
)
def short_visibility(facts: Facts) -> Iterator[Evidence]:
    """Compare the time-out of the broker with the limit of tasks."""
    for application in _loaded(facts):
        config = application.config
        nested: object = config.get("CELERY")
        celery = cast("dict[str, object]", nested) if isinstance(nested, dict) else {}
        options: object = config.get(
            "CELERY_BROKER_TRANSPORT_OPTIONS", celery.get("broker_transport_options")
        )
        given = cast("dict[str, object]", options) if isinstance(options, dict) else {}
        visible = as_seconds(given.get("visibility_timeout", 3600))
        limit = as_seconds(config.get("CELERY_TASK_TIME_LIMIT", celery.get("task_time_limit")))
        if visible is not None and limit is not None and visible <= limit:
            text = f"visibility_timeout {visible:g} s <= task_time_limit {limit:g} s"
            yield Evidence(text=text, key="visibility_timeout")


@GROUP.register(
    "MKS-APP-026",
    "warning",
    en=(
        "Rate limits are counted in each process: with several workers a client may do several times as much.",
        '`RATELIMIT_STORAGE_URI = "redis://…"`',
    ),
    ja=(
        "レート制限をプロセスごとに数えているため、ワーカーの数だけ上限が緩くなります。",
        "`RATELIMIT_STORAGE_URI` に Redis を指定してください。",
    ),
    link="https://flask-limiter.readthedocs.io/en/stable/configuration.html",
)
def limits_in_memory(facts: Facts) -> Iterator[Evidence]:
    """Report limits of Flask-Limiter in memory."""
    for application in _loaded(facts):
        storage = application.config.get(
            "RATELIMIT_STORAGE_URI", application.config.get("RATELIMIT_STORAGE_URL")
        )
        if isinstance(storage, str) and storage.startswith("memory:"):
            yield Evidence(text=f"RATELIMIT_STORAGE_URI is {storage}", key="RATELIMIT_STORAGE_URI")
        elif storage is None and application.has("Limiter") and application.framework == "flask":
            yield Evidence(text="RATELIMIT_STORAGE_URI is not set", key="RATELIMIT_STORAGE_URI")


@GROUP.register(
    "MKS-APP-027",
    "error",
    en=(
        "HTTPS is not enforced by the application, and nothing sets HSTS.",
        "Use `HTTPSRedirectMiddleware`, or `SECURE_SSL_REDIRECT` and `SECURE_HSTS_SECONDS` in Django.",
    ),
    ja=(
        "アプリケーションが HTTPS を強制せず、HSTS も設定していません。",
        "`HTTPSRedirectMiddleware` か、Django では `SECURE_SSL_REDIRECT` と `SECURE_HSTS_SECONDS` を使ってください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc6797",
)
def no_https(facts: Facts) -> Iterator[Evidence]:
    """Report applications that answer plain HTTP."""
    names = ("HTTPSRedirectMiddleware", "Talisman", "HardeningMiddleware")
    for application in _missing(facts, names):
        redirected = is_on(application.config.get("SECURE_SSL_REDIRECT")) or is_on(
            application.config.get("FORCE_HTTPS")
        )
        if application.framework and not redirected:
            yield Evidence(text=application.target, key="https")


@GROUP.register(
    "MKS-APP-028",
    "error",
    en=("Passwords for a database stand in the source.", "Read the URL from the environment or a file."),
    ja=(
        "データベースのパスワードがソースコードに書かれています。",
        "URL を環境変数かファイルから読み込んでください。",
    ),
    link=_OWASP + "Secrets_Management_Cheat_Sheet.html",
)
def password_in_config(facts: Facts) -> Iterator[Evidence]:
    """Report URLs with a well-known password: nobody has set them outside of the source."""
    for application in _loaded(facts):
        for name, value in application.config.items():
            if isinstance(value, str) and re.match(
                r"[a-z][a-z0-9+]*://[^/\s:@]*:(?:password|postgres|secret|changeme|admin|root|test)@", value
            ):
                yield Evidence(text=f"the password in {name}", key=str(name))
