"""Write the tables and the plot of the comparison page from the figures that ``tools/bench.py`` has kept."""

# ruff: noqa: E501, RUF001 - the rows of a table in two languages

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["DATA", "ROWS", "Row", "files", "read", "unmeasured", "write"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
DATA = DOCS / "explanation" / "bench.json"
Run = dict[str, dict[str, float]]
"""Figures of one run by title of the comparison and contender, all of a comparison in the same unit."""


class Row(NamedTuple):
    """One published ratio.

    Attributes:
        title: start of the comparison's title.
        ours: our contender.
        peer: the other one.
        en: what is measured, and beside what.
        ja: the same in Japanese.
        inverse: whether a larger figure is better.
        readme: whether the READMEs and the landing pages show it too.
    """

    title: str
    ours: str
    peer: str
    en: tuple[str, str]
    ja: tuple[str, str]
    inverse: bool = False
    readme: bool = False


_PEERS = "Flask-Session, -Limiter, -Talisman, -SeaSurf"
_ORJSON = "python-json-logger + orjson"
_OURS = "ours (redacting)"
_QUEUE = "floor: SimpleQueue, with exception"
_GET = "redis-py GET, not decoded"
_WINDOW = "limits MovingWindowRateLimiter, 1 limit, passing"

_IN_README = ("simple", "a password in the message", "gcra")

ROWS = (
    Row("a page that reads", "Flask, ours", _PEERS,
        ("a Flask page with everything, on Redis: processor time above plain Flask", "ProxyFix, Talisman, Flask-Session, Flask-Limiter and SeaSurf together"),
        ("すべてを有効にした Flask のページ、Redis 使用: Flask だけの場合からの CPU 時間の増加", "ProxyFix、Talisman、Flask-Session、Flask-Limiter、SeaSurf の合計"), readme=True),
    Row("a POST that changes", "Flask, ours", _PEERS,
        ("the same, a POST", "the same"), ("同上、POST", "同上")),
    Row("a POST that changes", "Django, ours", _PEERS,
        ("the same with Django, above plain Django", "the five Flask extensions"),
        ("同上、Django だけの場合からの増加", "Flask の 5 つの拡張")),
    Row("requests per second through gunicorn", "ours, whole edge with session", "floor stack",
        ("all middleware behind gunicorn, with a session", "a hand-written minimum without checks"),
        ("gunicorn での全ミドルウェア、セッションあり", "検査をしない最小の手書きコード"), inverse=True),
    Row("requests per second through uvicorn", "FastAPI, ours", "FastAPI, six peers",
        ("FastAPI with everything, behind uvicorn", "six packages that do the same together"),
        ("すべてを有効にした FastAPI、uvicorn 経由", "同じ機能の 6 つのパッケージ"), inverse=True),
    Row("requests per second through uvicorn", "FastAPI, ours", "FastAPI, fastapi-guard",
        ("the same", "fastapi-guard"), ("同上", "fastapi-guard"), inverse=True),
    Row("https behind a proxy", "ours (two wrappers)", "Werkzeug ProxyFix (no redirect, no peer check)",
        ("trusted proxies, HTTPS and hosts", "Werkzeug's `ProxyFix` alone"),
        ("信頼するプロキシ、HTTPS、ホスト", "Werkzeug の `ProxyFix` だけ")),
    Row("headers over https", "ours, web", "Flask + Talisman",
        ("response headers", "Flask with Talisman"), ("レスポンスのヘッダー", "Talisman 付きの Flask")),
    Row("session check", "SessionTimeoutMiddleware, memory", "floor",
        ("the check of a session in memory", "hand-written check"),
        ("メモリーのセッションの確認", "手書きの確認")),
    Row("import of all six, every name", "ours", "peer",
        ("importing all areas, every name used", "importing the packages behind them"),
        ("全領域の import、すべての名前を使用", "使用する外部パッケージの import")),
    *(
        Row(f"Formatter.format, {case}", _OURS, _ORJSON, (en, "python-json-logger with orjson, without redaction"),
            (ja, "伏せ字なしの python-json-logger（orjson）"), readme=case in _IN_README)
        for case, en, ja in (
            ("simple", "a log record with redaction", "伏せ字ありのログ 1 件"),
            ("five extras", "the same, five extra fields", "同上、追加フィールド 5 個"),
            ("exception", "the same, with a traceback", "同上、トレースバック付き"),
            ("a long message", "the same, a long message", "同上、長いメッセージ"),
            ("a new message each time", "the same, a new message each time", "同上、毎回新しいメッセージ"),
            ("a password in the message", "the same, a password in the message", "同上、メッセージにパスワード"),
            ("a nested extra", "the same, a nested extra field", "同上、入れ子の追加フィールド"),
        )
    ),
    Row("alert", "alert, first, with exception", _QUEUE,
        ("an alert with an exception, on the thread that logs", "a handler that only queues the record"),
        ("例外付きのアラート、ログを出すスレッド上", "レコードをキューに入れるだけのハンドラー")),
    Row("alert", "alert, first, with exception", "sentry-sdk, with exception",
        ("the same", "sentry-sdk"), ("同上", "sentry-sdk")),
    Row("above the request record", "more: with a tracer, SDK that samples nothing", "that SDK alone",
        ("a span that is not recorded, above the request record", "OpenTelemetry's SDK alone"),
        ("記録しないスパン、リクエストの記録からの増加", "OpenTelemetry の SDK だけ")),
    Row("A hit in memory", "@cached, immutable value", "functools.lru_cache (no ttl, aliases)",
        ("a hit of `@cached` in memory, immutable value", "`functools.lru_cache`, without time to live"),
        ("メモリーでの `@cached` のヒット、変更できない値", "有効期間のない `functools.lru_cache`")),
    Row("A hit in memory", "@cached, record (decoded anew)", "functools.lru_cache (no ttl, aliases)",
        ("the same, a record", "the same"), ("同上、レコード", "同上")),
    Row("A hit over Redis, small record", "@cached", _GET,
        ("a hit of `@cached` over Redis, small record", "a bare `GET`, not decoded"),
        ("Redis での `@cached` のヒット、小さなレコード", "デコードしない単純な `GET`"), readme=True),
    Row("A hit over Redis, list of 50", "@cached, return type declared", _GET,
        ("the same, a list of fifty rows", "the same"), ("同上、50 行のリスト", "同上")),
    Row("one GET of a living server", "ours", "redis-py",
        ("`GET` with deadline and breaker", "redis-py"), ("締め切りとブレーカー付きの `GET`", "redis-py")),
    *(
        Row("One hit in memory", f"ours {kind}, 3 limits, passing", _WINDOW,
            (f"three limits in memory, `{kind}`", "one moving window of limits"),
            (f"メモリーでの 3 つの制限、`{kind}`", "limits の moving window 1 つ"), readme=kind in _IN_README)
        for kind in ("exact-window", "fixed-window", "gcra")
    ),
    Row("One hit in Redis", "ours gcra, 3 limits with header data", "raw Lua, three GCRA cells, one trip",
        ("three limits in Redis, one round trip", "one hand-written Lua script"),
        ("Redis での 3 つの制限、往復 1 回", "手書きの Lua スクリプト 1 つ")),
    Row("One hit in Redis", "ours gcra, 3 limits with header data", "limits MovingWindowRateLimiter, 3 limits",
        ("the same", "three moving windows of limits"), ("同上", "limits の moving window 3 つ")),
    Row("TOTP", "verify_totp, wrong code", "pyotp verify(valid_window=1), wrong code",
        ("a wrong TOTP code", "pyotp"), ("誤った TOTP コード", "pyotp")),
    Row("TOTP", "verify_totp, wrong code", "django-otp TOTP.verify(tolerance=1), wrong code",
        ("the same", "django-otp"), ("同上", "django-otp")),
    Row("One statement", "SlowQueryMonitor", "bare",
        ("a statement with `SlowQueryMonitor`", "SQLAlchemy alone, SQLite"),
        ("`SlowQueryMonitor` 付きの SQL 文", "SQLAlchemy だけ、SQLite")),
    Row("A page of 50 at 1,000", "keyset_page", "OFFSET, built for each page",
        ("page 20 of a list, by keyset", "`OFFSET`, built for each page"), ("一覧の 20 ページ目、キーセット方式", "毎回組み立てる `OFFSET`")),
    Row("A page of 50 at 199,000", "keyset_page", "OFFSET, built for each page",
        ("page 4,000 of a list, by keyset", "`OFFSET`"), ("一覧の 4,000 ページ目、キーセット方式", "`OFFSET`")),
    Row("The first 50 with 溶射", "SearchIndex", "LIKE, in no order",
        ("50 articles with a rare word, `SearchIndex`", "`LIKE`"),
        ("まれな語を含む記事 50 件、`SearchIndex`", "`LIKE`")),
    Row("The first 50 with 技術", "SearchIndex", "LIKE, in no order",
        ("50 articles with a word that most have", "`LIKE`, in no order"),
        ("大半の記事にある語を含む記事 50 件", "`LIKE`、順序なし")),
    Row("task, CPU", "embedded, PostgreSQL, 2 threads", "plain Celery, results kept",
        ("a small task in a worker on PostgreSQL: processor time, with the server's", "Celery on Redis"),
        ("PostgreSQL のワーカーでの小さなタスク: サーバーを含む CPU 時間", "Redis を使う Celery")),
    Row("enqueue, CPU", "enqueue_many", "Procrastinate, batch_defer",
        ("many tasks enqueued at once: processor time, with the server's", "Procrastinate"),
        ("多数のタスクの一括登録: サーバーを含む CPU 時間", "Procrastinate")),
)  # fmt: skip

# Title of a plot, and what one operation is, among how many.
_GROWTH = {
    "records": (("log record", 10, "messages"), ("ログ 1 件", 10, "種類のメッセージ")),
    "keys": (("get from the cache in memory", 100, "keys"), ("メモリーのキャッシュからの取得", 100, "個のキー")),
    "limits": (("hit of three rate limits", 100, "clients"), ("3 つのレート制限の 1 回", 100, "クライアント")),
    "sessions": (("session check", 10, "sessions"), ("セッションの確認", 10, "セッション")),
    "statements": (("fingerprint of a statement", 10, "statements"), ("SQL 文のフィンガープリント", 10, "種類の文")),
    "articles": (("search for a rare word", 20, "articles"), ("まれな語の検索", 20, "件の記事")),
    "tasks": (("task from start to end, SQLite", 10, "others"), ("タスクの登録から終了まで、SQLite", 10, "件のほかのタスク")),
}  # fmt: skip
_TEXTS = {
    "en": {
        "run": "The last runs: {date}, commit {commit}; {machine}, Python {python}. {versions}.",
        "head": "| operation | compared with | ratio | result |",
        "lost": "slower",
        "instructions": "| path | instructions of one call |",
        "among": "{number:,} {what}",
        "plot": "Processor time of one operation as the work grows from 1 to 1,000 times.",
    },
    "ja": {
        "run": "直近の測定: {date}、コミット {commit}。{machine}、Python {python}。{versions}。",
        "head": "| 対象 | 比較対象 | 比 | 結果 |",
        "lost": "遅い",
        "instructions": "| 処理 | 1 回の命令数 |",
        "among": "{number:,} {what}",
        "plot": "作業量が 1 倍から 1,000 倍になったときの、1 回の処理の CPU 時間",
    },
}
_PATHS = {
    "log record, five extra fields": "追加フィールドが 5 個のログ 1 件",
    "message with a secret, redacted": "秘密情報を含むメッセージの伏せ字",
    "request through proxies, record and headers": "プロキシ、記録、ヘッダーを通るリクエスト",
    "rate limit in memory, three limits": "メモリーでの 3 つのレート制限",
    "hit of @cached in memory": "メモリーでの @cached のヒット",
}
_STYLE = """<style>
.growth-plot{--ink:var(--color-foreground-primary,#1c2733);--line:var(--color-background-border,#c9d3dc);
--mark:#2f80c8;max-width:100%;height:auto}
@media (prefers-color-scheme:dark){.growth-plot{--ink:var(--color-foreground-primary,#d8dee6);
--line:var(--color-background-border,#3a444f)}}
.growth-plot text{font:13px system-ui,sans-serif;fill:var(--ink)}.growth-plot .name{font-weight:600}
.growth-plot path{stroke:var(--line)}.growth-plot polyline{stroke:var(--mark);fill:none;stroke-width:2}
.growth-plot circle{fill:var(--mark)}
</style>"""
_COLUMNS, _WIDTH, _HEIGHT = 2, 380, 170
_BEGIN, _END = "<!-- figures of make bench -->", "<!-- end of figures -->"


def read() -> dict[str, Any]:
    """Return what the last measurement has kept."""
    kept: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return kept


def files(kept: dict[str, Any]) -> dict[Path, str]:
    """Return the content of every generated file."""
    found = {}
    for language in _TEXTS:
        found[DOCS / language / "explanation" / "comparison.inc"] = "\n".join(_tables(kept, language)) + "\n"
        found[DOCS / language / "pictures" / "growth.svg"] = _plot(kept["runs"], language)
        rows = "\n".join(_rows(kept["runs"], language, [row for row in ROWS if row.readme]))
        readme = DOCS.parent / ("README.md" if language == "en" else "README.ja.md")
        for page in (readme, DOCS / language / "index.md"):
            parts = re.split(f"(?<={_BEGIN})|(?={_END})", page.read_text(encoding="utf-8"))
            found[page] = f"{parts[0]}\n\n{rows}\n\n{parts[-1]}"
    return found


def unmeasured(runs: list[Run]) -> list[str]:
    """Return the rows that no run has both figures of, which the tables leave out."""
    return [
        f"{row.title}: {row.ours}, {row.peer}"
        for row in ROWS
        if all(_ratio(row, run) is None for run in runs)
    ]


def write(kept: dict[str, Any]) -> None:
    """Write the generated files."""
    for path, content in files(kept).items():
        path.write_text(content, encoding="utf-8")


def _tables(kept: dict[str, Any], language: str) -> Iterator[str]:
    texts, runs = _TEXTS[language], kept["runs"]
    versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    yield "<!-- run -->\n"
    yield texts["run"].format(**{**kept, "versions": versions}) + "\n"
    yield "<!-- figures -->\n"
    yield from _rows(runs, language, ROWS)
    yield f"\n<!-- instructions -->\n\n{texts['instructions']}\n|---|---|"
    for path, number in runs[-1].get("instructions", {}).items():
        yield f"| {path if language == 'en' else _PATHS[path]} | {number:,.0f} |"
    yield "\n<!-- end -->"


def _rows(runs: list[Run], language: str, rows: Iterable[Row]) -> Iterator[str]:
    texts = _TEXTS[language]
    yield f"{texts['head']}\n|---|---|---|---|"
    for row in rows:
        ratios = sorted(ratio for run in runs if (ratio := _ratio(row, run)) is not None)
        if ratios:
            what, beside = row.en if language == "en" else row.ja
            shown = list(dict.fromkeys(f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}" for ratio in ratios))
            lost = texts["lost"] if ratios[0] > 1 else ""
            yield f"| {what} | {beside} | {'–'.join((shown[0], *shown[1:][-1:]))} | {lost} |"


def _ratio(row: Row, run: Run) -> float | None:
    """Return our figure divided by the peer's; ``None`` if one of them was not measured."""
    for title, figures in run.items():
        if title.startswith(row.title) and row.ours in figures and row.peer in figures:
            ratio = figures[row.ours] / figures[row.peer]
            return 1 / ratio if row.inverse else ratio
    return None


def _plot(runs: list[Run], language: str) -> str:
    panels = [(name, run) for name in _GROWTH if (run := runs[-1].get(f"growth of {name}"))]
    rows = -(-len(panels) // _COLUMNS)
    size = f"0 0 {_COLUMNS * _WIDTH} {rows * _HEIGHT}"
    label = escape(_TEXTS[language]["plot"])
    shapes = [_STYLE]
    for place, (name, costs) in enumerate(panels):
        left, top = place % _COLUMNS * _WIDTH, place // _COLUMNS * _HEIGHT
        shapes.extend(_panel(left, top, name, list(costs.values()), language))
    head = f'class="growth-plot" viewBox="{size}" role="img" aria-label="{label}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {head}>\n' + "\n".join(shapes) + "\n</svg>\n"


def _panel(left: int, top: int, name: str, costs: list[float], language: str) -> Iterator[str]:
    title, base, what = _GROWTH[name][0 if language == "en" else 1]
    floor, height = top + _HEIGHT - 40, _HEIGHT - 95
    yield f'<text class="name" x="{left + 16}" y="{top + 20}">{escape(title)}</text>'
    yield f'<path d="M{left + 16} {floor}H{left + _WIDTH - 24}"/>'
    points = [
        (left + 50 + place * 90, round(floor - cost / max(costs) * height, 1))
        for place, cost in enumerate(costs)
    ]
    yield f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}"/>'
    for place, ((x, y), cost) in enumerate(zip(points, costs, strict=True)):
        yield f'<circle cx="{x}" cy="{y}" r="3"/>'
        shown = f"{cost:.2g}" if cost < 100 else f"{cost:,.0f}"
        yield f'<text x="{x}" y="{y - 8}" text-anchor="middle">{shown} µs</text>'
        number = f"{base * 10**place:,}"
        yield f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{number}</text>'
    yield f'<text x="{left + _WIDTH - 24}" y="{floor + 34}" text-anchor="end">{escape(what)}</text>'


if __name__ == "__main__":
    write(read())
