"""Write the page of the compatibility suite in both languages: ``make compatibility``.

Each application is walked through raw, and hardened without and with the settings of its description. Then the
processor time of one page is measured in alternating rounds: it does not depend on what else the machine does.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from compatibility_walks import BEHIND_NGINX, NAMES, ROOT, Application, Served, described, walked

PAGES = {language: ROOT / "docs" / language / "reference" / "compatibility.md" for language in ("en", "ja")}
RESULTS = ROOT / "docs" / "reference" / "compatibility.json"
_ROUNDS = 5
_SECONDS = 0.7  # of processor time in each round

_TEXTS = {
    "en": {
        "title": "Applications from the package index",
        "about": (
            "Applications that were not written for this library, unedited, wrapped by `harden_wsgi` or "
            "`harden_asgi`, and walked through in Chromium as they are and hardened. With the settings below, "
            "every step that works without the library works with it, and the browser reports nothing new. "
            "`make compatibility` writes this page; `make test-full` checks it.\n\n"
            'All of them start without settings. "Whole without settings" counts the steps in which the browser '
            "blocks nothing, reports nothing new and no request fails. A setting is an environment variable, or a "
            "value of the headers file. Requests per second of processor time: one page, one worker, alternating "
            "rounds; where a page takes more than 2 ms, the whole stack costs at most 15 %.\n\n"
            "{behind} are also served over TLS by the nginx of the deployment kit, with the same result. "
            "JupyterHub and Jupyter Server are not among them: they run on Tornado, which is neither WSGI nor ASGI."
        ),
        "head": (
            "| application | version | built on | whole without settings | settings | "
            "requests/s raw | hardened | ratio |"
        ),
        "and": " and ",
        "none": "No settings are needed.",
        "file": "`MKS_HEADERS_FILE`:",
        "broken": "Not whole without settings: ",
        "variables": "Environment:",
        "stop": ".",
        "comma": ", ",
    },
    "ja": {
        "title": "パッケージインデックスのアプリケーション",
        "about": (
            "このライブラリのために書かれていないアプリケーションを、変更せずに `harden_wsgi` または "
            "`harden_asgi` でラップし、そのままの場合とラップした場合の両方を Chromium で操作します。"
            "以下の設定を使えば、ライブラリなしで動く手順はすべて動き、ブラウザーに新しい報告は出ません。"
            "`make compatibility` がこのページを書き、`make test-full` が検査します。\n\n"
            "どれも設定なしで起動します。「設定なしで動作」は、ブロックされたリソース、新しいメッセージ、"
            "失敗したリクエストがない手順の数です。"
            "設定は、環境変数とヘッダーファイルの値をそれぞれ 1 つと数えます。"
            "リクエスト数は CPU 時間 1 秒あたりで、1 ページを 1 ワーカーで交互に測定しました。"
            "2 ミリ秒より長くかかるページでは、全体のコストは最大 15 % です。\n\n"
            "{behind} は、デプロイメントキットの nginx からも TLS で配信し、同じ結果になります。"
            "JupyterHub と Jupyter Server は WSGI でも ASGI でもない Tornado で動くため、含まれていません。"
        ),
        "head": (
            "| アプリケーション | バージョン | 基盤 | 設定なしで動作 | 設定 | "
            "リクエスト/秒（なし） | ラップ後 | 比 |"
        ),
        "and": "、",
        "none": "設定は不要です。",
        "file": "`MKS_HEADERS_FILE`:",
        "broken": "設定なしでは動作が完全でない手順: ",
        "variables": "環境変数:",
        "stop": "。",
        "comma": "、",
    },
}


def results() -> dict[str, Any]:
    """Return the published results by application."""
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    return found


def pages() -> dict[Path, str]:
    """Return the text of each page."""
    kept = results()
    return {file: _page(kept, language) for language, file in PAGES.items()}


def _page(kept: dict[str, Any], language: str) -> str:
    texts = _TEXTS[language]
    names = [described(name).distribution for name in BEHIND_NGINX]
    about = texts["about"].format(behind=texts["comma"].join(names[:-1]) + texts["and"] + names[-1])
    lines = [f"# {texts['title']}", "", about, "", texts["head"], "|---|---|---|---|---|---|---|---|"]
    parts: list[str] = []
    for name in NAMES:
        application, result = described(name), kept.get(name)
        if result is None:
            continue
        steps = result["steps"]
        raw, hardened = result["raw"], result["hardened"]
        lines.append(
            f"| {application.distribution} | {result['version']} | {application.framework} | "
            f"{sum(steps.values())} / {len(steps)} | {application.settings_count} | "
            f"{raw:.0f} | {hardened:.0f} | {hardened / raw:.2f} |"
        )
        parts += _settings(application, steps, texts, looser=application.looser[language == "ja"])
    return "\n".join([*lines, "", *parts]).rstrip() + "\n"


def _settings(
    application: Application, steps: dict[str, bool], texts: dict[str, str], *, looser: str
) -> list[str]:
    lines = [f"(compatibility-{application.name.replace('_', '-')})=", f"## {application.distribution}", ""]
    broken = [step for step, whole in steps.items() if not whole]
    if broken:
        lines += [texts["broken"] + texts["comma"].join(broken) + texts["stop"], ""]
    if not application.settings_count:
        return [*lines, texts["none"], ""]
    if looser:
        lines += [looser + texts["stop"], ""]
    if application.settings:
        assigned = [f"{name}={value}" for name, value in application.settings.items()]
        lines += [texts["variables"], "", "```ini", *assigned, "```", ""]
    if application.headers:
        lines += [texts["file"], "", "```toml", application.headers.strip(), "```", ""]
    return lines


def measured(name: str, browser: Any, folder: Path) -> dict[str, Any]:
    """Walk through an application, raw and hardened, and measure both."""
    application = described(name)
    raw = Served(application, folder / "raw", hardened=False)
    bare = Served(application, folder / "bare", hardened=True)
    whole = Served(application, folder / "whole", hardened=True, settings=True)
    servers = (raw, bare, whole)
    try:
        raw.start()
        whole.start()
        rates: dict[Served, list[float]] = {raw: [], whole: []}
        for _ in range(_ROUNDS + 1):
            for served, found in rates.items():
                found.append(_rate(served))
        whole.stop()
        bare.start()
        before = walked(application, browser, raw.url)
        without = walked(application, browser, bare.url, patience=5)
        return {
            "version": raw.version,
            "steps": {step: without[step].is_whole(result) for step, result in before.items()},
            "raw": round(statistics.median(rates[raw][1:]), 1),  # the first round warms up
            "hardened": round(statistics.median(rates[whole][1:]), 1),
        }
    finally:
        for served in servers:
            served.stop()


def _rate(served: Served) -> float:
    """Return the requests per second of the server's processor time."""
    connection = http.client.HTTPConnection("localhost", served.port, timeout=30)
    before, requests, spent = served.processor_time, 0, 0.0
    while spent < _SECONDS:
        for _ in range(10):
            connection.request("GET", served.application.page, headers=served.application.program_headers)
            response = connection.getresponse()
            response.read()
            assert response.status < 400, f"{response.status} {served.application.page}"
        requests += 10
        spent = served.processor_time - before
    connection.close()
    return requests / spent


def main(names: list[str]) -> None:
    """Measure these applications, or all, and write the page."""
    from playwright.sync_api import sync_playwright

    from knowledge_browser import FLAGS
    from testbed.services import program

    kept = results()
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=FLAGS)
        for name in names or NAMES:
            (Path(folder) / name).mkdir()
            kept[name] = measured(name, browser, Path(folder) / name)
            sys.stdout.write(f"{name}: {kept[name]}\n")
            sys.stdout.flush()
            _write({name: kept[name] for name in NAMES if name in kept})
        browser.close()


def _write(kept: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    for file, text in pages().items():
        file.write_text(text, "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
