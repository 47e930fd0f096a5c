"""Articles of a demonstration, from facts and templates in ``content``; the same number, the same article."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from knowledge_system.domain import content
from knowledge_system.domain.files import drawings

_FIRST: Final = date(2023, 4, 3)
_AUTHORS: Final = ("tanaka", "suzuki", "sato", "yamamoto")
_STATUSES: Final = ("published",) * 17 + ("draft", "review", "retired")
_MEASURE: Final = ("item", "limit", "usual", "spread", "unit", "tool")
_CHANGES: Final = ("気温が下がった", "材料のロットが替わった", "前日に雨が降った", "班が交代した")


class Generated(NamedTuple):
    """An article as ``content/articles`` has it, and its picture, drawn when it is needed.

    The text names the picture ``files/picture.webp``.
    """

    entry: dict[str, Any]
    draw: Callable[[], bytes]


class _Case(NamedTuple):
    """What an article is about: a kind of work at a site, on a day."""

    work: dict[str, Any]
    site: str
    facts: list[str]
    day: date
    chance: random.Random

    @property
    def name(self) -> str:
        return str(self.work["name"])

    def split(self, kind: str) -> list[list[str]]:
        return [line.split("|") for line in self.work[kind]]

    def written(self, kind: str, **values: Any) -> _Text:
        """Return the text of a template in ``content/generated``; it draws its variants in their order."""
        known = {"name": self.name, "site": self.site, "facts": self.facts, "work": self.work}
        drawn = {"pick": self.chance.choice, "sample": self.chance.sample}
        page = _templates().get_template(f"{kind}.md").make_module({**known, **drawn, **values})
        return _Text(page.title, page.summary, str(page).strip(), page.tag)  # type: ignore[attr-defined]  # set by the template


class _Text(NamedTuple):
    title: str
    summary: str
    body: str
    tag: str
    draw: Callable[[], bytes] = bytes


@cache
def _templates() -> Environment:
    loader = PackageLoader("knowledge_system", "content/generated")
    made = Environment(loader=loader, trim_blocks=True, undefined=StrictUndefined)  # noqa: S701 - Markdown of our own facts
    made.filters.update(table=_table, bullets=_bullets)
    return made


@cache
def _facts() -> dict[str, Any]:
    return content.read_toml("works.toml")


def generated(number: int) -> Generated:
    """Return the article with this number, from 0."""
    works = _facts()["work"]
    turn, index = divmod(number, len(works))
    chance = random.Random(number)  # noqa: S311 - generated articles, not secrets
    sites = [site for site in _facts()["site"] if works[index]["category"] not in site.get("without", ())]
    site = sites[(index * 5 + turn * 3 + turn // len(_KINDS) * 2) % len(sites)]
    day = _FIRST + timedelta(days=(number * 197) % 1300)
    case = _Case(works[index], site["name"], chance.sample(site["facts"], 3), day, chance)
    text = _KINDS[(index + turn) % len(_KINDS)](case, turn)
    times = turn // (len(_KINDS) * len(sites)) + 1
    again = f" その{times}" if times > 1 else ""
    entry = {
        "slug": f"generated-{number}",
        "title": text.title + again,
        "category": case.work["category"],
        "summary": text.summary,
        "body": text.body,
        "tags": list(dict.fromkeys([*case.work["tags"], text.tag])),
        "site": case.site,
        "author": chance.choice(_AUTHORS),
        "status": chance.choice(_STATUSES),
        "comments": list(_comments(case)),
        "updated": day.isoformat(),
    }
    return Generated(entry, text.draw)


def _comments(case: _Case) -> Iterator[dict[str, str]]:
    _, cause, background, _, prevention = case.chance.choice(case.split("defects"))
    other = case.chance.choice(_facts()["site"])["name"]
    texts = [
        f"{other}では「{background}」ことが元になりました。{prevention}ことをお勧めします。",
        f"朝のうちに「{case.chance.choice(case.work['checks'])}」も見ておくと安心です。",
        f"参考になりました。{other}でも来月から始めます。",
        f"{cause}例が{other}にもありました。写真を追って付けます。",
    ]
    for text in case.chance.sample(texts, case.chance.choice((0, 0, 1, 1, 2))):
        yield {"author": case.chance.choice((*_AUTHORS, "kobayashi")), "body": text}


def _day(day: date) -> str:
    return f"{day.month}月{day.day}日"


def _table(rows: Iterable[Sequence[str]], head: str) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|---" * columns + "|", *lines])


def _bullets(lines: Iterable[str], mark: str = "- ") -> str:
    return "\n".join(f"{mark}{line}" for line in lines)


def _procedure(case: _Case, _turn: int) -> _Text:
    danger, measure = case.chance.choice(case.split("risks"))
    steps = [case.work["steps"][place] for place in sorted(case.chance.sample(range(5), 4))]
    rows = [[item, limit, tool] for item, limit, _, _, _, tool in case.split("measures")]
    text = case.written("procedure", danger=danger, measure=measure, steps=steps, rows=rows)
    return text._replace(draw=_drawing(case, f"{case.name} 模式図({case.site})"))


def _corrective(case: _Case, turn: int) -> _Text:
    seen, cause, background, correction, prevention = case.split("defects")[turn // len(_KINDS) % 2]
    found, done = case.day - timedelta(days=case.chance.randrange(9, 30)), case.day
    people = case.chance.sample(("職長", "品質担当", "監理技術者", "測量担当", "所長"), 3)
    rows = [
        [_day(found), people[0], seen],
        [_day(found + timedelta(days=1)), people[1], f"原因を調べ、{cause}と分かった"],
        [_day(done - timedelta(days=2)), people[2], correction],
    ]
    facts = {"seen": seen, "cause": cause, "background": background, "prevention": prevention}
    text = case.written("corrective", **facts, rows=rows)
    return text._replace(draw=_drawing(case, f"是正の箇所 {found:%Y-%m-%d}"))


def _checklist(case: _Case, _turn: int) -> _Text:
    chance, measures = case.chance, case.split("measures")
    checks = chance.sample(case.work["checks"], 4)
    then = ("作業を止めて所長に知らせる", "その場で直し、測り直す", "品質担当が判断する")
    rows = [[item, limit, chance.choice(then)] for item, limit, *_ in measures]
    when = chance.choice(("毎朝の作業前", "打合せの前日", "雨や地震のあと", "作業の終わり", "週のはじめ"))
    measured = [f"{item}を{tool}で測った" for item, *_, tool in measures[:2]]
    text = case.written("checklist", checks=checks, rows=rows, when=when, measured=measured)
    return text._replace(draw=_drawing(case, f"点検の範囲 {case.site}"))


def _safety(case: _Case, _turn: int) -> _Text:
    chance, risks = case.chance, case.split("risks")
    rows = [[*risk, chance.choice(("職長", "誘導員", "安全当番", "元請の担当"))] for risk in risks]
    danger, measure = chance.choice(risks)
    day = _day(case.day - timedelta(days=chance.randrange(3, 12)))
    text = case.written("safety", danger=danger, measure=measure, rows=rows, day=day)
    return text._replace(draw=_drawing(case, f"作業の配置 {case.site}"))


def _quality(case: _Case, turn: int) -> _Text:
    measure = dict(zip(_MEASURE, case.split("measures")[turn % 3], strict=True))
    item, usual, spread, unit = (measure[name] for name in ("item", "usual", "spread", "unit"))
    values = [max(0.0, case.chance.gauss(float(usual), float(spread))) for _ in range(10)]
    digits = 0 if "." not in usual and float(usual) >= 10 else 2 if float(usual) < 2 else 1
    values = [round(value, digits) for value in values]
    rows = [
        [f"No.{place * 2}", f"{case.day - timedelta(days=20 - place * 2):%m/%d}", f"{value:g}"]
        for place, value in enumerate(values)
    ]
    mean = sum(values) / len(values)
    outlying = max(range(10), key=lambda place: abs(values[place] - mean))
    text = case.written(
        "quality",
        **measure,
        rows=rows,
        mean=f"{mean:.{digits + 1}f}",
        largest=f"{max(values):g}",
        smallest=f"{min(values):g}",
        outlier=f"No.{outlying * 2}",
        change=case.chance.choice(_CHANGES),
    )
    return text._replace(draw=lambda: drawings.plot(f"{item} {case.site}", values, unit))


def _ict(case: _Case, _turn: int) -> _Text:
    chance, rows = case.chance, []
    for label, low, high in (("所要日数", 6, 24), ("人工", 8, 40), ("手戻り", 2, 9)):
        before = chance.randrange(low, high)
        rows.append((label, float(before), float(max(1, round(before * chance.uniform(0.4, 0.8))))))
    shown = [[label, f"{old:g}", f"{new:g}"] for label, old, new in rows]
    text = case.written("ict", rows=shown, check=chance.choice(case.work["checks"]))
    return text._replace(draw=lambda: drawings.bars(f"{case.name} {case.site}", rows))


def _review(case: _Case, turn: int) -> _Text:
    chance = case.chance
    seen, _, background, correction, prevention = case.split("defects")[(turn // len(_KINDS) + 1) % 2]
    good, people = chance.sample(case.work["steps"], 2), chance.randrange(5, 14)
    rows = [
        [item, limit, f"{float(usual) + chance.uniform(-0.5, 0.5) * float(spread):.3g}{unit}"]
        for item, limit, usual, spread, unit, _ in case.split("measures")
    ]
    facts = {"seen": seen, "background": background, "correction": correction, "prevention": prevention}
    month = f"{case.day.year}年{case.day.month}月"
    return case.written("review", **facts, good=good, people=people, rows=rows, month=month)


def _drawing(case: _Case, title: str) -> Callable[[], bytes]:
    seed = case.chance.randrange(2**32)
    chance = random.Random(seed)  # noqa: S311 - a drawing, not a secret
    return lambda: drawings.section(title, case.work["category"], chance)


_KINDS: Final = (_procedure, _corrective, _checklist, _safety, _quality, _ict, _review)
