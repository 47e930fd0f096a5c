"""Checks of environment variables: ours, and the usual ones of Flask, Django, Celery and gunicorn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qs

from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.facts import Facts, SettingFacts
from mks_check.production_check.finding import Evidence, Level
from mks_check.production_check.values import (
    MONTHS_6,
    as_list,
    host_is_remote,
    is_on,
    is_weak_password,
    is_weak_secret,
    password_of,
    split_url,
    trusts_everyone,
)
from mks_hardening._core.redaction.secret_names import ends_in_secret

__all__ = ["GROUP", "settings_of"]

GROUP: Final = CheckGroup("settings")

_OWASP: Final = "https://cheatsheetseries.owasp.org/cheatsheets/"
_SECRET_KEYS: Final = (
    "SECRET_KEY",
    "FLASK_SECRET_KEY",
    "DJANGO_SECRET_KEY",
    "JWT_SECRET",
    "JWT_SECRET_KEY",
    "SESSION_SECRET",
)
_DEBUG: Final = ("DEBUG", "FLASK_DEBUG", "DJANGO_DEBUG", "FASTAPI_DEBUG", "WERKZEUG_DEBUG_PIN_OFF")
_HOSTS: Final = ("ALLOWED_HOSTS", "DJANGO_ALLOWED_HOSTS", "TRUSTED_HOSTS", "FLASK_TRUSTED_HOSTS")
_URLS: Final = re.compile(r"(?:^|_)(?:URL|URI|DSN|BROKER|BACKEND)$")
_DAY: Final = 86_400
_EVERYONE: Final = ("0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1")


def settings_of(facts: Facts) -> SettingFacts:
    """Return the settings, which the check has asked for."""
    assert facts.settings is not None  # noqa: S101 - the runner has looked at CheckDefinition.reads
    return facts.settings


def _seen(settings: SettingFacts, name: str, text: str, *, level: Level | None = None) -> Evidence:
    line = settings.lines.get(name, 0)
    return Evidence(text=text, key=name, file=settings.file, line=line, level=level)


def _named(settings: SettingFacts, *names: str) -> Iterator[tuple[str, str]]:
    for name in names:
        if name in settings.variables:
            yield name, settings.variables[name]


@GROUP.register(
    "MKS-SET-001",
    "error",
    en=(
        "A setting is invalid, or refused in production.",
        "Correct the variable; `mks-hardening env` lists the accepted values.",
    ),
    ja=(
        "設定が不正か、本番環境で拒否される値です。",
        "変数を修正してください。受け付ける値は `mks-hardening env` で確認できます。",
    ),
    link="https://12factor.net/config",
)
def invalid_settings(facts: Facts) -> Iterator[Evidence]:
    """Report each error of ``HardeningSettings``; what check 006 reports is left to it."""
    settings = settings_of(facts)
    everyone = {f"={network} " for network in _EVERYONE}
    for error in settings.errors:
        name = error.partition("=")[0].partition(" ")[0]
        if not any(text in error for text in everyone):
            yield _seen(settings, name, error)


@GROUP.register(
    "MKS-SET-002",
    "warning",
    en=("A variable is probably misspelt: nothing reads it.", "Correct the name, or remove the variable."),
    ja=(
        "変数名の綴りが誤っている可能性があります。この変数は読み込まれません。",
        "変数名を修正するか、変数を削除してください。",
    ),
    link="https://12factor.net/config",
)
def misspelt_variables(facts: Facts) -> Iterator[Evidence]:
    """Report variables whose name is close to one of ours."""
    settings = settings_of(facts)
    for text in settings.unknown:
        yield _seen(settings, text.removeprefix("unknown variable ").partition(";")[0], text)


@GROUP.register(
    "MKS-SET-003",
    "error",
    en=(
        "Debug mode is on.",
        "Unset the variable: error pages in debug mode show source code and secrets, and Werkzeug's debugger runs code.",
    ),
    ja=(
        "デバッグモードが有効です。",
        "変数を削除してください。デバッグ用のエラーページはソースコードと秘密の値を表示し、Werkzeug のデバッガーは任意のコードを実行できます。",
    ),
    link=_OWASP + "Error_Handling_Cheat_Sheet.html",
)
def debug_mode(facts: Facts) -> Iterator[Evidence]:
    """Report variables that switch a debug mode on."""
    settings = settings_of(facts)
    for name, value in _named(settings, *_DEBUG):
        if is_on(value):
            yield _seen(settings, name, f"{name}={value}")
    for name, value in _named(settings, "FLASK_ENV"):
        if value == "development":
            yield _seen(settings, name, f"{name}={value}")


@GROUP.register(
    "MKS-SET-004",
    "error",
    en=(
        "The deployment is not marked as production, so unsafe settings are accepted.",
        "Set `MKS_ENV=production`, or unset it: production is the default.",
    ),
    ja=(
        "本番環境として設定されていないため、安全でない設定も受け付けられます。",
        "`MKS_ENV=production` を設定するか、変数を削除してください（既定値は production です）。",
    ),
    link="https://12factor.net/dev-prod-parity",
)
def not_production(facts: Facts) -> Iterator[Evidence]:
    """Report ``MKS_ENV`` other than production or staging."""
    settings = settings_of(facts)
    environment = settings.hardening.core.environment
    if environment not in {"production", "staging"}:
        yield _seen(settings, "MKS_ENV", f"MKS_ENV={environment}")


@GROUP.register(
    "MKS-SET-005",
    "error",
    en=(
        "A secret key is short, guessable or a placeholder.",
        'Generate one: `python -c "import secrets; print(secrets.token_urlsafe(48))"`.',
    ),
    ja=(
        "秘密鍵が短い、推測しやすい、または仮の値です。",
        '`python -c "import secrets; print(secrets.token_urlsafe(48))"` で生成した値を使ってください。',
    ),
    link=_OWASP + "Key_Management_Cheat_Sheet.html",
)
def weak_secret_key(facts: Facts) -> Iterator[Evidence]:
    """Report weak keys of frameworks; our own keys are parsed strictly."""
    settings = settings_of(facts)
    for name, value in _named(settings, *_SECRET_KEYS):
        if why := is_weak_secret(value):
            yield _seen(settings, name, f"{why} ({name})")


@GROUP.register(
    "MKS-SET-006",
    "error",
    en=(
        "Every client is trusted as a proxy, so anybody can choose their own address, scheme and host.",
        "Name the addresses of your proxies, or `unix` for a Unix socket.",
    ),
    ja=(
        "すべてのクライアントをプロキシとして信頼しているため、アドレス、スキーム、ホスト名を誰でも偽装できます。",
        "プロキシのアドレスだけを指定してください。Unix ソケットの場合は `unix` です。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc7239#section-8.1",
)
def everyone_trusted(facts: Facts) -> Iterator[Evidence]:
    """Report ``0.0.0.0/0`` and ``*`` as trusted proxies, for us and for servers."""
    settings = settings_of(facts)
    for name, value in _named(settings, "MKS_TRUSTED_PROXIES", "FORWARDED_ALLOW_IPS"):
        for network in trusts_everyone(as_list(value)):
            yield _seen(settings, name, f"{name}={network}")
    for name, value in _named(settings, "GUNICORN_CMD_ARGS", "UVICORN_CMD_ARGS"):
        match = re.search(r"--forwarded-allow-ips[= ]['\"]?(\*|0\.0\.0\.0/0|::/0)", value)
        if match:
            yield _seen(settings, name, f"--forwarded-allow-ips={match[1]}")


@GROUP.register(
    "MKS-SET-007",
    "warning",
    en=(
        "Proxies are trusted by their number only: a client that reaches the application directly chooses its own address.",
        "Set `MKS_TRUSTED_PROXIES` beside `MKS_PROXY_HOPS`.",
    ),
    ja=(
        "プロキシを段数だけで信頼しています。アプリケーションに直接接続できるクライアントは、自分のアドレスを偽装できます。",
        "`MKS_PROXY_HOPS` とともに `MKS_TRUSTED_PROXIES` を設定してください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc7239#section-8.1",
)
def hops_only(facts: Facts) -> Iterator[Evidence]:
    """Report hops without networks."""
    settings = settings_of(facts)
    edge = settings.hardening.wsgi
    if edge.proxy_hops is not None and not edge.trusted_proxies:
        yield _seen(
            settings, "MKS_PROXY_HOPS", f"MKS_PROXY_HOPS={edge.proxy_hops} without MKS_TRUSTED_PROXIES"
        )


@GROUP.register(
    "MKS-SET-008",
    "error",
    en=(
        "Any host name is served: links in mails and caches can be poisoned.",
        "List the names of the site in `MKS_ALLOWED_HOSTS` (or the setting of the framework).",
    ),
    ja=(
        "任意のホスト名を受け付けるため、メール内のリンクやキャッシュを汚染される恐れがあります。",
        "サイトの名前を `MKS_ALLOWED_HOSTS`（またはフレームワークの設定）に列挙してください。",
    ),
    link="https://portswigger.net/web-security/host-header",
)
def any_host(facts: Facts) -> Iterator[Evidence]:
    """Report wildcard hosts, and no hosts at all where our settings are used."""
    settings = settings_of(facts)
    for name, value in _named(settings, *_HOSTS):
        if "*" in as_list(value):
            yield _seen(settings, name, f"{name}={value}")
    uses_ours = any(name.startswith("MKS_") for name in settings.variables)
    if uses_ours and not settings.hardening.wsgi.allowed_hosts:
        yield _seen(settings, "MKS_ALLOWED_HOSTS", "MKS_ALLOWED_HOSTS is not set")


@GROUP.register(
    "MKS-SET-009",
    "warning",
    en=(
        "HSTS is off or shorter than 180 days: the first request of a browser may go over plain HTTP.",
        "Unset `MKS_HSTS`, and set `MKS_HSTS_MAX_AGE` (`tls.hsts_max_age` of mks-deploy) to at least 180d once HTTPS works.",
    ),
    ja=(
        "HSTS が無効か180日未満のため、ブラウザーの最初のリクエストが平文の HTTP になることがあります。",
        "`MKS_HSTS` を削除し、HTTPS の動作を確認したら `MKS_HSTS_MAX_AGE`（mks-deploy では `tls.hsts_max_age`）を180d以上にしてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc6797",
)
def short_hsts(facts: Facts) -> Iterator[Evidence]:
    """Report HSTS that is off or short; short is a note, as a new site begins so."""
    settings = settings_of(facts)
    edge = settings.hardening.wsgi
    if not edge.hsts:
        yield _seen(settings, "MKS_HSTS", "MKS_HSTS=0")
    elif edge.hsts_max_age < MONTHS_6:
        text = f"MKS_HSTS_MAX_AGE is {edge.hsts_max_age:g} seconds"
        yield _seen(settings, "MKS_HSTS_MAX_AGE", text, level="note" if edge.hsts_max_age else None)
    for name, value in _named(settings, "SECURE_HSTS_SECONDS"):
        if value.strip().isdigit() and int(value[:18]) < MONTHS_6:
            yield _seen(settings, name, f"{name}={value}", level="note" if int(value[:18]) else None)


@GROUP.register(
    "MKS-SET-010",
    "warning",
    en=("Pages of every origin may read responses.", "List the origins that need it in `MKS_CORS_ORIGINS`."),
    ja=(
        "すべてのオリジンのページからレスポンスを読み取れます。",
        "必要なオリジンだけを `MKS_CORS_ORIGINS` に列挙してください。",
    ),
    link="https://developer.mozilla.org/docs/Web/HTTP/Guides/CORS",
)
def any_origin(facts: Facts) -> Iterator[Evidence]:
    """Report CORS for all origins."""
    settings = settings_of(facts)
    for name, value in _named(settings, "MKS_CORS_ORIGINS", "CORS_ORIGINS", "CORS_ALLOWED_ORIGINS"):
        if "*" in as_list(value):
            yield _seen(settings, name, f"{name}=*")
    for name, value in _named(settings, "CORS_ALLOW_ALL_ORIGINS", "CORS_ORIGIN_ALLOW_ALL"):
        if is_on(value):
            yield _seen(settings, name, f"{name}={value}")


@GROUP.register(
    "MKS-SET-011",
    "warning",
    en=(
        "Sessions live longer than a day, or stay open for more than two hours without activity.",
        "Shorten `MKS_SESSION_ABSOLUTE_TIMEOUT` and `MKS_SESSION_IDLE_TIMEOUT`.",
    ),
    ja=(
        "セッションの有効期間が1日を超えているか、無操作のまま2時間を超えて維持されます。",
        "`MKS_SESSION_ABSOLUTE_TIMEOUT` と `MKS_SESSION_IDLE_TIMEOUT` を短くしてください。",
    ),
    link=_OWASP + "Session_Management_Cheat_Sheet.html",
)
def long_sessions(facts: Facts) -> Iterator[Evidence]:
    """Report sessions that outlast a working day by far."""
    settings = settings_of(facts)
    edge = settings.hardening.wsgi
    if edge.session_absolute_timeout > _DAY:
        text = f"{edge.session_absolute_timeout / 3600:g} hours"
        yield _seen(settings, "MKS_SESSION_ABSOLUTE_TIMEOUT", text)
    if edge.session_idle_timeout > 7200:
        yield _seen(settings, "MKS_SESSION_IDLE_TIMEOUT", f"{edge.session_idle_timeout / 3600:g} hours")


@GROUP.register(
    "MKS-SET-012",
    "error",
    en=(
        "A password is one that everybody tries first.",
        "Set a random password, and keep it in a file that `…_FILE` names.",
    ),
    ja=(
        "誰もが最初に試すパスワードが使われています。",
        "ランダムなパスワードに変更し、`…_FILE` で指定するファイルに保存してください。",
    ),
    link=_OWASP + "Secrets_Management_Cheat_Sheet.html",
)
def well_known_password(facts: Facts) -> Iterator[Evidence]:
    """Report well-known passwords in URLs and in password variables."""
    settings = settings_of(facts)
    for name, value in settings.variables.items():
        parts = split_url(value)
        if parts is not None and parts.password is not None and is_weak_password(password_of(parts)):
            yield _seen(settings, name, f"the password in {name}")
        elif re.search(r"PASSW(?:OR)?D$", name) and is_weak_password(value):
            yield _seen(settings, name, name)


@GROUP.register(
    "MKS-SET-013",
    "warning",
    en=(
        "A secret stands in the environment file itself.",
        "Move it to a file of its own and name that in `…_FILE` (systemd: LoadCredential).",
    ),
    ja=(
        "秘密の値が環境変数ファイルに直接書かれています。",
        "別のファイルに移し、`…_FILE` でそのファイルを指定してください（systemd では LoadCredential）。",
    ),
    link=_OWASP + "Secrets_Management_Cheat_Sheet.html",
)
def secret_in_env_file(facts: Facts) -> Iterator[Evidence]:
    """Report secrets in an environment file: backups, units and every reader of the file have them."""
    settings = settings_of(facts)
    if not settings.file:
        return
    for name, value in settings.variables.items():
        if name.endswith("_FILE"):
            continue
        parts = split_url(value)
        if (parts is not None and parts.password) or ends_in_secret(name):
            yield _seen(settings, name, name)


@GROUP.register(
    "MKS-SET-014",
    "error",
    en=(
        "Certificates are not verified: anybody between the machines can read and change everything.",
        "Verify them: `sslmode=verify-full` with `sslrootcert`, `ssl_cert_reqs=required`.",
    ),
    ja=(
        "証明書を検証していないため、通信経路上の第三者が内容を読み取り、書き換えられます。",
        "検証を有効にしてください（`sslmode=verify-full` と `sslrootcert`、`ssl_cert_reqs=required`）。",
    ),
    link=_OWASP + "Transport_Layer_Security_Cheat_Sheet.html",
)
def unverified_tls(facts: Facts) -> Iterator[Evidence]:
    """Report TLS without verification to databases, Redis and in Python."""
    settings = settings_of(facts)
    for name, value in _named(settings, "PYTHONHTTPSVERIFY"):
        if value.strip() == "0":
            yield _seen(settings, name, f"{name}=0")
    for name, value in settings.variables.items():
        parts = split_url(value)
        if parts is None:
            continue
        options = {key.lower(): values[-1].lower() for key, values in parse_qs(parts.query[:4096]).items()}
        if options.get("ssl_cert_reqs", "").removeprefix("cert_") == "none":
            yield _seen(settings, name, f"{name}: ssl_cert_reqs=none")
        mode = options.get("sslmode")
        if host_is_remote(parts) and mode in {"disable", "allow", "prefer", "require"}:
            yield _seen(settings, name, f"{name}: sslmode={mode}")


@GROUP.register(
    "MKS-SET-015",
    "warning",
    en=(
        "Data goes to another machine in clear text.",
        "Use TLS (`rediss://`, `sslmode=verify-full`), or a Unix socket on the same machine.",
    ),
    ja=(
        "別のマシンへの通信が暗号化されていません。",
        "TLS（`rediss://`、`sslmode=verify-full`）か、同じマシンの Unix ソケットを使ってください。",
    ),
    link=_OWASP + "Transport_Layer_Security_Cheat_Sheet.html",
)
def clear_text(facts: Facts) -> Iterator[Evidence]:
    """Report unencrypted connections to other machines."""
    settings = settings_of(facts)
    if settings.hardening.core.allow_plaintext:
        yield _seen(settings, "MKS_ALLOW_PLAINTEXT", "MKS_ALLOW_PLAINTEXT=1")
    for name, value in settings.variables.items():
        parts = split_url(value) if _URLS.search(name) else None
        if (
            parts is not None
            and parts.scheme in {"redis", "amqp", "ldap", "smtp", "memcached"}
            and host_is_remote(parts)
        ):
            yield _seen(settings, name, f"{name}: {parts.scheme}://")


@GROUP.register(
    "MKS-SET-016",
    "error",
    en=(
        "Several workers share no Redis: each has its own sessions and limits.",
        "Set `MKS_REDIS_URL` (or `MKS_REDIS_URL_FILE`).",
    ),
    ja=(
        "複数のワーカーが Redis を共有していないため、セッションとレート制限がワーカーごとに分かれます。",
        "`MKS_REDIS_URL`（または `MKS_REDIS_URL_FILE`）を設定してください。",
    ),
    link="https://12factor.net/processes",
)
def workers_without_redis(facts: Facts) -> Iterator[Evidence]:
    """Report several workers without a shared store; an environment file may leave secrets to credentials."""
    settings = settings_of(facts)
    workers = settings.hardening.db.workers
    named = "MKS_REDIS_URL" in settings.variables or "MKS_REDIS_URL_FILE" in settings.variables
    if workers > 1 and not named and not settings.file:
        yield _seen(settings, "MKS_REDIS_URL", f"MKS_GUNICORN_WORKERS={workers} without MKS_REDIS_URL")


@GROUP.register(
    "MKS-SET-017",
    "warning",
    en=(
        "The number of connections that the database allows is unknown, so pools cannot be kept below it.",
        "Set `MKS_DB_MAX_CONNECTIONS` to what `SHOW max_connections` says, minus reserved ones.",
    ),
    ja=(
        "データベースの最大接続数が不明なため、接続プールの合計をその範囲に収められません。",
        "`SHOW max_connections` の値から予約分を引いた数を `MKS_DB_MAX_CONNECTIONS` に設定してください。",
    ),
    link="https://www.postgresql.org/docs/current/runtime-config-connection.html",
)
def unknown_connections(facts: Facts) -> Iterator[Evidence]:
    """Report PostgreSQL without a known limit."""
    settings = settings_of(facts)
    db = settings.hardening.db
    if db.max_connections is None and (settings.variables.get("DATABASE_URL", "")).startswith("postgresql"):
        yield _seen(settings, "MKS_DB_MAX_CONNECTIONS", "MKS_DB_MAX_CONNECTIONS is not set")


@GROUP.register(
    "MKS-SET-018",
    "warning",
    en=(
        "A reload or release opens more connections than planned: old and new workers run side by side.",
        "Set `MKS_DB_GENERATIONS` to 2 or more, or unset it.",
    ),
    ja=(
        "再読み込みやリリースの間は新旧のワーカーが並行して動くため、計画より多くの接続が開かれます。",
        "`MKS_DB_GENERATIONS` を2以上にするか、変数を削除してください。",
    ),
    link="https://www.postgresql.org/docs/current/runtime-config-connection.html",
)
def one_generation(facts: Facts) -> Iterator[Evidence]:
    """Report a plan for one generation of workers."""
    settings = settings_of(facts)
    if settings.hardening.db.generations == 1:
        yield _seen(settings, "MKS_DB_GENERATIONS", "MKS_DB_GENERATIONS=1")


@GROUP.register(
    "MKS-SET-019",
    "warning",
    en=(
        "Debug logs are written in production: they contain statements and values.",
        "Set the level to INFO.",
    ),
    ja=(
        "本番環境でデバッグログを出力しています。SQL 文や値が記録されます。",
        "ログレベルを INFO にしてください。",
    ),
    link=_OWASP + "Logging_Cheat_Sheet.html",
)
def debug_logs(facts: Facts) -> Iterator[Evidence]:
    """Report debug levels of other libraries; ours is refused by check 001."""
    settings = settings_of(facts)
    for name, value in _named(settings, "LOG_LEVEL", "LOGLEVEL", "DJANGO_LOG_LEVEL", "CELERY_LOG_LEVEL"):
        if value.strip().upper() == "DEBUG":
            yield _seen(settings, name, f"{name}={value}")
    for name, value in _named(settings, "SQLALCHEMY_ECHO", "SQL_ECHO"):
        if is_on(value):
            yield _seen(settings, name, f"{name}={value}")


@GROUP.register(
    "MKS-SET-020",
    "note",
    en=(
        "Limits or bans are on trial: they refuse nothing.",
        "Unset the dry run once its reports show no user who would be refused wrongly.",
    ),
    ja=(
        "レート制限または一時的な拒否が試行モードのため、何も拒否しません。",
        "誤って拒否される利用者がいないことを記録で確認したら、試行モードを解除してください。",
    ),
    link=_OWASP + "Denial_of_Service_Cheat_Sheet.html",
)
def dry_run(facts: Facts) -> Iterator[Evidence]:
    """Report dry runs."""
    settings = settings_of(facts)
    if settings.hardening.security.rate_limits_dry_run:
        groups = ", ".join(settings.hardening.security.rate_limits_dry_run)
        yield _seen(settings, "MKS_RATE_LIMITS_DRY_RUN", f"MKS_RATE_LIMITS_DRY_RUN={groups}")
    if settings.hardening.wsgi.client_rules_dry_run:
        yield _seen(settings, "MKS_CLIENT_RULES_DRY_RUN", "MKS_CLIENT_RULES_DRY_RUN=1")


@GROUP.register(
    "MKS-SET-021",
    "error",
    en=(
        "Data from a store that others can write to is unpickled: whoever writes there runs code here.",
        "Use JSON or msgpack as serializer.",
    ),
    ja=(
        "他者が書き込める場所のデータを pickle で復元しています。書き込める者は任意のコードを実行できます。",
        "シリアライザーに JSON か msgpack を使ってください。",
    ),
    link=_OWASP + "Deserialization_Cheat_Sheet.html",
)
def pickle(facts: Facts) -> Iterator[Evidence]:
    """Report pickle as a serializer."""
    settings = settings_of(facts)
    for name, value in settings.variables.items():
        if re.search(r"SERIALI[SZ](?:ER|ATION_FORMAT)$|ACCEPT_CONTENT$", name) and "pickle" in value.lower():
            yield _seen(settings, name, f"{name}={value}")


@GROUP.register(
    "MKS-SET-022",
    "warning",
    en=(
        "Forms of every subdomain or scheme are accepted as if they were the site's own.",
        "List whole origins: `https://app.example.com`.",
    ),
    ja=(
        "任意のサブドメインやスキームのフォームを、自サイトのものとして受け付けます。",
        "`https://app.example.com` のようにオリジン全体を列挙してください。",
    ),
    link=_OWASP + "Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html",
)
def wide_csrf_origins(facts: Facts) -> Iterator[Evidence]:
    """Report wildcard and plain HTTP origins."""
    settings = settings_of(facts)
    for name, value in _named(settings, "CSRF_TRUSTED_ORIGINS", "DJANGO_CSRF_TRUSTED_ORIGINS"):
        for origin in as_list(value):
            if "*" in origin or origin.startswith("http://"):
                yield _seen(settings, name, f"{name}={origin}")
