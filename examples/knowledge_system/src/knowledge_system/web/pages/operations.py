"""Operations page for administrators: metrics as plots and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flask import Blueprint, render_template
from markupsafe import Markup

from knowledge_system.domain import fields, permissions
from knowledge_system.domain.svg_plots import Plot, render_svg
from knowledge_system.services.identity import accounts
from knowledge_system.services.operations.backups import newest_backup
from knowledge_system.services.operations.limited_clients import LimitedClient
from knowledge_system.services.operations.overview import Overview, overview, plan_of
from knowledge_system.web import current_request, forms

if TYPE_CHECKING:
    from flask import Response

    from knowledge_system.services.operations.metric_counts import MetricCounts

pages = Blueprint("operations", __name__, url_prefix="/admin/operations")

_STEPS: Final = {1: timedelta(minutes=1), 6: timedelta(minutes=10), 24: timedelta(minutes=30)}
_MOST_CLOSE: Final = 20
_FOUND_OUT: Final = ("refused", "factor_refused")


class Shown(NamedTuple):
    """A plot and its table of values."""

    title: str
    unit: str
    svg: Markup
    newest: str
    rows: Sequence[tuple[str, str]]


@pages.get("")
def looking() -> Response:
    """Show the metrics of the last hours."""
    services, now = current_request.services(), current_request.now()
    hours = int(forms.query_values(fields.OPERATIONS)["hours"])
    services.samples.write()  # includes the current minute of this process
    seen = overview(
        services.samples.read(last=timedelta(hours=hours)), now=now, hours=hours, step=_STEPS[hours]
    )
    backup = newest_backup(services.settings, now=now.timestamp())
    background = services.background
    return forms.private(
        render_template(
            "operations.html",
            section="admin",
            hours=hours,
            spans=tuple(_STEPS),
            plots=list(_plots(seen)),
            total=seen.total,
            slow=[(each, plan_of(services.engine, each.text)) for each in seen.slowest],
            slow_from=services.settings.hardening.db.slow_query,
            groups=sorted({*seen.total.refused, *seen.total.near}),
            close=_close(seen.total),
            tasks=background.tasks.stats() if background else None,
            backup_at=backup.made_at,
            backup_old=not backup.fresh,
            backups=services.settings.backups is not None,
        )
    )


class Close(NamedTuple):
    """A user or client close to a rate limit, and how often."""

    group: str
    username: str
    client: str
    number: int


def _close(total: MetricCounts) -> list[Close]:
    """Return the most frequent first; the name of a deleted account is empty."""
    found = [(LimitedClient.from_text(text), number) for text, number in total.whose.most_common(_MOST_CLOSE)]
    with current_request.services().reads() as session:
        known = accounts.names(session, (int(whose.user) for whose, _ in found if whose.user))
    return [
        Close(whose.group, known.get(int(whose.user or 0), ""), whose.client, number)
        for whose, number in found
    ]


def _plots(seen: Overview) -> Iterable[Shown]:
    say = current_request.say

    def sums(name: str, title: str, of: Any, *, unit: str = "") -> Shown:
        return _shown(seen, name, title, [of(each) for each in seen.each], unit=unit, bars=True)

    yield sums("requests", say("リクエスト"), lambda each: each.requests)
    yield _shown(seen, "times", say("応答時間 (p95)"), [each.quantile(0.95) for each in seen.each], unit="ms")
    yield _shown(
        seen,
        "hits",
        say("キャッシュの的中率"),
        [None if each.hit_rate is None else round(each.hit_rate * 100) for each in seen.each],
        unit="%",
        most=100,
    )
    yield sums("failures", say("失敗した応答 (500 番台)"), lambda each: each.failures)
    yield sums("slow", say("遅い SQL"), lambda each: each.slow_calls)
    yield sums("refused", say("制限による拒否"), lambda each: each.refused.total())
    yield sums("near", say("上限の 8 割に達した"), lambda each: each.near.total())
    yield sums("guesses", say("サインインの失敗"), _guesses)
    yield sums("sessions", say("始まったセッション"), lambda each: each.sessions["started"])
    yield sums("due", say("待っている処理"), lambda each: each.due)
    yield sums("dead", say("失敗したままの処理"), lambda each: each.dead)
    yield sums("alerts", say("送信したアラート"), _delivered)
    if current_request.services().settings.database_replica_urls:
        yield sums("replica", say("レプリカからの読み取り"), lambda each: each.reads["replica"])


def _guesses(counts: MetricCounts) -> int:
    return sum(counts.sign_ins[change] for change in _FOUND_OUT)


def _delivered(counts: MetricCounts) -> int:
    return sum(number for state, number in counts.alerts.items() if state.endswith(" delivered"))


def _shown(
    seen: Overview,
    name: str,
    title: str,
    values: list[float | None],
    *,
    unit: str = "",
    most: float = 1,
    bars: bool = False,
) -> Shown:
    known = [value for value in values if value is not None]
    newest, largest = (known[-1], max(known)) if known else (None, None)
    words = current_request.say(
        "最新 %(newest)s、最大 %(largest)s", newest=_number(newest, unit), largest=_number(largest, unit)
    )
    plot = Plot(
        name, title, words, values, _clock(seen.moments[0]), _clock(seen.moments[-1]), most=most, bars=bars
    )
    rows = [
        (_clock(moment), _number(value, unit))
        for moment, value in zip(seen.moments, values, strict=True)
        if value is not None and (value or not bars)
    ]
    return Shown(title, unit, Markup(render_svg(plot)), words, rows[::-1])  # noqa: S704 - every text in it is escaped


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:g}{' ' if unit == 'ms' else ''}{unit}"


def _clock(moment: datetime) -> str:
    return moment.astimezone(permissions.JST).strftime("%H:%M")
