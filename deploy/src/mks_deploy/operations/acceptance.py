"""Acceptance sheet: the criteria of a move to production in four phases, each with the figure that decides it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from mks_deploy.operations.probe import request

if TYPE_CHECKING:
    from mks_deploy.operations.concurrent_readers import Readings
    from mks_deploy.operations.probe import Finding, Target
    from mks_deploy.settings.definitions import Settings

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Language",
    "Metrics",
    "StaticTimes",
    "Verdict",
    "as_json",
    "as_markdown",
    "as_text",
    "collect_metrics",
    "judge",
    "log_lines",
    "static_times",
]

Outcome = Literal["met", "missed", "not run"]
Language = Literal["en", "ja"]

_ENOUGH: Final = 100
"""Events below which a share or a percentile says nothing."""
_LOG_TAIL: Final = 256 * 1024


class Criterion(NamedTuple):
    """One criterion: its phase, its key, the command that measures it alone, and its text in each language."""

    phase: int
    key: str
    command: str
    en: str
    ja: str


CRITERIA: Final = (
    Criterion(
        1,
        "tls",
        "mks-deploy test URL",
        "TLS fulfils what grade A+ of SSL Labs requires",
        "TLS が SSL Labs の A+ の条件を満たす",
    ),
    Criterion(
        1,
        "redirects",
        "mks-deploy test URL",
        "Every plain HTTP request is redirected to HTTPS",
        "すべての HTTP リクエストが HTTPS にリダイレクトされる",
    ),
    Criterion(1, "json-logs", "tail app.log", "Logs are JSON", "ログが JSON 形式で出力される"),
    Criterion(
        1,
        "alerts",
        "mks-deploy accept --send-alert",
        "An error notifies somebody",
        "エラー発生時に通知が届く",
    ),
    Criterion(
        2,
        "second-factor",
        "curl 127.0.0.1:METRICS_PORT/metrics",
        "Second factors work",
        "二段階認証が動作する",
    ),
    Criterion(
        2,
        "rate-limits",
        "curl 127.0.0.1:METRICS_PORT/metrics",
        "Rate limits allow and refuse",
        "レート制限が許可と拒否の両方で機能する",
    ),
    Criterion(
        2,
        "session-timeout",
        "curl 127.0.0.1:METRICS_PORT/metrics",
        "Sessions end when idle or too old",
        "セッションがタイムアウトする",
    ),
    Criterion(
        3,
        "hit-rate",
        "mks-hardening cache stats",
        "At least 70 % of the reads are cache hits",
        "キャッシュヒット率が 70 % 以上",
    ),
    Criterion(
        3,
        "response-time",
        "mks-deploy accept --before FILE",
        "Responses take at most half the time of before",
        "レスポンス時間が以前の半分以下",
    ),
    Criterion(
        3,
        "static-files",
        "curl --head URL/static/FILE",
        "Static files are cached, revalidated and faster than the application",
        "静的ファイルがキャッシュ・再検証され、アプリケーションより速い",
    ),
    Criterion(
        4,
        "n-plus-one",
        "mks-deploy app mks-hardening db n+1",
        "No N+1 statements",
        "N+1 問題がない",
    ),
    Criterion(
        4,
        "background-tasks",
        "curl 127.0.0.1:METRICS_PORT/metrics",
        "Heavy work runs in background tasks",
        "重い処理がバックグラウンドで実行される",
    ),
    Criterion(
        4,
        "connections",
        "mks-deploy accept --load",
        "1000 connections at the same time without an error",
        "同時接続 1000 でエラーなし",
    ),
    Criterion(
        4,
        "p95",
        "mks-deploy accept --load",
        "95 % of the responses within 500 ms",
        "95 % のレスポンスが 500 ms 以内",
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one criterion.

    Attributes:
        criterion: what is required.
        outcome: ``not run`` if nothing was there that could decide it.
        figure: what was measured; for ``not run``, the reason and what to do.
    """

    criterion: Criterion
    outcome: Outcome
    figure: str


class Metrics:
    """Counters and histograms of the running slots, added up.

    Args:
        texts: expositions in the text format of Prometheus, one for each slot.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        from prometheus_client.parser import text_string_to_metric_families

        self.any = bool(texts)
        self._samples: list[tuple[str, Mapping[str, str], float]] = []
        for text in texts:
            for family in text_string_to_metric_families(text):
                self._samples += [(each.name, each.labels, each.value) for each in family.samples]

    def total(self, name: str, **labels: tuple[str, ...]) -> float:
        """Return the sum of the samples whose labels have one of the given values."""
        return sum(
            (
                value
                for sample, given, value in self._samples
                if sample == name and all(given.get(label, "") in values for label, values in labels.items())
            ),
            0.0,
        )

    def quantile(self, name: str, share: float) -> float:
        """Return a quantile of a histogram as Prometheus computes it (``histogram_quantile``); 0 if it is empty."""
        counts: dict[float, float] = {}
        for sample, labels, value in self._samples:
            if sample == f"{name}_bucket":
                bound = float(labels["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        wanted = share * max(counts.values(), default=0.0)
        lower, below = 0.0, 0.0
        for bound, count in sorted(counts.items()):
            if count >= wanted > 0:
                inside = (wanted - below) / (count - below)
                return lower if bound == float("inf") else lower + (bound - lower) * inside
            lower, below = bound, count
        return 0.0


def collect_metrics(settings: Settings) -> Metrics:
    """Read the metrics of each slot that runs; outside a release there is one."""
    texts = list[str]()
    port = settings.upkeep.metrics_port
    for each in (port, port + 1) if settings.edge.mode == "nginx" else (port,):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{each}/metrics", timeout=10) as answer:
                texts.append(answer.read().decode())
        except OSError:
            continue
    return Metrics(texts)


def log_lines(settings: Settings) -> list[str] | None:
    """Return the newest whole lines of the application's log; ``None`` if there is no file."""
    file = Path(settings.paths.logs) / "app.log"
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - _LOG_TAIL))
            cut = stream.tell() > 0
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return lines[1:] if cut else lines


class StaticTimes(NamedTuple):
    """A static file, its directives for caches, the status of its revalidation, and the best of five times each."""

    path: str
    cache_control: str
    revalidated: int
    static_ms: float
    application_ms: float


def static_times(settings: Settings, target: Target, path: str) -> StaticTimes | None:
    """Compare a static file of this host with a page of the application; ``None`` if there is no file."""
    folder = Path(settings.paths.releases) / "public" / "static"
    found = (each for each in sorted(folder.rglob("*")) if each.is_file() and each.suffix != ".gz")
    file = next(found, None)
    if file is None:
        return None
    url = f"/static/{file.relative_to(folder)}"
    answer = request(target, url)
    tag = answer.all("ETag") if answer else []
    again = request(target, url, fields={"If-None-Match": tag[0]}) if tag else None
    return StaticTimes(
        url,
        "; ".join(answer.all("Cache-Control")) if answer else "",
        again.status if again else 0,
        _best_ms(target, url),
        _best_ms(target, path),
    )


def _best_ms(target: Target, path: str) -> float:
    def once() -> float:
        begun = time.perf_counter()
        request(target, path)
        return 1000 * (time.perf_counter() - begun)

    return min(once() for _ in range(5))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found out about an installed site; ``None`` for what was not asked or is not there.

    Attributes:
        findings: results of the test from outside.
        metrics: counters and histograms of the application.
        log: newest lines of the application's log.
        alert_delivered: whether the alert that was sent left the host.
        before: figures of an earlier sheet.
        static: a static file beside a page.
        n_plus_one: exit status of ``mks-hardening db n+1``.
        load: result of the load.
        has_database: whether the application has a database.
        has_tasks: whether it has background tasks.
    """

    findings: Sequence[Finding]
    metrics: Metrics
    log: Sequence[str] | None = None
    alert_delivered: bool | None = None
    before: Mapping[str, float] | None = None
    static: StaticTimes | None = None
    n_plus_one: int | None = None
    load: Readings | None = None
    has_database: bool = True
    has_tasks: bool = True


def judge(evidence: Evidence) -> tuple[Verdict, ...]:
    """Decide each criterion."""
    return tuple(Verdict(each, *_JUDGES[each.key](evidence)) for each in CRITERIA)


_Result: TypeAlias = tuple[Outcome, str]
_NO_METRICS: Final = (
    "not run",
    "the application reports no metrics on upkeep.metrics_port (PrometheusObserver of mks_hardening)",
)


def _outcome(holds: object) -> Outcome:
    return "met" if holds else "missed"


def _found(evidence: Evidence, chosen: Callable[[str], bool]) -> _Result:
    found = [each for each in evidence.findings if chosen(each.promise)]
    bad = [f"{each.promise}: {each.seen}".rstrip(": ") for each in found if not each.holds]
    shown = "; ".join(f"not: {each}" for each in bad) or f"{len(found)} of {len(found)} checks"
    return _outcome(bool(found) and not bad), shown


_TLS: Final = ("the chain", "the cipher", "the certificate", "TLS ", "an unknown name is refused")


def _tls(evidence: Evidence) -> _Result:
    return _found(evidence, lambda said: said.startswith(_TLS) or "HSTS" in said)


def _redirects(evidence: Evidence) -> _Result:
    return _found(evidence, lambda said: said.startswith("plain http"))


def _json_logs(evidence: Evidence) -> _Result:
    if not evidence.log:
        return "not run", "app.log in paths.logs is missing or empty; containers log to standard output"
    good = sum(_is_record(line) for line in evidence.log)
    return _outcome(good == len(evidence.log)), f"{good} of {len(evidence.log)} lines"


def _is_record(line: str) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    # The names of each schema that the library writes.
    return isinstance(record, dict) and bool({"timestamp", "@timestamp", "time"} & record.keys())


def _alerts(evidence: Evidence) -> _Result:
    delivered = evidence.metrics.total("mks_alerts_total", state=("delivered",))
    if evidence.alert_delivered is not None:
        sent = evidence.alert_delivered
        return (
            _outcome(sent),
            "a channel accepted the alert"
            if sent
            else "no channel accepted the alert: mks-deploy alert --test",
        )
    if delivered:
        return "met", f"{delivered:.0f} delivered since the start"
    return "not run", "no alert was delivered since the start; --send-alert sends one to alert_mail and chat"


def _second_factor(evidence: Evidence) -> _Result:
    if not evidence.metrics.any:
        return _NO_METRICS
    verified = evidence.metrics.total("mks_two_factor_events_total", change=("verified",))
    if not verified:
        return "not run", "nobody signed in with a second factor since the start; do so, and repeat"
    return "met", f"{verified:.0f} verified since the start"


def _rate_limits(evidence: Evidence) -> _Result:
    if not evidence.metrics.any:
        return _NO_METRICS
    name = "mks_rate_limit_decisions_total"
    allowed, refused = (evidence.metrics.total(name, outcome=(each,)) for each in ("allowed", "refused"))
    if not (allowed and refused):
        return "not run", f"{allowed:.0f} allowed, {refused:.0f} refused; exceed a limit once, and repeat"
    return "met", f"{allowed:.0f} allowed, {refused:.0f} refused"


def _session_timeout(evidence: Evidence) -> _Result:
    if not evidence.metrics.any:
        return _NO_METRICS
    ended = evidence.metrics.total("mks_session_changes_total", reason=("idle", "absolute"))
    if not ended:
        return (
            "not run",
            "no session timed out since the start; leave one alone for the idle time, and repeat",
        )
    return "met", f"{ended:.0f} sessions ended by a time-out"


def _hit_rate(evidence: Evidence) -> _Result:
    if not evidence.metrics.any:
        return _NO_METRICS
    name = "mks_cache_reads_total"
    hits = evidence.metrics.total(name, outcome=("hit", "stale"))
    reads = evidence.metrics.total(name, outcome=("hit", "stale", "miss"))
    if reads < _ENOUGH:
        return "not run", f"{reads:.0f} reads of the cache since the start are too few"
    return _outcome(hits / reads >= 0.7), f"{hits / reads:.1%} of {reads:.0f} reads"


def _mean_ms(metrics: Metrics) -> float | None:
    count = metrics.total("mks_request_duration_seconds_count")
    return 1000 * metrics.total("mks_request_duration_seconds_sum") / count if count >= _ENOUGH else None


def _response_time(evidence: Evidence) -> _Result:
    mean, before = _mean_ms(evidence.metrics), (evidence.before or {}).get("mean_ms")
    if mean is None:
        return "not run", "fewer than 100 requests were measured since the start"
    if before is None:
        return (
            "not run",
            f"{mean:.1f} ms on average; --before names a sheet (JSON) of the time before the change",
        )
    return _outcome(mean <= before / 2), f"{mean:.1f} ms on average, {before:.1f} ms before"


def _static_files(evidence: Evidence) -> _Result:
    seen = evidence.static
    if seen is None:
        return "not run", "this host publishes no static files (app.static)"
    holds = (
        "max-age=" in seen.cache_control and seen.revalidated == 304 and seen.static_ms <= seen.application_ms
    )
    return _outcome(holds), (
        f"{seen.path}: {seen.cache_control or 'no Cache-Control'}, revalidated with {seen.revalidated}, "
        f"{seen.static_ms:.1f} ms (a page: {seen.application_ms:.1f} ms)"
    )


def _n_plus_one(evidence: Evidence) -> _Result:
    if not evidence.has_database:
        return "not run", "the application has no database (app.needs)"
    if evidence.n_plus_one == 0:
        return "met", "no statement read single rows 1000 times"
    if evidence.n_plus_one == 1:
        return "missed", "statements read single rows: mks-deploy app mks-hardening db n+1 lists them"
    return "not run", "the statistics cannot be read: install pg_stat_statements, and mks_hardening[db]"


def _background_tasks(evidence: Evidence) -> _Result:
    if not evidence.metrics.any:
        return _NO_METRICS
    done = evidence.metrics.total("mks_task_runs_total", outcome=("done",))
    if not done:
        return "not run", "no background task was recorded as done since the start" + (
            "" if evidence.has_tasks else "; [tasks] names no application"
        )
    return "met", f"{done:.0f} tasks done since the start"


def _connections(evidence: Evidence) -> _Result:
    load = evidence.load
    if load is None:
        return "not run", "--load sends requests over 1000 connections, with pauses of 1 to 3 s"
    errors = ", ".join(f"{count} × {what}" for what, count in load.errors.most_common(3))
    shown = f"{load.connections} connections, {len(load.seconds)} responses, {errors or 'no error'}"
    return _outcome(load.connections >= 1000 and not load.errors and bool(load.seconds)), shown


def _p95(evidence: Evidence) -> _Result:
    if evidence.load and evidence.load.seconds:
        slow = evidence.load.percentile_ms(95)
        return _outcome(slow <= 500), f"{slow:.0f} ms with {evidence.load.connections} connections"
    if _mean_ms(evidence.metrics) is None:
        return "not run", "fewer than 100 requests were measured since the start; --load sends some"
    slow = 1000 * evidence.metrics.quantile("mks_request_duration_seconds", 0.95)
    return _outcome(slow <= 500), f"{slow:.0f} ms of the requests since the start, without a load"


_JUDGES: Final[Mapping[str, Callable[[Evidence], _Result]]] = {
    "tls": _tls,
    "redirects": _redirects,
    "json-logs": _json_logs,
    "alerts": _alerts,
    "second-factor": _second_factor,
    "rate-limits": _rate_limits,
    "session-timeout": _session_timeout,
    "hit-rate": _hit_rate,
    "response-time": _response_time,
    "static-files": _static_files,
    "n-plus-one": _n_plus_one,
    "background-tasks": _background_tasks,
    "connections": _connections,
    "p95": _p95,
}

_MARKS: Final = {"met": "✓", "missed": "✗", "not run": "–"}
_OUTCOMES: Final = {
    "en": {"met": "met", "missed": "missed", "not run": "not run"},
    "ja": {"met": "達成", "missed": "未達", "not run": "未実施"},
}
_HEADS: Final = {
    "en": ("phase", "criterion", "command", "result", "figure"),
    "ja": ("フェーズ", "完了基準", "コマンド", "判定", "数値"),
}


def as_text(verdicts: Sequence[Verdict], language: Language) -> str:
    """Return the sheet as lines."""
    return "".join(
        f"{_MARKS[each.outcome]} {each.criterion.phase} {_said(each, language)}: {each.figure}\n"
        for each in verdicts
    )


def as_markdown(verdicts: Sequence[Verdict], language: Language) -> str:
    """Return the sheet as a table."""

    def lines() -> Iterator[str]:
        yield f"| {' | '.join(_HEADS[language])} |"
        yield "|---|---|---|---|---|"
        for each in verdicts:
            shown = _OUTCOMES[language][each.outcome]
            figure = each.figure.replace("|", r"\|")
            yield (
                f"| {each.criterion.phase} | {_said(each, language)} | `{each.criterion.command}` "
                f"| {_MARKS[each.outcome]} {shown} | {figure} |"
            )

    return "".join(f"{line}\n" for line in lines())


def as_json(verdicts: Sequence[Verdict], evidence: Evidence, *, facts: Mapping[str, str]) -> str:
    """Return the sheet for programs, with the figures that a later sheet compares with (``--before``)."""
    mean = _mean_ms(evidence.metrics)
    whole = {
        **facts,
        "figures": {"mean_ms": mean} if mean is not None else {},
        "criteria": [
            {
                "phase": each.criterion.phase,
                "key": each.criterion.key,
                "criterion": each.criterion.en,
                "command": each.criterion.command,
                "outcome": each.outcome,
                "figure": each.figure,
            }
            for each in verdicts
        ],
    }
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def _said(verdict: Verdict, language: Language) -> str:
    return verdict.criterion.en if language == "en" else verdict.criterion.ja
