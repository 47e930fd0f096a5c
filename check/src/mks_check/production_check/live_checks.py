"""Checks of a live site, judged by its responses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from mks_check.production_check.check_definition import CheckGroup
from mks_check.production_check.facts import Facts
from mks_check.production_check.finding import Evidence
from mks_check.production_check.http_response import HttpResponse
from mks_check.production_check.live_facts import LiveFacts
from mks_check.production_check.values import MONTHS_6

__all__ = ["GROUP"]

GROUP: Final = CheckGroup("live")

_OWASP: Final = "https://cheatsheetseries.owasp.org/cheatsheets/"
_HEADERS: Final = _OWASP + "HTTP_Headers_Cheat_Sheet.html"
_SESSION: Final = re.compile(r"sess|sid$|auth|token|jwt|remember", re.IGNORECASE)
_PAGES: Final = ("page", "missing", "malformed", "static", "too large")
_DETAILS: Final = re.compile(
    r'"?(?:redis|database|postgres\w*|sqlalchemy|version|hostname)"?\s*[:=]', re.IGNORECASE
)
_TRACEBACK: Final = re.compile(
    r"Traceback \(most recent call last\)|Werkzeug Debugger|You're seeing this error because you have|<title>DisallowedHost"
)
_PROVEN: Final = {
    "git": re.compile(r"\Aref: refs/|\A[0-9a-f]{40}\s*\Z"),
    "env": re.compile(r"(?m)^[A-Z][A-Z0-9_]{2,40}\s*=\s*\S"),
    "map": re.compile(r'\A\s*\{[^<]{0,2000}"(?:mappings|sources)"'),
}


def _live(facts: Facts) -> LiveFacts:
    assert facts.live is not None  # noqa: S101 - the runner has looked at CheckDefinition.reads
    return facts.live


def _answered(live: LiveFacts, *names: str) -> Iterator[tuple[str, HttpResponse]]:
    for name in names:
        response = live.responses.get(name)
        if response is not None and response.status:
            yield name, response


def _pages(live: LiveFacts) -> Iterator[tuple[str, HttpResponse]]:
    yield from _answered(live, *_PAGES, *(name for name in live.responses if name.startswith("page hop")))


def _lacking(live: LiveFacts, field: str) -> Iterator[Evidence]:
    """Yield one evidence that names all kinds of responses without the field."""
    names = [f"{name} ({response.status})" for name, response in _pages(live) if not response.field(field)]
    if names:
        yield Evidence(text=f"{field} is missing on: {', '.join(names)}", key=field)


@GROUP.register(
    "MKS-WEB-001",
    "error",
    en=(
        "The certificate is invalid for this host.",
        "Install the whole chain for this name; `mks-deploy certificate` does.",
    ),
    ja=("証明書がこのホストに対して無効です。", "この名前に対する証明書チェーン全体を設定してください。"),
    link="https://www.rfc-editor.org/rfc/rfc9525",
)
def invalid_certificate(facts: Facts) -> Iterator[Evidence]:
    """Report what the verification says."""
    tls = _live(facts).tls
    if tls is not None and tls.error:
        yield Evidence(text=tls.error, key="certificate")


@GROUP.register(
    "MKS-WEB-002",
    "warning",
    en=(
        "Less than a third of the certificate's lifetime is left: the renewal does not run.",
        "Look at the timer and the last run of the renewal.",
    ),
    ja=(
        "証明書の残り期間が有効期間の3分の1を切っています。更新が動いていません。",
        "更新のタイマーと最後の実行結果を確認してください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc9773",
)
def old_certificate(facts: Facts) -> Iterator[Evidence]:
    """Report certificates that should have been renewed."""
    live = _live(facts)
    if live.tls is not None and live.tls.not_after:
        whole, left = live.tls.not_after - live.tls.not_before, live.tls.not_after - live.now
        if whole > 0 and left < whole / 3:
            yield Evidence(
                text=f"{left / 86_400:.0f} of {whole / 86_400:.0f} days are left", key="certificate"
            )


@GROUP.register(
    "MKS-WEB-003",
    "error",
    en=("The server accepts TLS before version 1.2.", "`ssl_protocols TLSv1.2 TLSv1.3;`"),
    ja=(
        "サーバーが TLS 1.2 より古いバージョンを受け付けます。",
        "`ssl_protocols TLSv1.2 TLSv1.3;` を設定してください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc8996",
)
def old_tls(facts: Facts) -> Iterator[Evidence]:
    """Report old versions that were accepted."""
    tls = _live(facts).tls
    if tls is not None and tls.old_versions:
        yield Evidence(text=", ".join(tls.old_versions), key="tls")


@GROUP.register(
    "MKS-WEB-004",
    "error",
    en=(
        "Plain HTTP is not redirected to HTTPS.",
        "Redirect every request on port 80 to `https://` with the name of the site.",
    ),
    ja=(
        "平文の HTTP が HTTPS にリダイレクトされません。",
        "80番ポートのすべてのリクエストを、サイト名の `https://` にリダイレクトしてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc6797#section-7.2",
)
def no_redirect(facts: Facts) -> Iterator[Evidence]:
    """Report pages over plain HTTP, and a check of such an address."""
    live = _live(facts)
    for _, response in _answered(live, "plain"):
        if not response.field("location").startswith("https://") and response.status not in {
            403,
            404,
            421,
            426,
        }:
            yield Evidence(text=f"http: {response.status} {response.field('location')}", key="plain")
    if live.url.startswith("http://") and urlsplit(live.url).hostname not in {
        "localhost",
        "127.0.0.1",
        "::1",
    }:
        for _, response in _answered(live, "page"):
            if response.status < 300:
                yield Evidence(text=f"http: {response.status}", key="plain")


@GROUP.register(
    "MKS-WEB-005",
    "warning",
    en=("A redirect leads to another host, or takes several hops.", "Redirect once, to the final address."),
    ja=(
        "リダイレクトが別のホストに向かうか、複数回続きます。",
        "最終的なアドレスへ1回でリダイレクトしてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc9110#section-15.4",
)
def odd_redirects(facts: Facts) -> Iterator[Evidence]:
    """Report redirects to elsewhere, which are not followed, and chains."""
    live = _live(facts)
    own = urlsplit(live.url).hostname or ""
    for name, response in _answered(live, "page", "plain"):
        try:
            host = urlsplit(response.field("location")).hostname
        except ValueError:
            host = response.field("location")
        if 300 <= response.status < 400 and host and host.lower() != own.lower():
            yield Evidence(text=f"{name}: {response.field('location')}", key=name)
    hops = [name for name in live.responses if name.startswith("page hop")]
    if len(hops) > 1:
        yield Evidence(text=f"{len(hops)} hops", key="hops")


@GROUP.register(
    "MKS-WEB-006",
    "error",
    en=(
        "A foreign host name is answered or repeated: caches and mails can be poisoned.",
        "Refuse unknown names in nginx (`return 444;`) and in the application (`MKS_ALLOWED_HOSTS`).",
    ),
    ja=(
        "無関係なホスト名に応答しているか、その名前を使っています。キャッシュやメールを汚染される恐れがあります。",
        "nginx（`return 444;`）とアプリケーション（`MKS_ALLOWED_HOSTS`）で未知の名前を拒否してください。",
    ),
    link="https://portswigger.net/web-security/host-header",
)
def foreign_host(facts: Facts) -> Iterator[Evidence]:
    """Report answers to a marker in ``Host``."""
    live = _live(facts)
    for name, response in _answered(live, "host", "plain host"):
        if live.marker in response.field("location") or live.marker in response.body:
            yield Evidence(text=f"{name}: the name is repeated ({response.status})", key=name)
        elif response.status < 300:
            yield Evidence(text=f"{name}: {response.status}", key=name)


@GROUP.register(
    "MKS-WEB-007",
    "error",
    en=(
        "Forwarding headers of clients are believed.",
        "Let nginx overwrite them, and trust no other peer (`MKS_TRUSTED_PROXIES`).",
    ),
    ja=(
        "クライアントが送った転送用ヘッダーを信頼しています。",
        "nginx で上書きし、ほかの接続元は信頼しないでください（`MKS_TRUSTED_PROXIES`）。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc7239#section-8.1",
)
def spoofed_believed(facts: Facts) -> Iterator[Evidence]:
    """Report markers that come back, and a scheme that changes the response."""
    live = _live(facts)
    for name, response in _answered(live, "spoofed", "spoofed missing"):
        texts = (response.body, *(value for _, value in response.fields))
        if any(live.marker in text or "198.51.100.77" in text for text in texts):
            yield Evidence(text=f"{name}: the marker comes back", key=name)
    for _, response in _answered(live, "spoofed scheme"):
        usual = live.responses.get("page hop 0", live.responses.get("page"))
        if (
            usual is not None
            and usual.status
            and 300 <= response.status < 400
            and not 300 <= usual.status < 400
        ):
            yield Evidence(
                text=f"X-Forwarded-Proto changes {usual.status} to {response.status}", key="scheme"
            )


@GROUP.register(
    "MKS-WEB-008",
    "warning",
    en=(
        "HSTS is missing on some responses, or shorter than 180 days.",
        "Set `Strict-Transport-Security: max-age=63072000; includeSubDomains` on every response.",
    ),
    ja=(
        "一部のレスポンスに HSTS がないか、180日未満です。",
        "すべてのレスポンスに `Strict-Transport-Security: max-age=63072000; includeSubDomains` を設定してください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc6797",
)
def hsts(facts: Facts) -> Iterator[Evidence]:
    """Report responses over TLS without it; a short time is a note, as a new site begins so."""
    live = _live(facts)
    if live.tls is None:
        return
    yield from _lacking(live, "strict-transport-security")
    for name, response in _answered(live, "page"):
        value = response.field("strict-transport-security")
        match = re.search(r"max-age=\"?(\d{1,12})", value, re.IGNORECASE)
        if value and (match is None or int(match[1]) < MONTHS_6):
            young = match is not None and int(match[1]) > 0
            yield Evidence(text=f"{name}: {value}", key="max-age", level="note" if young else None)


@GROUP.register(
    "MKS-WEB-009",
    "warning",
    en=(
        "Some responses have no Content-Security-Policy.",
        "Set it on every response, error pages and files included.",
    ),
    ja=(
        "一部のレスポンスに Content-Security-Policy がありません。",
        "エラーページやファイルも含め、すべてのレスポンスに設定してください。",
    ),
    link="https://www.w3.org/TR/CSP3/",
)
def csp(facts: Facts) -> Iterator[Evidence]:
    """Report responses without it."""
    yield from _lacking(_live(facts), "content-security-policy")


@GROUP.register(
    "MKS-WEB-010",
    "warning",
    en=(
        "The Content-Security-Policy allows inline scripts or `eval`, so it does not stop injected scripts.",
        "Use nonces (`ContentSecurityPolicy(nonce=True)`) instead of `'unsafe-inline'`.",
    ),
    ja=(
        "Content-Security-Policy がインラインスクリプトか `eval` を許可しており、注入されたスクリプトを防げません。",
        "`'unsafe-inline'` の代わりに nonce（`ContentSecurityPolicy(nonce=True)`）を使ってください。",
    ),
    link="https://www.w3.org/TR/CSP3/",
)
def unsafe_csp(facts: Facts) -> Iterator[Evidence]:
    """Report unsafe sources of scripts; a nonce or hash switches ``'unsafe-inline'`` off."""
    for name, response in _answered(_live(facts), "page"):
        for directive in response.field("content-security-policy").lower().split(";"):
            words = directive.split()
            if not words or words[0] not in {"script-src", "default-src"}:
                continue
            guarded = any(word.startswith(("'nonce-", "'sha256-", "'sha384-", "'sha512-")) for word in words)
            unsafe = [
                word
                for word in words[1:]
                if word == "'unsafe-eval'" or (word == "'unsafe-inline'" and not guarded)
            ]
            if unsafe or "*" in words[1:]:
                yield Evidence(text=f"{name}: {directive.strip()}", key=words[0])


@GROUP.register(
    "MKS-WEB-011",
    "warning",
    en=(
        "Browsers may guess the type of some responses.",
        "`X-Content-Type-Options: nosniff` on every response.",
    ),
    ja=(
        "一部のレスポンスで、ブラウザーが種類を推測することがあります。",
        "すべてのレスポンスに `X-Content-Type-Options: nosniff` を設定してください。",
    ),
    link=_HEADERS,
)
def nosniff(facts: Facts) -> Iterator[Evidence]:
    """Report responses without it."""
    yield from _lacking(_live(facts), "x-content-type-options")


@GROUP.register(
    "MKS-WEB-012",
    "warning",
    en=(
        "Other sites may show this one in a frame.",
        "`frame-ancestors 'none'` in the policy, or `X-Frame-Options: DENY`.",
    ),
    ja=(
        "他サイトがこのサイトをフレーム内に表示できます。",
        "ポリシーに `frame-ancestors 'none'` を加えるか、`X-Frame-Options: DENY` を設定してください。",
    ),
    link=_OWASP + "Clickjacking_Defense_Cheat_Sheet.html",
)
def framing(facts: Facts) -> Iterator[Evidence]:
    """Report pages that may be framed."""
    for name, response in _answered(_live(facts), "page", "missing"):
        if "frame-ancestors" not in response.field("content-security-policy") and not response.field(
            "x-frame-options"
        ):
            yield Evidence(text=f"{name} ({response.status})", key=name)


@GROUP.register(
    "MKS-WEB-013",
    "warning",
    en=(
        "Other sites get the whole address of pages that link to them.",
        "`Referrer-Policy: strict-origin-when-cross-origin` on every response.",
    ),
    ja=(
        "リンク先のサイトに、ページのアドレス全体が送られます。",
        "すべてのレスポンスに `Referrer-Policy: strict-origin-when-cross-origin` を設定してください。",
    ),
    link=_HEADERS,
)
def referrer(facts: Facts) -> Iterator[Evidence]:
    """Report responses without it."""
    yield from _lacking(_live(facts), "referrer-policy")


@GROUP.register(
    "MKS-WEB-014",
    "note",
    en=(
        "Pages may use camera, microphone and position, and so may scripts injected into them.",
        "`Permissions-Policy: camera=(), microphone=(), geolocation=()`",
    ),
    ja=(
        "ページがカメラ、マイク、位置情報を利用できます。注入されたスクリプトも同じです。",
        "`Permissions-Policy: camera=(), microphone=(), geolocation=()` を設定してください。",
    ),
    link=_HEADERS,
)
def permissions(facts: Facts) -> Iterator[Evidence]:
    """Report the page without it."""
    for name, response in _answered(_live(facts), "page"):
        if response.status < 300 and not response.field("permissions-policy"):
            yield Evidence(text=name, key=name)


@GROUP.register(
    "MKS-WEB-015",
    "error",
    en=("A cookie is also sent over plain HTTP.", "Set `Secure`; the name prefix `__Host-` enforces it."),
    ja=(
        "Cookie が平文の HTTP でも送信されます。",
        "`Secure` を設定してください。名前の接頭辞 `__Host-` で強制できます。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc6265#section-4.1.2.5",
)
def insecure_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies without Secure on a site with TLS."""
    live = _live(facts)
    for _, response in _pages(live):
        for cookie in response.cookies:
            if live.tls is not None and "secure" not in cookie.attributes:
                yield Evidence(text=cookie.name, key=cookie.name)


@GROUP.register(
    "MKS-WEB-016",
    "error",
    en=("Scripts can read a session cookie.", "Set `HttpOnly`."),
    ja=("スクリプトからセッションの Cookie を読み取れます。", "`HttpOnly` を設定してください。"),
    link="https://www.rfc-editor.org/rfc/rfc6265#section-4.1.2.6",
)
def readable_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies with the name of a session; CSRF tokens may be readable."""
    for _, response in _pages(_live(facts)):
        for cookie in response.cookies:
            session = _SESSION.search(cookie.name) and not re.search(r"csrf|xsrf", cookie.name, re.IGNORECASE)
            if session and "httponly" not in cookie.attributes:
                yield Evidence(text=cookie.name, key=cookie.name)


@GROUP.register(
    "MKS-WEB-017",
    "warning",
    en=(
        "A cookie is sent with requests of other sites, or leaves that to the browser.",
        "Set `SameSite=Lax` or `Strict`.",
    ),
    ja=(
        "Cookie が他サイトからのリクエストにも送信されるか、ブラウザー任せになっています。",
        "`SameSite=Lax` か `Strict` を設定してください。",
    ),
    link="https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/",
)
def cross_site_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies without SameSite."""
    for _, response in _pages(_live(facts)):
        for cookie in response.cookies:
            if cookie.same_site not in {"lax", "strict"}:
                yield Evidence(text=cookie.name, key=cookie.name)


@GROUP.register(
    "MKS-WEB-018",
    "error",
    en=(
        "Any origin may read responses with the user's cookies.",
        "List the allowed origins; never repeat `Origin`.",
    ),
    ja=(
        "任意のオリジンから、利用者の Cookie を使ったレスポンスを読み取れます。",
        "許可するオリジンを列挙し、`Origin` をそのまま返さないでください。",
    ),
    link="https://portswigger.net/web-security/cors",
)
def cors_with_credentials(facts: Facts) -> Iterator[Evidence]:
    """Report reflected origins together with credentials."""
    for name, response in _reflecting(facts):
        if response.field("access-control-allow-credentials").lower() == "true":
            yield Evidence(text=f"{name}: {response.field('access-control-allow-origin')}", key=name)


@GROUP.register(
    "MKS-WEB-019",
    "warning",
    en=("Any origin may read responses.", "List the allowed origins, unless everything here is public."),
    ja=(
        "任意のオリジンからレスポンスを読み取れます。",
        "すべて公開情報でない限り、許可するオリジンを列挙してください。",
    ),
    link="https://portswigger.net/web-security/cors",
)
def cors(facts: Facts) -> Iterator[Evidence]:
    """Report reflected origins without credentials."""
    for name, response in _reflecting(facts):
        if response.field("access-control-allow-credentials").lower() != "true":
            yield Evidence(text=f"{name}: {response.field('access-control-allow-origin')}", key=name)


def _reflecting(facts: Facts) -> Iterator[tuple[str, HttpResponse]]:
    live = _live(facts)
    for name, response in _answered(live, "cors", "cors null"):
        allowed = response.field("access-control-allow-origin")
        if allowed in {"*", "null", f"https://{live.marker}"}:
            yield name, response


@GROUP.register(
    "MKS-WEB-020",
    "error",
    en=(
        "A response that sets a cookie may be stored and served to others.",
        "`Cache-Control: no-store` (or `private`) wherever a cookie is set.",
    ),
    ja=(
        "Cookie を設定するレスポンスがキャッシュされ、他の利用者に配信されることがあります。",
        "Cookie を設定するレスポンスには `Cache-Control: no-store`（または `private`）を付けてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc9111#section-7.3",
)
def cached_cookie(facts: Facts) -> Iterator[Evidence]:
    """Report cookies on responses that shared caches may keep."""
    for name, response in _pages(_live(facts)):
        control = response.field("cache-control").lower()
        shared = "public" in control or "s-maxage" in control or response.field("age") not in {"", "0"}
        if response.cookies and (shared or not re.search(r"no-store|private|no-cache", control)):
            yield Evidence(text=f"{name}: Cache-Control: {control or 'is missing'}", key=name)


@GROUP.register(
    "MKS-WEB-021",
    "error",
    en=(
        "A file that nobody should see is served.",
        "Refuse hidden files and source maps in nginx, and remove them from the folder.",
    ),
    ja=(
        "公開すべきでないファイルが配信されています。",
        "隠しファイルとソースマップを nginx で拒否し、フォルダーから削除してください。",
    ),
    link="https://owasp.org/www-project-web-security-testing-guide/",
)
def served_files(facts: Facts) -> Iterator[Evidence]:
    """Report files whose content proves what they are."""
    for name, response in _answered(_live(facts), *_PROVEN):
        if response.status == 200 and _PROVEN[name].search(response.body[:4000]):
            yield Evidence(text=urlsplit(response.url).path, key=name)


@GROUP.register(
    "MKS-WEB-022",
    "note",
    en=("Responses tell versions.", "`server_tokens off;`, and `proxy_hide_header X-Powered-By;`"),
    ja=(
        "レスポンスにバージョンが含まれています。",
        "`server_tokens off;` と `proxy_hide_header X-Powered-By;` を設定してください。",
    ),
    link=_HEADERS,
)
def banners(facts: Facts) -> Iterator[Evidence]:
    """Report versions in ``Server`` and any ``X-Powered-By``."""
    for name, response in _answered(_live(facts), "page", "missing"):
        for field in ("server", "x-powered-by", "x-aspnet-version"):
            value = response.field(field)
            if value and (field != "server" or re.search(r"\d", value)):
                yield Evidence(text=f"{name}: {field}: {value}", key=field)


@GROUP.register(
    "MKS-WEB-023",
    "warning",
    en=("The server repeats requests (TRACE).", "Refuse the method."),
    ja=("サーバーがリクエストをそのまま返します（TRACE）。", "このメソッドを拒否してください。"),
    link="https://www.rfc-editor.org/rfc/rfc9110#section-9.3.8",
)
def trace(facts: Facts) -> Iterator[Evidence]:
    """Report a server that answers TRACE with the request."""
    for _, response in _answered(_live(facts), "trace"):
        if response.status == 200 and "TRACE /" in response.body:
            yield Evidence(text="TRACE is answered", key="TRACE")


@GROUP.register(
    "MKS-WEB-024",
    "warning",
    en=(
        "Health details or figures are open to everybody: they name the parts and tell which one is down.",
        "Let only the load balancer and this machine ask (`allow 127.0.0.1; deny all;`).",
    ),
    ja=(
        "ヘルスチェックの詳細や統計が誰でも閲覧でき、構成要素と障害箇所が分かります。",
        "ロードバランサーとこのマシンだけに許可してください（`allow 127.0.0.1; deny all;`）。",
    ),
    link=_OWASP + "Error_Handling_Cheat_Sheet.html",
)
def open_health(facts: Facts) -> Iterator[Evidence]:
    """Report health pages with details, and pages of figures."""
    live = _live(facts)
    for name, response in _answered(live, *(name for name in live.responses if name.startswith("health"))):
        path = urlsplit(response.url).path
        figures = response.body.startswith(("# HELP", "# TYPE", "Active connections"))
        details = "json" in response.field("content-type") and _DETAILS.search(response.body)
        if response.status in {200, 503} and (figures or details):
            yield Evidence(text=f"{path} ({response.status})", key=path or name)


@GROUP.register(
    "MKS-WEB-025",
    "error",
    en=("An error page shows source code.", "Switch the debug mode off."),
    ja=("エラーページにソースコードが表示されます。", "デバッグモードを無効にしてください。"),
    link=_OWASP + "Error_Handling_Cheat_Sheet.html",
)
def traceback(facts: Facts) -> Iterator[Evidence]:
    """Report tracebacks and pages of debuggers."""
    live = _live(facts)
    for name, response in _answered(live, *live.responses):
        found = _TRACEBACK.search(response.body)
        if found:
            yield Evidence(text=f"{name} ({response.status}): {found[0]}", key=name)


@GROUP.register(
    "MKS-WEB-026",
    "warning",
    en=(
        "A body larger than the promised limit is not refused by its declared size.",
        "Set `client_max_body_size` and `MKS_MAX_BODY` to the same limit.",
    ),
    ja=(
        "約束した上限を超える本文が、宣言されたサイズの時点で拒否されません。",
        "`client_max_body_size` と `MKS_MAX_BODY` を同じ上限にしてください。",
    ),
    link="https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14",
)
def no_413(facts: Facts) -> Iterator[Evidence]:
    """Report another response than 413 to a declared size above the limit."""
    live = _live(facts)
    response = live.responses.get("too large")
    if live.body_limit is not None and response is not None and response.status != 413:
        yield Evidence(text=f"{response.status or response.error} instead of 413", key="413")


@GROUP.register(
    "MKS-WEB-027",
    "note",
    en=(
        "Responses have no request id, so users cannot report one.",
        "Send `X-Request-ID` (`RequestLoggingMiddleware`, or `add_header` in nginx).",
    ),
    ja=(
        "レスポンスにリクエスト ID がないため、利用者が報告に使えません。",
        "`X-Request-ID` を送ってください（`RequestLoggingMiddleware`、または nginx の `add_header`）。",
    ),
    link=_OWASP + "Logging_Cheat_Sheet.html",
)
def no_request_id(facts: Facts) -> Iterator[Evidence]:
    """Report pages and error pages without it."""
    for name, response in _answered(_live(facts), "page", "missing"):
        if not any(
            response.field(field)
            for field in ("x-request-id", "x-correlation-id", "traceparent", "x-amzn-trace-id", "cf-ray")
        ):
            yield Evidence(text=f"{name} ({response.status})", key=name)


@GROUP.register(
    "MKS-WEB-028",
    "error",
    en=(
        "A browser does not show a page whole: a part of it is blocked, not served or of a wrong type.",
        "Move inline code into files, or add the named setting to `MKS_HEADERS_FILE`, below the path of the page.",
    ),
    ja=(
        "ブラウザーで正しく表示されないページがあります。一部が拒否されるか、配信されないか、種類が誤っています。",
        "インラインのコードをファイルに移すか、示した設定を `MKS_HEADERS_FILE` のページのパスの下に加えてください。",
    ),
    link="https://www.w3.org/TR/CSP3/",
)
def broken_page(facts: Facts) -> Iterator[Evidence]:
    """Report the front page, the sign-in page and named ones; what depends on their scripts and styles is a note."""
    for page, fault, setting, certain in _live(facts).page_faults:
        text = f"{page}: {fault}" + ", when it is used" * (not certain) + (f"; {setting}" if setting else "")
        yield Evidence(text=text, key=f"{page} {fault}", level=None if certain else "note")
