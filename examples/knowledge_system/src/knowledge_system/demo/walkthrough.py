"""``knowledge-system walkthrough``: an HTTP client checks the features of a running demonstration.

Each step prints what it did and the result; the first failure ends the run with exit code 1. The last steps advance
the session clock, which cannot be set back while sessions exist; they therefore run in a separate, temporary
demonstration.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyotp
import requests

from knowledge_system.console import complain, say
from knowledge_system.demo.temporary_demo import isolated_demo
from knowledge_system.demo.visitor import BrowserClient, WalkthroughError, expect, status
from knowledge_system.settings import DEMO_PASSWORD

_ALERT_SECONDS = 20
_STEP = 30


def run(url: str, *, http_url: str, ca_file: Path) -> int:
    """Check the demonstration at ``url``; return the exit code."""
    walk = Walk(url, http_url, ca_file)
    number = 0
    try:
        for number, step in enumerate(walk.steps(), 1):
            title, result = step()
            say(f"  {number:>2}. {title}\n      {result}")
    except (WalkthroughError, requests.RequestException, OSError, LookupError, ValueError) as error:
        if number <= 1 and isinstance(error, requests.ConnectionError | FileNotFoundError):
            complain(
                f"{url} にデモがありません。make demo で起動してください / no demo found; start one with make demo"
            )
            return 1
        complain(f"  {number:>2}. 失敗 / failed: {error}")
        return 1
    finally:
        walk.close()
    say(f"\n{number} の確認がすべて通りました。 / all {number} steps passed")
    return 0


Step = Callable[[], tuple[str, str]]


class Walk:
    """The steps, in order; later steps use the results of earlier ones."""

    def __init__(self, url: str, http_url: str, ca_file: Path) -> None:
        self.url, self.http_url, self.ca_file = url.rstrip("/"), http_url.rstrip("/"), ca_file
        self.name = f"walk-{secrets.token_hex(4)}"
        self.password = secrets.token_urlsafe(18)
        self.admin = self.visitor()
        self.me = self.visitor()
        self.other = self.visitor("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0) Safari/604.1")
        self.reviewer = self.visitor()
        self.secret = ""
        self.codes: list[str] = []
        self.article = 0
        self.report = ""
        self.file = ""
        self.moment = 0.0
        self._opened = ExitStack()

    def visitor(self, agent: str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0") -> BrowserClient:
        """Create a client with its own cookies."""
        return BrowserClient(self.url, self.ca_file, agent)

    def close(self) -> None:
        """Close all connections, and stop the temporary demonstration."""
        for visitor in (self.admin, self.me, self.other, self.reviewer):
            visitor.http.close()
        self._opened.close()

    def steps(self) -> Iterator[Step]:
        """Yield every step in order."""
        yield from (self.redirected_to_https, self.healthy, self.headers)
        yield from (self.failures_look_alike, self.sign_in_is_limited, self.foreign_pages_are_refused)
        yield from (self.account_made, self.second_factor_enrolled, self.signed_out, self.signed_in_with_code)
        yield from (self.code_works_once, self.recovery_code_works_once, self.other_devices_ended)
        yield from (self.article_created, self.bad_input_refused, self.published_by_reviewer)
        yield from (self.cached_and_invalidated, self.searched, self.commented, self.second_edit_refused)
        yield from (self.article_retired, self.report_written, self.report_is_mine_alone)
        yield from (self.roles_hold, self.json_is_strict, self.error_recorded_and_reported)
        yield from (self.slow_query_logged, self.second_factor_disabled)
        yield from (self.warned_before_the_end, self.ended_when_idle, self.ended_at_the_absolute_limit)

    # --- HTTP edge

    def redirected_to_https(self) -> tuple[str, str]:
        """Plain HTTP only redirects."""
        answer = requests.get(
            f"{self.http_url}/articles?q=%E9%A4%8A%E7%94%9F", timeout=10, allow_redirects=False
        )
        target = answer.headers.get("Location", "")
        expect(answer.status_code == 301 and target == f"{self.url}/articles?q=%E9%A4%8A%E7%94%9F", target)
        posted = requests.post(f"{self.http_url}/sign-in", data={"a": "b"}, timeout=10, allow_redirects=False)
        expect(posted.status_code == 308, f"POST over http -> {posted.status_code}")
        return "http は https へ転送されるだけ", f"GET 301, POST 308 -> {target}"

    def healthy(self) -> tuple[str, str]:
        """Both health endpoints respond with 200."""
        live, ready = status(self.me.get("/livez"), 200), status(self.me.get("/readyz"), 200)
        return "/livez と /readyz が応答する", f"{live.text.strip()[:60]} {ready.text.strip()[:120]}"

    def headers(self) -> tuple[str, str]:
        """Security headers are set, except HSTS, which browsers would remember for localhost."""
        answer = status(self.me.get("/sign-in"), 200)
        policy = answer.headers.get("Content-Security-Policy", "")
        nonce = re.search(r"'nonce-([^']+)'", policy)
        expect(nonce and f'nonce="{nonce[1]}"' in answer.text, "no nonce in policy and page")
        expect(answer.headers.get("X-Content-Type-Options") == "nosniff", "no nosniff")
        expect("Strict-Transport-Security" not in answer.headers, "HSTS on localhost")
        expect(answer.headers.get("X-Request-ID"), "no request id")
        return "レスポンスヘッダー(CSP と nonce、nosniff、リクエスト番号)", policy[:100]

    # --- sign-in

    def failures_look_alike(self) -> tuple[str, str]:
        """An unknown user and a wrong password get the same response."""
        answers = [
            status(
                self.visitor().api("POST", "/api/auth/login", {"username": name, "password": "wrong"}), 401
            )
            for name in ("tanaka", f"nobody-{secrets.token_hex(3)}")
        ]
        bodies = [{**answer.json(), "request_id": ""} for answer in answers]
        expect(bodies[0] == bodies[1], f"{bodies[0]} / {bodies[1]}")
        return "存在しない利用者と誤ったパスワードを区別できない", f"401 {bodies[0]['detail']}"

    def sign_in_is_limited(self) -> tuple[str, str]:
        """The sixth failed attempt within a minute is rejected without checking the password."""
        name = f"nobody-{secrets.token_hex(4)}"
        visitor = self.visitor()
        seen = [visitor.sign_in(name, "wrong") for _ in range(6)]
        codes = [answer.status_code for answer in seen]
        expect(codes == [401] * 5 + [429], f"{codes}")
        expect(int(seen[-1].headers["Retry-After"]) > 0, "no Retry-After")
        return (
            "サインインの試行回数に上限がある",
            f"401×5 -> 429, Retry-After {seen[-1].headers['Retry-After']} 秒",
        )

    def foreign_pages_are_refused(self) -> tuple[str, str]:
        """A cross-site form is rejected, and so is a form without a CSRF token."""
        visitor = self.visitor()
        visitor.get("/sign-in")
        fields = {"username": "tanaka", "password": DEMO_PASSWORD}
        for headers in ({"Origin": "https://evil.example"}, {}):
            answer = visitor.http.post(
                f"{self.url}/sign-in", data=fields, headers=headers, timeout=30, allow_redirects=False
            )
            status(answer, 403)
        return "ほかのサイトから送られたフォームを受け付けない", "403 (Origin が違う), 403 (トークンがない)"

    def account_made(self) -> tuple[str, str]:
        """The administrator adds a writer for this run, who signs in."""
        status(self.admin.sign_in("ito", DEMO_PASSWORD), 303)
        account = {
            "username": self.name,
            "display_name": "通し 確認",
            "role": "writer",
            "password": self.password,
        }
        status(self.admin.api("POST", "/api/auth/register", account), 201)
        status(self.me.sign_in(self.name, self.password), 303)
        who = status(self.me.api("GET", "/api/auth/me"), 200)
        expect(who.json()["username"] == self.name, who.text)
        expect("no-store" in who.headers["Cache-Control"], "a personal answer may be stored")
        return "利用者を追加し、サインインする", f"{self.name} (執筆), Cache-Control: no-store"

    def second_factor_enrolled(self) -> tuple[str, str]:
        """Enrolment shows a QR code and the secret, asks for a first code, and shows recovery codes once."""
        self._wait_for_quiet_moment()
        status(self.me.submit("/account/second-factor", {}, action="/account/second-factor/begin"), 303)
        page = status(self.me.get("/account/second-factor"), 200)
        expect('src="data:image/png;base64,' in page.text, "no QR code")
        found = re.search(r'id="secret">([A-Z2-7 ]+)<', page.text)
        self.secret = found[1].replace(" ", "") if found else ""
        status(self.me.post("/account/second-factor/confirm", {"code": "12345"}), 422)
        page = status(self.me.post("/account/second-factor/confirm", {"code": self._code(-1)}), 200)
        self.codes = re.findall(r"<li><code>([^<]+)</code></li>", unescape(page.text))
        expect(len(self.codes) >= 8, f"{len(self.codes)} recovery codes")
        again = status(self.me.get("/account/second-factor"), 200).text
        expect(not any(code in again for code in self.codes), "recovery codes shown twice")
        return (
            "二段階認証を設定する",
            f"QR コードと文字、確認コード、リカバリーコード {len(self.codes)} 個(一度だけ)",
        )

    def signed_out(self) -> tuple[str, str]:
        """After signing out, the old cookie is invalid."""
        kept = self.me.http.cookies.copy()
        status(self.me.post("/sign-out", {}), 303)
        self.me.http.cookies.update(kept)
        answer = status(self.me.api("GET", "/api/auth/me"), 401)
        self.me.http.cookies.clear()
        return (
            "サインアウト後は、残った Cookie が使えない",
            f"401 {answer.headers.get('X-Session-Timeout-Reason')}",
        )

    def signed_in_with_code(self) -> tuple[str, str]:
        """The password alone gives no access; the code does."""
        answer = status(self.me.sign_in(self.name, self.password), 303)
        expect("/sign-in/code" in answer.headers["Location"], answer.headers["Location"])
        status(self.me.api("GET", "/api/knowledge"), 401)
        self.me.get("/sign-in/code")
        status(self.me.post("/sign-in/code", {"code": "000000"}), 401)
        status(self.me.post("/sign-in/code", {"code": self._code(0), "next": "/articles"}), 303)
        status(self.me.get("/articles"), 200)
        return (
            "パスワードと認証コードでサインインする",
            "コードの前は 401、誤ったコードは 401、正しいコードで一覧へ",
        )

    def code_works_once(self) -> tuple[str, str]:
        """A code is rejected when it is used again."""
        status(self.other.sign_in(self.name, self.password), 303)
        self.other.get("/sign-in/code")
        status(self.other.post("/sign-in/code", {"code": self._code(0)}), 401)
        return "一度使った認証コードは使えない", "401"

    def recovery_code_works_once(self) -> tuple[str, str]:
        """A recovery code works once."""
        answer = status(self.other.api("POST", "/api/auth/2fa/verify", {"code": self.codes[0]}), 200)
        left = answer.json()["recovery_codes_left"]
        expect(left == len(self.codes) - 1, answer.text)
        again = self.visitor()
        status(again.api("POST", "/api/auth/login", {"username": self.name, "password": self.password}), 200)
        status(again.api("POST", "/api/auth/2fa/verify", {"code": self.codes[0]}), 401)
        return "リカバリーコードは一度だけ使える", f"残り {left} 個、二度目は 401"

    def other_devices_ended(self) -> tuple[str, str]:
        """The user's sessions are listed; the other ones can be ended."""
        page = status(self.me.get("/account"), 200).text
        expect("Safari / iPhone" in page and "この端末" in page, "the other device is not listed")
        status(self.me.post("/account/sessions/end-others", {}), 303)
        answer = status(self.other.api("GET", "/api/auth/me"), 401)
        reason = answer.headers.get("X-Session-Timeout-Reason")
        expect(reason == "revoked", f"reason {reason}")
        return "サインイン中の端末を一覧し、ほかの端末を終了する", f"もう一方は 401 ({reason})"

    # --- articles

    def article_created(self) -> tuple[str, str]:
        """A writer creates a draft; HTML in it is shown as text."""
        fields = self._fields(
            title="場所打ち杭の養生と杭頭処理", body="## 養生\n\n- 杭頭の**余盛り**\n\n<script>x</script>"
        )
        answer = status(self.me.submit("/articles/new", fields, action="/articles"), 303)
        self.article = int(re.findall(r"/articles/(\d+)", answer.headers["Location"])[0])
        page = status(self.me.get(f"/articles/{self.article}"), 200).text
        expect("<strong>余盛り</strong>" in page and "<script>x" not in page, "markup is not safe")
        return "記事を作成する", f"記事 {self.article}(下書き)、HTML は文字として表示"

    def bad_input_refused(self) -> tuple[str, str]:
        """Invalid input changes nothing, and the response names the fields."""
        fields = self._fields(title="", category="宇宙", body="x")
        page = status(self.me.submit("/articles/new", fields, action="/articles"), 422)
        expect("入力してください" in page.text and "選択肢にない値です" in page.text, "errors are not named")
        extra = {**self._json(1), "author_id": 1}
        answer = status(self.me.api("PUT", f"/api/knowledge/{self.article}", extra), 422)
        expect(answer.headers["Content-Type"] == "application/problem+json", answer.headers["Content-Type"])
        before = status(self.me.api("GET", f"/api/knowledge/{self.article}"), 200).json()
        expect(before["revision"] == 1, "something was changed")
        return "誤った入力は受け付けず、何も変えない", f"422 {answer.json()['errors']}"

    def published_by_reviewer(self) -> tuple[str, str]:
        """Only another user, a reviewer, can publish."""
        mine = status(
            self.me.api("PUT", f"/api/knowledge/{self.article}", self._json(1, status="published")), 422
        )
        expect(mine.json()["errors"][0]["code"] == "not-allowed", mine.text)
        status(self.me.api("PUT", f"/api/knowledge/{self.article}", self._json(1, status="review")), 200)
        status(self.reviewer.sign_in("sato", DEMO_PASSWORD), 303)
        self.reviewer.get("/articles")
        done = self._approved(2)
        expect(status(done, 200).json()["status"] == "published", done.text)
        return "執筆者は公開できず、承認者が公開する", "422 -> レビュー中 -> 公開(第 2 版)"

    def _approved(self, revision: int) -> Any:
        body = {"step": "approve", "revision": revision}
        return self.reviewer.api("POST", f"/api/knowledge/{self.article}/steps", body)

    def cached_and_invalidated(self) -> tuple[str, str]:
        """The list is served from the cache until an approved edit invalidates it."""
        seen = [self.me.get("/articles").headers["X-Cache"] for _ in range(3)]
        expect(seen[1:] == ["hit", "hit"], f"{seen}")
        title = f"場所打ち杭の養生と杭頭処理 改 {self.name}"
        body = self._json(2, status="review", title=title)
        status(self.me.api("PUT", f"/api/knowledge/{self.article}", body), 200)
        expect(title not in self.me.get("/articles").text, "the next version is shown before it is approved")
        status(self._approved(3), 200)
        after = self.me.get("/articles")
        expect(after.headers["X-Cache"] == "miss" and title in after.text, after.headers["X-Cache"])
        return "一覧はキャッシュから出て、編集で無効になる", f"X-Cache: {' '.join(seen)} -> 編集 -> miss"

    def searched(self) -> tuple[str, str]:
        """Search finds two-character words and half-width kana."""
        hits = {}
        for word in ("養生", "足場", "ｺﾝｸﾘｰﾄ", "コンクリート"):
            answer = status(self.me.api("GET", f"/api/knowledge?q={quote(word)}"), 200)
            hits[word] = [item["id"] for item in answer.json()["items"]]
            expect(hits[word], f"nothing found for {word}")
        expect(self.article in hits["養生"], "the new article is not found")
        expect(hits["ｺﾝｸﾘｰﾄ"] == hits["コンクリート"], "width makes a difference")
        return "2 文字の言葉と半角カナで検索できる", ", ".join(
            f"{word} {len(found)} 件" for word, found in hits.items()
        )

    def commented(self) -> tuple[str, str]:
        """A comment appears below the article."""
        status(
            self.me.submit(
                f"/articles/{self.article}",
                {"body": "現場で確認しました。"},
                action=f"/articles/{self.article}/comments",
            ),
            303,
        )
        page = status(self.me.get(f"/articles/{self.article}"), 200).text
        expect("現場で確認しました。" in page, "the remark is missing")
        return "コメントを書く", "表示された"

    def second_edit_refused(self) -> tuple[str, str]:
        """Of two edits of the same revision, the second is not saved and its input is kept."""
        stale = self._fields(title="古い版への編集", revision="2")
        page = self.reviewer.submit(f"/articles/{self.article}/edit", stale)
        expect("古い版への編集" in status(page, 409).text, "the input is lost")
        return "同じ版への二つ目の編集は保存されない", "409、入力は残る"

    def article_retired(self) -> tuple[str, str]:
        """A retired article leaves the list and remains readable, with a warning."""
        body = {"step": "retire", "revision": 3, "comment": "新しい手順に置き換えた"}
        status(self.reviewer.api("POST", f"/api/knowledge/{self.article}/steps", body), 200)
        page = status(self.me.get(f"/articles/{self.article}"), 200).text
        expect("この記事は廃止されています" in page, "no warning on a retired article")
        expect(self.name not in self.me.get("/articles").text, "a retired article is still listed")
        return "記事を廃止する", "一覧から外れ、開くと注意が出る"

    def report_written(self) -> tuple[str, str]:
        """A report is requested, written in the background, announced by mail and downloaded."""
        body = {"kind": "monthly", "subject": "2025-11", "format": "pdf", "key": secrets.token_hex(8)}
        asked = status(self.me.api("POST", "/api/reports", body), 202).json()
        self.report = asked["id"]
        expect(self.me.api("POST", "/api/reports", body).json()["id"] == self.report, "made twice")

        def finished() -> list[Any]:
            answer = self.me.api("GET", asked["status_url"])
            return [answer.json()] if answer.status_code == 200 else []

        (progress, *_) = self._wait(finished, at_least=1) or [{}]
        expect(progress.get("state") == "done", f"{progress}")
        page = status(self.me.get(asked["page_url"]), 200).text
        found = re.search(r'href="(/reports/[^"]+/file[^"]+)"', page)
        self.file = unescape(found[1]) if found else ""
        expect(status(self.me.get(self.file), 200).content.startswith(b"%PDF"), "not a PDF")
        mails = self._wait(lambda: self._alerts(self.report), at_least=1)
        expect([mail["channel"] for mail in mails] == ["mail"], f"{len(mails)} mails")
        return (
            "レポートをバックグラウンドで作成し、メールで知らせる",
            f"202 -> {progress['result']['file']} -> メール 1 通「{mails[0]['subject'][:30]}…」",
        )

    def report_is_mine_alone(self) -> tuple[str, str]:
        """Other users cannot open the report, and a modified link does not work."""
        for path in (f"/reports/{self.report}", self.file, f"/api/tasks/{self.report}"):
            status(self.reviewer.get(path), 404)
        changed = self.file.replace("until=1", "until=2")
        status(self.me.get(changed), 404)
        return (
            "レポートは依頼した人だけが、期限つきのリンクで開ける",
            "ほかの人は 404、書き換えたリンクも 404",
        )

    def roles_hold(self) -> tuple[str, str]:
        """A viewer cannot write, and a writer cannot see the diagnostics."""
        viewer = self.visitor()
        status(viewer.sign_in("kobayashi", DEMO_PASSWORD), 303)
        status(viewer.api("POST", "/api/knowledge", self._json()), 403)
        status(viewer.get("/articles/new"), 403)
        status(self.me.get("/diagnostics"), 403)
        viewer.http.close()
        return "役割を越えた操作はできない", "403 403 403"

    def json_is_strict(self) -> tuple[str, str]:
        """Malformed bodies get an error status, and errors use the requested language."""
        cases = {
            b'{"title": NaN}': 400,
            b'{"title": "\xff"}': 400,
            b"[" * 20_000: 400,
            b'{"title": 1}': 422,
            b"{}" + b" " * 1_100_000: 413,
        }
        for body, wanted in cases.items():
            status(self.me.api("POST", "/api/knowledge", body), wanted)
        english = status(self.me.api("GET", "/api/knowledge/999999999999", **{"Accept-Language": "en"}), 404)
        expect(english.json()["title"] == "Not found", english.text)
        japanese = status(self.me.get("/articles/..%2f..%2fetc%2fpasswd"), 404)
        expect("見つかりません" in japanese.text, "no Japanese page")
        return "壊れた JSON、大きすぎる本文、存在しない番号", "400 400 400 422 413 404(英語) 404(日本語)"

    # --- errors

    def error_recorded_and_reported(self) -> tuple[str, str]:
        """An error leaves one log record with the request id and one alert per channel; users see no traceback."""
        before = self._alerts("")
        self.admin.get("/diagnostics")
        answer = status(self.admin.post("/diagnostics/error", {}), 500)
        number = answer.headers["X-Request-ID"]
        expect("Traceback" not in answer.text and number in answer.text, "the page is not right")
        found = self.admin.api("GET", f"/diagnostics/records?request_id={number}").json()["records"]
        failed = [record for record in found if record.get("exception")]
        expect(len(failed) == 1 and failed[0]["request_id"] == number, f"{len(failed)} records")
        alerts = self._wait(lambda: [a for a in self._alerts(number) if a not in before], at_least=2)
        channels = sorted(alert["channel"] for alert in alerts)
        expect(channels == ["mail", "slack"], f"alerts: {channels}")
        return "想定外のエラー: 記録 1 件、通知はメール 1 通と Slack 1 件", f"リクエスト番号 {number}"

    def slow_query_logged(self) -> tuple[str, str]:
        """A slow statement is logged with its fingerprint, without values."""
        self.admin.get("/diagnostics")
        answer = status(self.admin.post("/diagnostics/slow-query", {}), 303)
        number = answer.headers["X-Request-ID"]
        found = self.admin.api("GET", f"/diagnostics/records?request_id={number}").json()["records"]
        slow = [record for record in found if record.get("fingerprint")]
        expect(slow, f"no record with a fingerprint among {len(found)}")
        return "遅い SQL が指紋つきで記録される", f"{slow[0]['fingerprint']} {slow[0].get('duration_ms')} ms"

    def second_factor_disabled(self) -> tuple[str, str]:
        """Disabling the second factor requires a code."""
        status(self.me.api("POST", "/api/auth/2fa/disable", {"code": "000000"}), 403)
        status(self.me.api("POST", "/api/auth/2fa/disable", {"code": self.codes[1]}), 200)
        return "二段階認証を無効にするには本人確認が必要", "誤ったコード 403、リカバリーコード 200"

    # --- session timeouts

    def warned_before_the_end(self) -> tuple[str, str]:
        """Shortly before expiry, responses and pages warn; the session can be extended without JavaScript."""
        self._move_to_isolated_demo()
        self.me.get("/articles")
        idle = int(self.me.api("GET", "/api/auth/session").json()["expires_in"])
        self._advance(max(1, idle - 30) if idle > 60 else max(1, idle - 2))
        polled = status(self.me.api("GET", "/api/auth/session"), 200)
        left = polled.headers.get("X-Session-Expires-In")
        expect(left is not None and int(left) <= 120, f"X-Session-Expires-In: {left}")
        again = int(self.me.api("GET", "/api/auth/session").json()["expires_in"])
        expect(again <= int(left or 0), "asking kept the session alive")
        status(self.me.api("POST", "/api/auth/session/refresh"), 200)
        extended = int(self.me.api("GET", "/api/auth/session").json()["expires_in"])
        expect(extended > again, "extending did nothing")
        return "終了前に警告し、延長できる", f"残り {left} 秒 -> 延長 -> {extended} 秒"

    def ended_when_idle(self) -> tuple[str, str]:
        """An idle session ends, and the sign-in page gives the reason."""
        idle = int(self.me.api("GET", "/api/auth/session").json()["expires_in"])
        self._advance(idle + 1)
        page = status(self.me.get("/articles"), 303)
        expect(page.headers["X-Session-Timeout-Reason"] == "idle", page.headers["X-Session-Timeout-Reason"])
        shown = status(self.me.get(page.headers["Location"]), 200).text
        expect("操作がなかったため" in shown, "the sign-in page does not say why")
        return "操作がないとサインアウトし、理由を示す", "303 -> サインイン画面(idle)"

    def ended_at_the_absolute_limit(self) -> tuple[str, str]:
        """An active session ends at the absolute limit."""
        status(self.me.sign_in("tanaka", DEMO_PASSWORD), 303)
        passed = 0
        while (asked := self.me.api("POST", "/api/auth/session/refresh")).status_code == 200:
            # Leave a margin for the next request, which may take seconds on a busy machine.
            step = max(1, int(asked.json()["expires_in"]) * 9 // 10)
            self._advance(step)
            passed += step
            expect(passed < 40 * 86_400, "the session never ends")
        reason = asked.headers.get("X-Session-Timeout-Reason")
        expect(reason == "absolute", f"reason {reason} after {passed} s")
        return "操作を続けていても最長時間でサインアウトする", f"約 {passed // 60} 分後に 401 (absolute)"

    # --- helpers

    def _code(self, step: int) -> str:
        """Return the code of the enrolment's time step or a neighbouring one: each code works only once."""
        return pyotp.TOTP(self.secret).at(int(self.moment) + step * _STEP)

    def _wait_for_quiet_moment(self) -> None:
        """Wait until the current time step lasts long enough for three sign-ins."""
        if (left := _STEP - time.time() % _STEP) < 12:
            say(f"      認証コードの切り替わりを {left:.0f} 秒待ちます …")
            time.sleep(left + 0.2)
        self.moment = time.time()

    def _move_to_isolated_demo(self) -> None:
        """Continue in a temporary demonstration whose clock may be advanced; this one keeps the real time."""
        say("      セッションの時計を進める確認のため、別のデモを一時的に起動します …")
        demo = self._opened.enter_context(isolated_demo())
        for visitor in (self.admin, self.me):
            visitor.http.close()
        self.admin, self.me = BrowserClient(demo.url, demo.ca_file), BrowserClient(demo.url, demo.ca_file)
        status(self.admin.sign_in("ito", DEMO_PASSWORD), 303)
        status(self.me.sign_in("tanaka", DEMO_PASSWORD), 303)

    def _advance(self, seconds: int) -> None:
        """Advance the session clock; sign the administrator in again if that ended the administrator's session."""
        done = self.admin.submit("/diagnostics", {"advance": str(seconds)}, action="/diagnostics/clock")
        if done.status_code != 303 or "clock-moved" not in done.headers["Location"]:
            self.admin.http.cookies.clear()
            status(self.admin.sign_in("ito", DEMO_PASSWORD), 303)
            status(
                self.admin.submit("/diagnostics", {"advance": str(seconds)}, action="/diagnostics/clock"), 303
            )

    def _alerts(self, request_id: str) -> list[dict[str, Any]]:
        messages = status(self.admin.api("GET", "/sink.json"), 200).json()["messages"]
        return [message for message in messages if request_id in message["text"]]

    def _wait(self, look: Callable[[], list[Any]], *, at_least: int) -> list[Any]:
        deadline = time.monotonic() + _ALERT_SECONDS
        found = look()
        while len(found) < at_least and time.monotonic() < deadline:
            time.sleep(0.2)
            found = look()
        return found

    def _fields(self, **changed: str) -> dict[str, str]:
        base = {
            "title": "確認",
            "category": "基礎",
            "summary": "通し確認で作成した記事です。",
            "body": "本文",
            "tags": "杭、養生",
            "status": "draft",
        }
        return {**base, **changed}

    def _json(self, revision: int | None = None, **changed: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            **self._fields(title="場所打ち杭の養生と杭頭処理"),
            "tags": ["杭", "養生"],
            **changed,
        }
        return fields if revision is None else {**fields, "revision": revision}
