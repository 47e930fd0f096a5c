"""Checks of nginx: what it passes on to the application, TLS, redirects, header fields, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, cast

from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.config_files import ConfigFiles
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence
from mks_check.production_check.nginx_syntax import Directive, NginxTree, Scope
from mks_check.production_check.values import (
    MONTHS_6,
    as_list,
    as_seconds,
    is_public_bind,
    trusts_everyone,
)

__all__ = ["GROUP", "files_of"]

GROUP: Final = CheckGroup("files")

_MANUAL: Final = "https://nginx.org/en/docs/http/"
_RFC_TLS: Final = "https://www.rfc-editor.org/rfc/rfc9325"
_SECURITY_FIELDS: Final = frozenset((
    "strict-transport-security", "content-security-policy", "x-frame-options", "x-content-type-options",
    "referrer-policy", "permissions-policy",
))  # fmt: skip
_WEAK_CIPHERS: Final = re.compile(
    r"(?<!!)(?<!-)\b(?:NULL|aNULL|eNULL|EXPORT|EXP|RC4|3DES|DES|MD5|LOW|ALL|SEED|IDEA)\b", re.IGNORECASE
)
_REDIRECT: Final = re.compile(r"https://")


def files_of(facts: Facts) -> ConfigFiles:
    """Return the files, which the check has asked for."""
    assert facts.files is not None  # noqa: S101 - the runner has looked at CheckDefinition.reads
    return facts.files


def _tree(facts: Facts) -> NginxTree:
    empty = Directive(name="", args=(), file="", line=1, block=())
    return files_of(facts).nginx or NginxTree(root=empty)


def _at(directive: Directive, text: str = "") -> Evidence:
    return Evidence(text=text or directive.text, key=directive.text, file=directive.file, line=directive.line)


def _proxied(tree: NginxTree) -> Iterator[tuple[Scope, Directive]]:
    """Yield the places that pass requests on over HTTP, with the directive."""
    yield from tree.every("proxy_pass")


def _sent_fields(scope: Scope) -> dict[str, str]:
    return {
        each.args[0].lower(): each.args[1]
        for each in scope.effective("proxy_set_header")
        if len(each.args) == 2
    }


def _servers(tree: NginxTree) -> Iterator[Scope]:
    yield from tree.scopes("server")


def _place(scope: Scope) -> str:
    return scope.block.text or "the main level"


def _refuses(scope: Scope) -> bool:
    """Whether a server answers nothing but refusals."""
    if any(each.args == ("on",) for each in scope.own("ssl_reject_handshake")):
        return True
    return any(
        each.args[:1] and each.args[0] in {"444", "421", "403", "404", "400"} for each in scope.own("return")
    )


def _has_refusing_default(tree: NginxTree) -> bool:
    return any(
        _refuses(server)
        for server in _servers(tree)
        for listen in server.own("listen")
        if "default_server" in listen.args
    )


@GROUP.register(
    "MKS-DEP-001",
    "error",
    en=(
        "nginx passes forwarding headers of clients on to the application.",
        "Overwrite them: `proxy_set_header X-Forwarded-For $remote_addr;` and `proxy_set_header X-Forwarded-Proto $scheme;` at the same level as `proxy_pass`.",
    ),
    ja=(
        "クライアントが送った転送用ヘッダーを、nginx がそのままアプリケーションに渡しています。",
        "`proxy_pass` と同じ階層に `proxy_set_header X-Forwarded-For $remote_addr;` と `proxy_set_header X-Forwarded-Proto $scheme;` を書いて上書きしてください。",
    ),
    link=_MANUAL + "ngx_http_proxy_module.html#proxy_set_header",
)
def forwarded_not_overwritten(facts: Facts) -> Iterator[Evidence]:
    """Report proxied places without the two fields; one ``proxy_set_header`` removes those of outer levels."""
    for scope, directive in _proxied(_tree(facts)):
        sent = _sent_fields(scope)
        missing = [name for name in ("X-Forwarded-For", "X-Forwarded-Proto") if name.lower() not in sent]
        if missing:
            yield _at(directive, f"{_place(scope)}: {', '.join(missing)}")


@GROUP.register(
    "MKS-DEP-002",
    "warning",
    en=(
        "The address of the client is appended to a list that the client has begun.",
        "Write `$remote_addr` instead of `$proxy_add_x_forwarded_for`, unless a trusted proxy stands in front (`set_real_ip_from`).",
    ),
    ja=(
        "クライアントが書いたアドレスの一覧に、接続元のアドレスを追記しています。",
        "信頼できるプロキシが前段にない限り（`set_real_ip_from`）、`$proxy_add_x_forwarded_for` ではなく `$remote_addr` を使ってください。",
    ),
    link=_MANUAL + "ngx_http_proxy_module.html#var_proxy_add_x_forwarded_for",
)
def forwarded_appended(facts: Facts) -> Iterator[Evidence]:
    """Report appended lists where nginx is the outermost proxy."""
    tree = _tree(facts)
    if any(True for _ in tree.every("set_real_ip_from")):
        return
    for _, directive in tree.every("proxy_set_header"):
        if "$proxy_add_x_forwarded_for" in directive.args:
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-003",
    "warning",
    en=(
        "Other fields that name a client or target reach the application as the client wrote them.",
        'Clear `Forwarded` and the others that nothing sets: `proxy_set_header Forwarded "";`.',
    ),
    ja=(
        "クライアントや宛先を表すほかのヘッダーが、クライアントの書いたままアプリケーションに届きます。",
        '使わないヘッダーは `proxy_set_header Forwarded "";` のように消してください。',
    ),
    link="https://www.rfc-editor.org/rfc/rfc7239",
)
def other_forwarding_fields(facts: Facts) -> Iterator[Evidence]:
    """Report proxied places where ``Forwarded`` passes."""
    for scope, directive in _proxied(_tree(facts)):
        if "forwarded" not in _sent_fields(scope):
            yield _at(directive, f"{_place(scope)}: Forwarded")


@GROUP.register(
    "MKS-DEP-004",
    "warning",
    en=(
        "The application gets a host name that nginx has not checked.",
        "`proxy_set_header Host $host;` together with a list of names in `server_name`.",
    ),
    ja=(
        "nginx が検証していないホスト名がアプリケーションに渡ります。",
        "`server_name` に名前を列挙し、`proxy_set_header Host $host;` を使ってください。",
    ),
    link=_MANUAL + "ngx_http_core_module.html#var_host",
)
def unchecked_host(facts: Facts) -> Iterator[Evidence]:
    """Report ``$http_host``, and a proxied place that sends the name of the upstream."""
    for scope, directive in _proxied(_tree(facts)):
        host = _sent_fields(scope).get("host", "$proxy_host")
        if host in {"$http_host", "$proxy_host"}:
            yield _at(directive, f"{_place(scope)}: Host {host}")


@GROUP.register(
    "MKS-DEP-005",
    "error",
    en=("TLS before version 1.2 is allowed.", "`ssl_protocols TLSv1.2 TLSv1.3;`"),
    ja=(
        "TLS 1.2 より古いバージョンを許可しています。",
        "`ssl_protocols TLSv1.2 TLSv1.3;` を設定してください。",
    ),
    link=_RFC_TLS,
)
def old_tls(facts: Facts) -> Iterator[Evidence]:
    """Report old protocol versions (RFC 8996)."""
    for _, directive in _tree(facts).every("ssl_protocols"):
        if {"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"} & set(directive.args):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-006",
    "warning",
    en=(
        "Weak ciphers are allowed.",
        "Name AEAD ciphers with forward secrecy only, as Mozilla's intermediate profile does.",
    ),
    ja=(
        "弱い暗号スイートを許可しています。",
        "Mozilla の intermediate 設定のように、前方秘匿性のある AEAD だけを指定してください。",
    ),
    link=_RFC_TLS,
)
def weak_ciphers(facts: Facts) -> Iterator[Evidence]:
    """Report cipher lists that contain broken ones."""
    for _, directive in _tree(facts).every("ssl_ciphers"):
        found = _WEAK_CIPHERS.search(" ".join(directive.args))
        if found:
            yield _at(directive, found[0])


@GROUP.register(
    "MKS-DEP-007",
    "warning",
    en=(
        "Requests for unknown host names are answered by the first server.",
        "Add a `default_server` that refuses: `return 444;`, and `ssl_reject_handshake on;` for HTTPS.",
    ),
    ja=(
        "未知のホスト名へのリクエストに、最初の server が応答します。",
        "拒否する `default_server` を追加してください（`return 444;`、HTTPS では `ssl_reject_handshake on;`）。",
    ),
    link=_MANUAL + "server_names.html",
)
def no_refusing_default(facts: Facts) -> Iterator[Evidence]:
    """Report a configuration in which no default server refuses."""
    tree = _tree(facts)
    servers = list(_servers(tree))
    if servers and not _has_refusing_default(tree):
        yield _at(servers[0].block, "no default_server that refuses")


@GROUP.register(
    "MKS-DEP-008",
    "warning",
    en=(
        "A redirect repeats whatever host name the client has sent.",
        "Write the name of the site into the redirect.",
    ),
    ja=(
        "リダイレクト先に、クライアントが送ったホスト名をそのまま使っています。",
        "リダイレクト先にはサイトの名前を直接書いてください。",
    ),
    link="https://portswigger.net/web-security/host-header",
)
def redirect_repeats_host(facts: Facts) -> Iterator[Evidence]:
    """Report redirects to ``$host`` without a default server that refuses, and to ``$http_host``."""
    tree = _tree(facts)
    refusing = _has_refusing_default(tree)
    for _, directive in tree.every("return", "rewrite"):
        text = directive.text
        if "://$http_host" in text or ("://$host" in text and not refusing):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-009",
    "warning",
    en=(
        "A POST to plain HTTP is redirected by 301 or 302, so browsers send it again as GET without its body.",
        "Redirect other methods than GET and HEAD by 308.",
    ),
    ja=(
        "平文の HTTP への POST を301または302でリダイレクトしているため、ブラウザーは本文なしの GET として再送します。",
        "GET と HEAD 以外は308でリダイレクトしてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc9110#section-15.4.9",
)
def redirect_loses_body(facts: Facts) -> Iterator[Evidence]:
    """Report 301 and 302 to HTTPS where no condition beside it sends 307 or 308."""
    for scope, directive in _tree(facts).every("return"):
        if directive.args[:1] not in {("301",), ("302",)} or not _REDIRECT.search(directive.text):
            continue
        conditions = [inner for inner in scope.block.block or () if inner.name == "if"]
        kept = [
            each
            for inner in conditions
            for each in inner.block or ()
            if each.name == "return" and each.args[:1] in {("307",), ("308",)}
        ]
        if scope.block.name != "if" and not kept:
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-010",
    "error",
    en=(
        "An `add_header` takes all header fields of the outer level away here, security headers included.",
        "Set all fields at one level, or repeat (include) them here.",
    ),
    ja=(
        "ここで `add_header` を使っているため、外側の階層のヘッダーがセキュリティヘッダーも含めてすべて失われます。",
        "すべてのヘッダーを1つの階層で設定するか、ここでも繰り返して（include して）ください。",
    ),
    link=_MANUAL + "ngx_http_headers_module.html#add_header",
)
def lost_header_fields(facts: Facts) -> Iterator[Evidence]:
    """Report blocks whose own ``add_header`` hides security headers of outer ones."""
    for scope in _tree(facts).scopes("server", "location", "if"):
        own = scope.own("add_header")
        if not own:
            continue
        names = {each.args[0].lower() for each in own if each.args}
        outer = {
            each.args[0].lower() for each in Scope(scope.blocks[:-1]).effective("add_header") if each.args
        }
        lost = sorted((outer & _SECURITY_FIELDS) - names)
        if lost:
            yield _at(own[0], f"{_place(scope)}: {', '.join(lost)}")


@GROUP.register(
    "MKS-DEP-011",
    "note",
    en=("HSTS lasts less than 180 days.", "`max-age=63072000`, once HTTPS works."),
    ja=("HSTS の有効期間が180日未満です。", "HTTPS の動作を確認したら `max-age=63072000` にしてください。"),
    link="https://www.rfc-editor.org/rfc/rfc6797",
)
def short_hsts(facts: Facts) -> Iterator[Evidence]:
    """Report short lifetimes; as a note, since a new site begins so."""
    for _, directive in _tree(facts).every("add_header"):
        if directive.args[:1] and directive.args[0].lower() == "strict-transport-security":
            match = re.search(r"max-age=\"?(\d{1,12})", directive.text)
            if match and int(match[1]) < MONTHS_6:
                yield _at(directive)


@GROUP.register(
    "MKS-DEP-012",
    "warning",
    en=("A security header is missing on error pages.", "Add `always` to the `add_header`."),
    ja=("エラーページにセキュリティヘッダーが付きません。", "`add_header` に `always` を付けてください。"),
    link=_MANUAL + "ngx_http_headers_module.html#add_header",
)
def header_without_always(facts: Facts) -> Iterator[Evidence]:
    """Report security headers without ``always``."""
    for _, directive in _tree(facts).every("add_header"):
        if (
            directive.args[:1]
            and directive.args[0].lower() in _SECURITY_FIELDS
            and "always" not in directive.args
        ):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-013",
    "warning",
    en=(
        "The largest request body is not stated (nginx allows 1 MB), or not limited at all.",
        "Set `client_max_body_size` to the limit of the application.",
    ),
    ja=(
        "リクエスト本文の上限が指定されていない（nginx の既定値は1 MB）か、無制限です。",
        "`client_max_body_size` をアプリケーションの上限に合わせてください。",
    ),
    link=_MANUAL + "ngx_http_core_module.html#client_max_body_size",
)
def body_size(facts: Facts) -> Iterator[Evidence]:
    """Report proxied places without a limit."""
    for scope, directive in _proxied(_tree(facts)):
        value = scope.value("client_max_body_size")
        if value in {"", "0"}:
            yield _at(directive, f"{_place(scope)}: client_max_body_size {value or 'is not set'}")


@GROUP.register(
    "MKS-DEP-014",
    "note",
    en=("nginx tells its version to everybody.", "`server_tokens off;`"),
    ja=("nginx がバージョンを公開しています。", "`server_tokens off;` を設定してください。"),
    link=_MANUAL + "ngx_http_core_module.html#server_tokens",
)
def server_tokens(facts: Facts) -> Iterator[Evidence]:
    """Report servers with version banners."""
    for server in _servers(_tree(facts)):
        if server.value("server_tokens") != "off":
            yield _at(server.block, f"server_name {server.value('server_name')}")


@GROUP.register(
    "MKS-DEP-015",
    "error",
    en=(
        "Time limits are out of order: an inner server works on after the outer one has given up.",
        "nginx (`proxy_read_timeout`) > gunicorn (`timeout`) > database (`statement_timeout`).",
    ),
    ja=(
        "タイムアウトの順序が逆です。外側のサーバーが諦めた後も、内側のサーバーが処理を続けます。",
        "nginx（`proxy_read_timeout`）＞ gunicorn（`timeout`）＞ データベース（`statement_timeout`）の順にしてください。",
    ),
    link=_MANUAL + "ngx_http_proxy_module.html#proxy_read_timeout",
)
def time_limits(facts: Facts) -> Iterator[Evidence]:
    """Compare the limits of nginx, gunicorn and the database as far as they are known."""
    files = files_of(facts)
    servers = [(file, file.integer("timeout")) for file in files.gunicorn if not file.container]
    known = [(file, seconds) for file, seconds in servers if seconds]
    edge: list[tuple[Directive, float]] = []
    for scope, directive in _proxied(_tree(facts)):
        seconds = as_seconds(scope.value("proxy_read_timeout") or "60s")
        if seconds is not None:
            edge.append((directive, seconds))
    for file, limit in known:
        for directive, seconds in edge:
            if seconds <= limit:
                yield _at(directive, f"proxy_read_timeout {seconds:g} s <= gunicorn timeout {limit:g} s")
        statement, where = _statement_limit(facts)
        if statement is not None and limit <= statement:
            text = f"gunicorn timeout {limit:g} s <= {where} {statement:g} s"
            yield Evidence(text=text, key="timeout", file=file.path, line=file.lines.get("timeout", 0))


def _statement_limit(facts: Facts) -> tuple[float | None, str]:
    for file in files_of(facts).postgresql:
        seconds = as_seconds(file.values.get("statement_timeout"))
        if seconds:
            return seconds, "statement_timeout"
    application = facts.application
    options = application.config.get("SQLALCHEMY_ENGINE_OPTIONS") if application else None
    match = re.search(r"statement_timeout=(\d{1,9})", str(options)) if options else None
    if match:
        return int(match[1]) / 1000, "statement_timeout"
    if facts.settings is not None and "MKS_DB_STATEMENT_TIMEOUT" in facts.settings.variables:
        return facts.settings.hardening.db.statement_timeout, "MKS_DB_STATEMENT_TIMEOUT"
    return None, ""


@GROUP.register(
    "MKS-DEP-016",
    "note",
    en=(
        "Slow clients hold connections for a minute or more.",
        "`client_header_timeout 10s; client_body_timeout 15s;`",
    ),
    ja=(
        "遅いクライアントが接続を1分以上占有できます。",
        "`client_header_timeout 10s; client_body_timeout 15s;` を設定してください。",
    ),
    link=_MANUAL + "ngx_http_core_module.html#client_body_timeout",
)
def slow_clients(facts: Facts) -> Iterator[Evidence]:
    """Report servers with long limits for the request itself."""
    for server in _servers(_tree(facts)):
        if _refuses(server):
            continue
        for name in ("client_header_timeout", "client_body_timeout"):
            seconds = as_seconds(server.value(name) or "60s")
            if seconds is not None and seconds > 30:
                yield _at(server.block, f"{name} {seconds:g} s")


@GROUP.register(
    "MKS-DEP-017",
    "warning",
    en=(
        "Nothing limits how many requests or connections one client may have.",
        "Add `limit_req` and `limit_conn` as a first, coarse limit.",
    ),
    ja=(
        "1つのクライアントのリクエスト数と接続数を制限していません。",
        "最初の大まかな制限として `limit_req` と `limit_conn` を追加してください。",
    ),
    link=_MANUAL + "ngx_http_limit_req_module.html",
)
def no_limits(facts: Facts) -> Iterator[Evidence]:
    """Report proxied places without limits."""
    for scope, directive in _proxied(_tree(facts)):
        if not scope.effective("limit_req") and not scope.effective("limit_conn"):
            yield _at(directive, _place(scope))


@GROUP.register(
    "MKS-DEP-018",
    "warning",
    en=(
        "Hidden files below a served folder are served too (`.git`, `.env`).",
        "`location ~ /\\.(?!well-known/) { return 404; }`",
    ),
    ja=(
        "公開フォルダー内の隠しファイル（`.git`、`.env`）も配信されます。",
        "`location ~ /\\.(?!well-known/) { return 404; }` を追加してください。",
    ),
    link="https://owasp.org/www-project-web-security-testing-guide/",
)
def hidden_files(facts: Facts) -> Iterator[Evidence]:
    """Report servers with files and without a rule for hidden ones."""
    for server in _servers(_tree(facts)):
        inner = [each for each in server.block.block or () if each.name == "location"]
        rule = any("/\\." in each.text or "/[.]" in each.text for each in inner)
        serving = [
            each for each in inner
            if each.block and "well-known" not in each.text and any(part.name in {"root", "alias"} for part in each.block)
            and not any(part.name == "internal" for part in each.block)
        ]  # fmt: skip
        if serving and not rule:
            yield _at(serving[0])


@GROUP.register(
    "MKS-DEP-019",
    "note",
    en=(
        "OCSP stapling is on, but Let's Encrypt ended its responders in 2025: nginx only logs warnings.",
        "Remove `ssl_stapling`, unless your authority still has OCSP.",
    ),
    ja=(
        "OCSP ステープリングが有効ですが、Let's Encrypt は2025年に OCSP を終了したため、nginx は警告を記録するだけです。",
        "認証局が OCSP を提供していなければ `ssl_stapling` を削除してください。",
    ),
    link=_MANUAL + "ngx_http_ssl_module.html#ssl_stapling",
)
def dead_stapling(facts: Facts) -> Iterator[Evidence]:
    """Report stapling with certificates of Let's Encrypt."""
    for scope, directive in _tree(facts).every("ssl_stapling"):
        if directive.args == ("on",) and "letsencrypt" in scope.value("ssl_certificate"):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-020",
    "note",
    en=(
        "`X-XSS-Protection` is sent: browsers have removed the filter, and old ones can be attacked through it.",
        "Remove the field; a Content-Security-Policy protects.",
    ),
    ja=(
        "`X-XSS-Protection` を送信しています。ブラウザーはこの機能を廃止しており、古いブラウザーでは攻撃に悪用されます。",
        "このヘッダーを削除し、Content-Security-Policy で保護してください。",
    ),
    link="https://cheatsheetseries.owasp.org/cheatsheets/HTTP_Headers_Cheat_Sheet.html",
)
def xss_protection(facts: Facts) -> Iterator[Evidence]:
    """Report the obsolete field, unless it switches the filter off."""
    for _, directive in _tree(facts).every("add_header"):
        if (
            directive.args[:1]
            and directive.args[0].lower() == "x-xss-protection"
            and directive.args[1:2] != ("0",)
        ):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-021",
    "warning",
    en=(
        "Query strings are logged: tokens of mails and what people search for.",
        "Use a `log_format` with `$uri` instead of `$request`, `$request_uri` and `$args`.",
    ),
    ja=(
        "クエリー文字列がログに残ります。メールのトークンや検索語が含まれます。",
        "`log_format` で `$request`、`$request_uri`、`$args` ではなく `$uri` を使ってください。",
    ),
    link="https://cheatsheetseries.owasp.org/cheatsheets/Logging_Cheat_Sheet.html",
)
def logged_queries(facts: Facts) -> Iterator[Evidence]:
    """Report access logs whose format contains the query; the default one does."""
    tree = _tree(facts)
    formats = {each.args[0]: " ".join(each.args[1:]) for _, each in tree.every("log_format") if each.args}
    formats.setdefault("combined", "$request $http_referer")
    for _, directive in tree.every("access_log"):
        if directive.args[:1] == ("off",) or not directive.args:
            continue
        name = directive.args[1] if len(directive.args) > 1 and "=" not in directive.args[1] else "combined"
        if re.search(
            r"\$(?:request|request_uri|args|query_string|http_referer)(?![a-z_])", formats.get(name, "")
        ):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-022",
    "warning",
    en=(
        "The application closes idle connections before nginx does, so a request can meet a closed one.",
        "gunicorn's `keepalive` longer than `keepalive_timeout` of the upstream.",
    ),
    ja=(
        "アプリケーションが nginx より先に待機中の接続を閉じるため、閉じた接続にリクエストが送られることがあります。",
        "gunicorn の `keepalive` を upstream の `keepalive_timeout` より長くしてください。",
    ),
    link=_MANUAL + "ngx_http_upstream_module.html#keepalive_timeout",
)
def keepalive_order(facts: Facts) -> Iterator[Evidence]:
    """Compare both where nginx keeps connections."""
    for upstream in _tree(facts).scopes("upstream"):
        idle = as_seconds(upstream.value("keepalive_timeout") or "60s")
        for file in files_of(facts).gunicorn:
            keepalive = file.values.get("keepalive")
            if not upstream.own("keepalive") or file.container or "keepalive" not in file.values:
                continue
            if idle is not None and isinstance(keepalive, (int, float)) and keepalive <= idle:
                text = f"keepalive {keepalive:g} s <= keepalive_timeout {idle:g} s"
                yield Evidence(
                    text=text, key="keepalive", file=file.path, line=file.lines.get("keepalive", 0)
                )


@GROUP.register(
    "MKS-DEP-023",
    "warning",
    en=("Status pages or health details are open to everybody.", "`allow 127.0.0.1; deny all;`"),
    ja=(
        "状態ページやヘルスチェックの詳細を誰でも閲覧できます。",
        "`allow 127.0.0.1; deny all;` を設定してください。",
    ),
    link=_MANUAL + "ngx_http_access_module.html",
)
def open_status(facts: Facts) -> Iterator[Evidence]:
    """Report status locations without ``deny``."""
    for scope in _tree(facts).scopes("location"):
        status = scope.own("stub_status") or re.search(
            r"/(?:metrics|server-status|nginx.status|readyz)\b", scope.block.text
        )
        if status and not scope.effective("deny") and not scope.own("internal") and not scope.own("return"):
            yield _at(scope.block)


@GROUP.register(
    "MKS-DEP-024",
    "error",
    en=(
        "Files outside the folder can be read: `location` without a final slash and `alias` with one.",
        "End both with a slash.",
    ),
    ja=(
        "`location` の末尾にスラッシュがなく `alias` にはあるため、フォルダーの外のファイルを読み取れます。",
        "両方の末尾にスラッシュを付けてください。",
    ),
    link=_MANUAL + "ngx_http_core_module.html#alias",
)
def alias_traversal(facts: Facts) -> Iterator[Evidence]:
    """Report the pair that lets ``/static../`` climb."""
    for scope in _tree(facts).scopes("location"):
        args = [arg for arg in scope.block.args if arg != "^~"]
        alias = scope.own("alias")
        if alias and len(args) == 1 and not args[0].endswith("/") and alias[-1].text.endswith("/"):
            yield _at(alias[-1], f"{scope.block.text}: {alias[-1].text}")


@GROUP.register(
    "MKS-DEP-025",
    "warning",
    en=("Folders are listed.", "`autoindex off;`"),
    ja=("フォルダーの一覧が表示されます。", "`autoindex off;` を設定してください。"),
    link=_MANUAL + "ngx_http_autoindex_module.html",
)
def listed_folders(facts: Facts) -> Iterator[Evidence]:
    """Report ``autoindex on``."""
    for _, directive in _tree(facts).every("autoindex"):
        if directive.args == ("on",):
            yield _at(directive)


@GROUP.register(
    "MKS-DEP-026",
    "error",
    en=(
        "The edge takes the client's address from a field that every peer may send.",
        "Name the networks of the proxy in front (`set_real_ip_from`, or `proxies_in_front` in deploy.toml).",
    ),
    ja=(
        "どの接続元が送ったヘッダーからも、クライアントのアドレスを決めています。",
        "前段のプロキシのネットワークだけを指定してください（`set_real_ip_from`、deploy.toml では `proxies_in_front`）。",
    ),
    link=_MANUAL + "ngx_http_realip_module.html",
)
def everyone_in_front(facts: Facts) -> Iterator[Evidence]:
    """Report networks of everybody in front of nginx."""
    for _, directive in _tree(facts).every("set_real_ip_from"):
        if trusts_everyone(directive.args):
            yield _at(directive)
    for path, tables in files_of(facts).deploy:
        edge = tables.get("edge")
        given: object = (
            cast("dict[str, object]", edge).get("proxies_in_front") if isinstance(edge, dict) else None
        )
        for network in trusts_everyone(as_list(given)):
            yield Evidence(text=f"proxies_in_front = {network}", key="proxies_in_front", file=path)


@GROUP.register(
    "MKS-DEP-030",
    "error",
    en=(
        "gunicorn listens on every address, so clients can go around nginx.",
        "Bind to a Unix socket or to 127.0.0.1.",
    ),
    ja=(
        "gunicorn がすべてのアドレスで待ち受けているため、nginx を迂回して接続できます。",
        "Unix ソケットか 127.0.0.1 で待ち受けてください。",
    ),
    link="https://docs.gunicorn.org/en/stable/deploy.html",
)
def public_bind(facts: Facts) -> Iterator[Evidence]:
    """Report public addresses outside containers, and of units that start a server."""
    for file in files_of(facts).gunicorn:
        for bind in file.texts("bind"):
            if is_public_bind(bind) and not file.container and "certfile" not in file.lines:
                yield Evidence(text=f"bind {bind}", key=bind, file=file.path, line=file.lines.get("bind", 0))
    for unit in files_of(facts).units:
        match = re.search(r"(?:--bind|-b|--host)[= ](\S+)", unit.command)
        if match and is_public_bind(match[1]):
            yield Evidence(text=match[0], key=match[0], file=unit.path, line=unit.values("ExecStart")[-1][1])


@GROUP.register(
    "MKS-DEP-031",
    "error",
    en=(
        "The server believes forwarding headers of every peer.",
        '`forwarded_allow_ips = ""` and let one place decide (`MKS_TRUSTED_PROXIES`), or name the proxy\'s address.',
    ),
    ja=(
        "サーバーがすべての接続元の転送用ヘッダーを信頼しています。",
        '`forwarded_allow_ips = ""` として判断を1か所（`MKS_TRUSTED_PROXIES`）に任せるか、プロキシのアドレスを指定してください。',
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#forwarded-allow-ips",
)
def server_trusts_everyone(facts: Facts) -> Iterator[Evidence]:
    """Report ``*`` in gunicorn's file and on command lines."""
    for file in files_of(facts).gunicorn:
        if any("*" in text or "0.0.0.0/0" in text for text in file.texts("forwarded_allow_ips")):
            line = file.lines.get("forwarded_allow_ips", 0)
            yield Evidence(
                text="forwarded_allow_ips = *", key="forwarded_allow_ips", file=file.path, line=line
            )
    for unit in files_of(facts).units:
        match = re.search(r"--forwarded-allow-ips[= ]['\"]?(?:\*|0\.0\.0\.0/0)", unit.command)
        if match:
            yield Evidence(
                text=match[0], key="ExecStart", file=unit.path, line=unit.values("ExecStart")[-1][1]
            )


@GROUP.register(
    "MKS-DEP-032",
    "error",
    en=("gunicorn runs with an option for development.", "Remove `reload`, `spew` and debug levels."),
    ja=(
        "gunicorn が開発用のオプションで動いています。",
        "`reload`、`spew`、デバッグのログレベルを削除してください。",
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#reload",
)
def development_options(facts: Facts) -> Iterator[Evidence]:
    """Report options that belong to a laptop."""
    for file in files_of(facts).gunicorn:
        for name in ("reload", "spew"):
            if file.values.get(name) is True:
                yield Evidence(text=f"{name} = True", key=name, file=file.path, line=file.lines.get(name, 0))
        if "debug" in file.texts("loglevel"):
            yield Evidence(
                text="loglevel = debug", key="loglevel", file=file.path, line=file.lines.get("loglevel", 0)
            )


@GROUP.register(
    "MKS-DEP-033",
    "warning",
    en=(
        "gunicorn's access log contains query strings or the pages that users came from.",
        "Use `gunicorn_config` of this package, or `%(U)s` instead of `%(r)s`, `%(q)s` and `%(f)s`.",
    ),
    ja=(
        "gunicorn のアクセスログにクエリー文字列または参照元が残ります。",
        "本パッケージの `gunicorn_config` を使うか、`%(r)s`、`%(q)s`、`%(f)s` の代わりに `%(U)s` を使ってください。",
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#access-log-format",
)
def gunicorn_access_log(facts: Facts) -> Iterator[Evidence]:
    """Report formats with the query, also gunicorn's default."""
    for file in files_of(facts).gunicorn:
        if file.ours or not file.texts("accesslog"):
            continue
        form = (file.texts("access_log_format") or ["%(r)s"])[0]
        match = re.search(r"%\((?:r|q|f)\)s", form)
        if match:
            line = file.lines.get("access_log_format", file.lines.get("accesslog", 0))
            yield Evidence(text=match[0], key="access_log_format", file=file.path, line=line)


@GROUP.register(
    "MKS-DEP-034",
    "warning",
    en=(
        "A worker that hangs is never replaced, or only after more than five minutes.",
        "Set gunicorn's `timeout` between the statement limit and nginx's.",
    ),
    ja=(
        "停止したワーカーが置き換えられないか、置き換えまで5分を超えます。",
        "gunicorn の `timeout` を SQL の制限時間と nginx の制限時間の間に設定してください。",
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#timeout",
)
def worker_timeout(facts: Facts) -> Iterator[Evidence]:
    """Report limits of 0 and above 300 seconds."""
    for file in files_of(facts).gunicorn:
        seconds = file.integer("timeout")
        if seconds is not None and not 0 < seconds <= 300:
            yield Evidence(
                text=f"timeout = {seconds}", key="timeout", file=file.path, line=file.lines["timeout"]
            )


@GROUP.register(
    "MKS-DEP-035",
    "warning",
    en=(
        "gunicorn gets its TLS version from an option that it ignores.",
        "Build a context in the `ssl_context` hook, or end TLS in nginx.",
    ),
    ja=(
        "gunicorn の TLS バージョンを、無視されるオプションで指定しています。",
        "`ssl_context` フックで設定するか、TLS を nginx で終端してください。",
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#ssl-version",
)
def ignored_tls_option(facts: Facts) -> Iterator[Evidence]:
    """Report ``ssl_version``, which gunicorn has ignored since 21."""
    for file in files_of(facts).gunicorn:
        if "ssl_version" in file.lines:
            yield Evidence(
                text="ssl_version", key="ssl_version", file=file.path, line=file.lines["ssl_version"]
            )


@GROUP.register(
    "MKS-DEP-036",
    "error",
    en=(
        "One gunicorn master has a certificate and a port for plain HTTP: every address it binds speaks TLS.",
        "Run a second master for the redirect, or let nginx do both.",
    ),
    ja=(
        "1つの gunicorn に証明書と平文の HTTP 用ポートを設定していますが、待ち受けるすべてのアドレスが TLS になります。",
        "リダイレクト用に別の gunicorn を動かすか、両方を nginx に任せてください。",
    ),
    link="https://docs.gunicorn.org/en/stable/settings.html#certfile",
)
def one_master_for_both(facts: Facts) -> Iterator[Evidence]:
    """Report a certificate together with port 80."""
    for file in files_of(facts).gunicorn:
        if "certfile" in file.lines and any(bind.endswith((":80", ":8080")) for bind in file.texts("bind")):
            yield Evidence(
                text="certfile and port 80", key="certfile", file=file.path, line=file.lines["certfile"]
            )
